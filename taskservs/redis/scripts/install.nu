# Installs redis, configures it by a file of our own, and waits until it answers.

use before.nu [finish-purge note noted was-installed]
use common.nu [fail install-package installed-version must output progress put succeeds]
use service.nu [APPLIED FOLDERS OURS PACKAGES UNIT ask include-ours password-of wait-for-pong wanted]

def main [request: path] {
  let request = (open $request)
  let given = $request.parameters
  let password = (password-of $request)
  if $password =~ '[\r\n\x00]' {
    fail --code 2 "secret password has a line break"
  }

  note redis $PACKAGES $FOLDERS [$UNIT]
  finish-purge redis
  if not (is-installed $given.package) {
    install-package $given.package
  }
  let version = (installed-version redis-server)
  if $version == null {
    fail --code 2 $"package ($given.package) does not bring redis-server"
  }
  if (has-snapshots-only (noted redis)) {
    # Told by its file to append, redis begins empty: snapshots are not read any more. It has to be told while it runs.
    configure (wanted $request | reject appendonly) $password
    wait-for-pong $request 120
    append $request
  }
  configure (wanted $request) $password
  wait-for-pong $request 120

  output version $version
  output port $given.port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"redis ($version) answers on port ($given.port)"
}

def is-installed [package: string]: nothing -> bool {
  let parts = ($package | split row "=" --number 2)
  let version = (installed-version $parts.0)
  $version != null and (($parts | length) == 1 or $parts.1 == $version)
}

# Whether there may be data of somebody else's redis that never ran with our configuration.
def has-snapshots-only [before: record]: nothing -> bool {
  let was_here = ((was-installed $before redis-server) or ($before.paths | is-not-empty))
  $was_here and (not ($OURS | path exists) or "appendonly yes" not-in (open --raw $OURS | lines))
}

# Has the running redis write its data into an append-only file, and append from now on.
def append [request: record] {
  progress "writing the data that were here into an append-only file"
  let answer = (ask $request CONFIG SET appendonly yes)
  if $answer != ["OK"] { fail $"redis does not append: ($answer | str join ' ')" }
  for try in 1..480 {
    let state = (ask $request INFO persistence | str trim)
    let is_busy = ("aof_rewrite_in_progress:0" not-in $state or "aof_rewrite_scheduled:0" not-in $state)
    if not $is_busy {
      if "aof_last_bgrewrite_status:ok" not-in $state { fail "redis could not write its append-only file" }
      return
    }
    sleep 250ms
  }
  fail "redis still writes its append-only file after two minutes"
}

# Writes our file, includes it, and restarts what runs with another configuration. That redis appends it was told
# already where it was not by the file: no reason for a restart.
def configure [wanted: record, password: string] {
  # Byte by byte: no character of a password then means anything to redis.conf.
  let secret = (if $password == "" { [] } else {
    [$"requirepass \"($password | encode utf-8 | encode hex | str replace --all --regex '(..)' '\x$1')\""]
  })
  let text = ([
    "# Written by provisioning; changes are overwritten."
    ...($wanted | items {|name, value| $"($name) ($value)" })
    ...$secret
    ""
  ] | str join "\n")
  let lines = ($text | lines | where $it != "appendonly yes")
  let digest = ($"($lines | str join "\n")(installed-version redis-server)" | hash sha256)
  let applied = (if ($APPLIED | path exists) { open --raw $APPLIED } else { "" })
  # Forgotten first: a killed run's configuration may be the one that runs, though a later run wants the former again.
  if $applied != $digest { rm --force $APPLIED }
  write $OURS $text
  include-ours true

  if not (succeeds systemctl is-enabled --quiet $UNIT) { must systemctl enable --quiet $UNIT }
  if $applied != $digest {
    progress "starting redis with its configuration"
    # Its failed starts with a former configuration do not count.
    ^systemctl reset-failed $UNIT | complete | ignore
    must systemctl restart $UNIT
    write $APPLIED $digest
  } else if not (succeeds systemctl is-active --quiet $UNIT) {
    progress "starting redis"
    must systemctl start $UNIT
  }
}

# A file that only redis reads: it may hold the password, or tell of it.
def write [file: string, text: string] {
  put --mode 0600 --owner redis:redis $file $text | ignore
}
