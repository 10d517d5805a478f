# Stops etcd and removes what this extension brought: packages, configuration and data. Nothing of ours: nothing to do.

use common.nu [fail must progress purge-packages succeeds]
use service.nu *

const FILES = [
  "/etc/init.d/etcd" "/etc/default/etcd" "/lib/systemd/system/etcd.service" "/usr/bin/etcd" "/usr/bin/etcdctl"
]
const LINKS = ["/etc/systemd/system/etcd2.service" "/etc/systemd/system/multi-user.target.wants/etcd.service"]

def main [request: path] {
  if not ($OWNED | path exists) {
    progress "etcd of this extension is not here; nothing to do"
    return
  }
  let ports = (ports)
  if (succeeds systemctl is-active --quiet $UNIT) { progress "stopping etcd" }
  # Loaded or not; waiting for its next start or not.
  ^systemctl stop $UNIT | complete | ignore

  # Known to dpkg in whatever state: an installation may have been interrupted.
  let present = (open --raw $OWNED | lines | where {|package|
    (^dpkg-query --show --showformat "${db:Status-Status}" $package | complete).stdout not-in ["" "not-installed"]
  })
  # Killed while it was unpacked: dpkg would have it installed again before it removes it.
  for package in ($present | where {|package| is-half $package }) {
    must dpkg --force-remove-reinstreq --purge $package
    rm --force ...($FILES | each {|file| $"($file).dpkg-new" })
  }
  if $present != [] {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  # dpkg's scripts stay away from a mask; it is there where an installation was interrupted.
  if (^systemctl is-enabled $UNIT | complete).stdout =~ "masked" { must systemctl unmask --quiet $UNIT }
  # The package's scripts forget these links where the unit was masked when it was installed.
  must rm --recursive --force $DATA $DROPIN $"($DROPIN).new" ...$LINKS
  for folder in [$HOME $DROPIN_FOLDER] { ^rmdir --ignore-fail-on-non-empty $folder | complete | ignore }
  must systemctl daemon-reload
  ^systemctl reset-failed $UNIT | complete | ignore
  for port in $ports { wait-until-closed $port }

  # What says that there is something to remove goes last.
  rm --force ...([$OURS $APPLIED $JOINED] | each {|file| [$file $"($file).new"] } | flatten) $"($OWNED).new"
  rm --force $OWNED
  ^rmdir --ignore-fail-on-non-empty $FOLDER | complete | ignore
  progress "etcd is gone"
}

# Ports that the service was started with; the request may be wrong, or tell of others.
def ports []: nothing -> list<record> {
  if not ($OURS | path exists) { return [] }
  let current = (open $OURS)
  [$current.advertise-client-urls $current.initial-advertise-peer-urls] | each {|url|
    let parts = ($url | parse --regex '^http://\[?(?<host>.+?)\]?:(?<port>\d+)$' | first)
    {host: $parts.host, port: $parts.port}
  }
}

def wait-until-closed [at: record] {
  for try in 1..40 {
    if not (succeeds timeout 2 bash -c $"exec 3<>/dev/tcp/($at.host)/($at.port)") { return }
    sleep 250ms
  }
  fail $"port ($at.port) is still open after etcd was stopped"
}
