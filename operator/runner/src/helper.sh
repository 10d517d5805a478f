#!/bin/sh
# Server side of provisioning-runner. It is put on the server once, under a name made of its digest; the runner calls
# it over SSH, `run` is called by the transient unit. All names that it is given are made by layout.rs and need no
# quoting, yet are quoted. Exit codes of its own: 3 not there, 74 incomplete upload, 76 the marker is another one.
set -u
umask 077

fail() {
  echo "$1" >&2
  exit "${2:-1}"
}

checksum() {
  sum=$(sha256sum <"$1") || return 1
  echo "${sum%% *}"
}

# Prints yes or no; an unanswered question is an error, for a wrong "no" would start a script twice.
alive() {
  state=$(systemctl show --property=ActiveState --value "$1") || fail "systemd does not answer"
  case "$state" in
  active | activating | deactivating | reloading | refreshing | maintenance) echo yes ;;
  inactive | failed) echo no ;;
  *) fail "systemd knows no state of $1: '$state'" ;;
  esac
}

# BASE: one runner at a time, until this program ends.
control() {
  exec 9>"$1.control" || exit
  flock --wait 20 9 || fail "another runner holds $1.control"
}

# BASE EXPECTED NEW, under control: puts the file NEW in the place of the marker if that is still the expected one (a digest, or `-`).
swap() {
  current=-
  if [ -e "$1.json" ]; then
    current=$(checksum "$1.json") || exit
  fi
  [ "$current" = "$2" ] || exit 76
  sync "$3" && mv -f "$3" "$1.json" && sync "$(dirname "$1")"
}

verb=$1
shift
case "$verb" in
facts)
  cat /etc/machine-id && uname -n
  ;;
booted)
  # Its exit code is no more than the word.
  systemctl is-system-running || true
  ;;
read) # FILE
  [ -e "$1" ] || exit 3
  cat "$1"
  ;;
put) # FILE MODE SHA256 < content
  mkdir -p "$(dirname "$1")" || exit
  temporary=$1.tmp.$$
  trap 'rm -f "$temporary"' EXIT
  cat >"$temporary" || exit
  [ "$(checksum "$temporary")" = "$3" ] || fail "the upload of $1 is incomplete" 74
  chmod "$2" "$temporary" && sync "$temporary" && mv -f "$temporary" "$1"
  ;;
has) # FILE SHA256; a stamp beside the file saves reading it again while its inode, size and times are the same
  now=$(stat -c '%i %s %Y %Z' "$1" 2>/dev/null) || exit 3
  [ "$(cat "$1.stamp" 2>/dev/null)" = "$2 $now" ] && exit 0
  [ "$(checksum "$1")" = "$2" ] || exit 3
  echo "$2 $now" >"$1.stamp"
  ;;
bundle-list) # FOLDER: digest and path of everything below
  cd "$1" 2>/dev/null || exit 3
  find . ! -type d -exec sha256sum {} +
  ;;
bundle-commit) # UPLOADED FOLDER
  if [ -e "$2" ]; then
    mv -T "$2" "$1.replaced" || exit
  fi
  mv -T "$1" "$2" || exit
  # What died runners left.
  find "$(dirname "$2")" -mindepth 1 -maxdepth 1 -name '*.tmp-*' \( -mmin +60 -o -name '*.replaced' \) -exec rm -rf {} +
  ;;
mark) # BASE EXPECTED NEW
  control "$1"
  swap "$1" "$2" "$3"
  ;;
start) # BASE EXPECTED STAGING RUN UNIT SECONDS NU BUNDLE SCRIPT ROOT VOLATILE REQUEST; STAGING: log, marker.json
  base=$1 expected=$2 staging=$3 run=$4 unit=$5 seconds=$6 nu=$7 bundle=$8
  shift 8
  script=$1 root=$2 volatile=$3 request=$4
  control "$base"
  # The runner has looked; but one that lost its connection may have started the script since, under the marker that this
  # one expects. What is alive keeps its files, and is found at the next look.
  units=$(systemctl list-units --all --plain --no-legend \
    --state=active,activating,deactivating,reloading "${unit%-*}-*") || fail "systemd does not answer"
  [ -z "$units" ] || exit 76
  swap "$base" "$expected" "$staging/marker.json" || exit
  rm -rf "$base".run-* "$volatile/${unit%-*}"-*
  mv -T "$staging" "$base.run-$run" || exit
  rm -rf "$base".new-*
  mv -f "$request" "$volatile/$unit.json" && rm -f "${request%-*}"-* || exit
  systemctl reset-failed "$unit" 2>/dev/null
  systemd-run --quiet --collect --unit="$unit" --property=RuntimeMaxSec="$seconds" --property=TimeoutStopSec=10 \
    flock --close --exclusive "$base.lock" \
    /bin/sh "$0" run "$base.run-$run" "$unit" "$nu" "$bundle" "$script" "$root" "$volatile" 9>&-
  ;;
run) # FOLDER UNIT NU BUNDLE SCRIPT ROOT VOLATILE
  folder=$1 unit=$2 nu=$3 bundle=$4 script=$5 root=$6 volatile=$7
  log() {
    # For people; what it says of long ago makes room, once, should two of them come at the same time.
    (
      flock --wait 5 8 || exit
      [ "$(stat -c %s "$root/runs.ndjson" 2>/dev/null || echo 0)" -lt 8388608 ] ||
        mv -f "$root/runs.ndjson" "$root/runs.ndjson.1"
    ) 8<"$root"
    printf '{"time":"%s","event":"%s",%s%s}\n' "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "$1" "$(cat "$folder/log")" "$2" \
      >>"$root/runs.ndjson"
  }
  export HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 NO_COLOR=1
  mkdir -p "$volatile"
  # Written now and overwritten in place: a disk that the script fills can't hide its exit code.
  printf '%-8s\n' - >"$folder/exit.next" || exit
  log start ''
  {
    cd "$bundle" && umask 022 &&
      "$nu" --no-config-file --no-history --error-style plain "$script" "$volatile/$unit.json" \
        </dev/null >"$folder/stdout"
  } 2>"$volatile/$unit"
  code=$?
  umask 077
  rm -f "$volatile/$unit.json"
  # Killed, or the machine goes down: not the script's own end. No exit file says so, and it is started again.
  case "$code" in
  0) ;;
  137 | 143) exit ;;
  *) [ "$(systemctl is-system-running)" != stopping ] || exit ;;
  esac
  log end ",\"exit\":$code"
  printf '%-8s\n' "$code" 1<>"$folder/exit.next"
  sync "$folder/exit.next" "$folder/stdout"
  mv -f "$folder/exit.next" "$folder/exit"
  ;;
follow) # FOLDER UNIT OFFSET TICKS: waits for news (a quarter second each tick), then prints a line on state, then stdout
  ticks=$4
  while [ "$ticks" -gt 0 ] && [ ! -e "$1/exit" ]; do
    size=$(stat -c %s "$1/stdout" 2>/dev/null || echo 0)
    [ "$size" -gt "$3" ] && break
    if [ $((ticks % 8)) = 0 ] && [ "$(alive "$2")" != yes ]; then
      break
    fi
    sleep 0.25
    ticks=$((ticks - 1))
  done
  # In this order: a unit that is seen dead has written its exit code before, or never will.
  alive=$(alive "$2") || exit
  exit=-
  if [ -e "$1/exit" ]; then
    exit=$(cat "$1/exit") || exit
  fi
  echo "$alive" $exit
  tail -c "+$(($3 + 1))" "$1/stdout" 2>/dev/null | head -c 65536
  ;;
stderr) # VOLATILE UNIT
  tail -c 65536 "$1/$2" 2>/dev/null || true
  ;;
*)
  fail "unknown verb $verb" 64
  ;;
esac
