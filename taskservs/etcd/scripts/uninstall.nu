# Stops etcd and removes what this extension brought: packages, configuration and data. Nothing of ours: nothing to do.

use before.nu [forget noted take-away was-installed]
use common.nu [must progress status-of succeeds wait-until-closed]
use service.nu *

const FILES = [
  "/etc/init.d/etcd" "/etc/default/etcd" "/lib/systemd/system/etcd.service" "/usr/bin/etcd" "/usr/bin/etcdctl"
]
const LINKS = ["/etc/systemd/system/etcd2.service" "/etc/systemd/system/multi-user.target.wants/etcd.service"]

def main [request: path] {
  let before = (noted etcd)
  if $before == null {
    progress "no etcd of this extension is here: nothing to do"
    return
  }
  let ports = (ports)
  let was_active = (succeeds systemctl is-active --quiet $UNIT)
  if $was_active { progress "stopping etcd" }
  # Loaded or not; waiting for its next start or not.
  ^systemctl stop $UNIT | complete | ignore

  # Before the data: an installation that comes next must not miss them.
  rm --force $JOINED $"($JOINED).new"
  let ours = ($before.packages | get name | where {|package|
    not (was-installed $before $package) and (status-of $package) != "not-installed"
  })
  # Killed while it was unpacked: dpkg would have it installed again before it removes it.
  for package in ($ours | where {|package| is-half $package }) {
    must dpkg --force-remove-reinstreq --purge $package
    rm --force ...($FILES | each {|file| $"($file).dpkg-new" })
  }
  take-away $before $ours
  # dpkg's scripts stay away from a mask; it is there where an installation was interrupted.
  if (^systemctl is-enabled $UNIT | complete).stdout =~ "masked" { must systemctl unmask --quiet $UNIT }
  # The package's scripts forget these links where the unit was masked when it was installed.
  must rm --recursive --force $DATA $DROPIN $"($DROPIN).new" ...$LINKS
  for folder in [$HOME $DROPIN_FOLDER] { ^rmdir --ignore-fail-on-non-empty $folder | complete | ignore }
  must systemctl daemon-reload
  ^systemctl reset-failed $UNIT | complete | ignore
  if $was_active {
    for port in $ports { wait-until-closed etcd $port }
  }
  rm --force ...([$OURS $APPLIED] | each {|file| [$file $"($file).new"] } | flatten)
  ^rmdir --ignore-fail-on-non-empty $FOLDER | complete | ignore
  # What says that there is something to remove goes last.
  forget etcd
  progress "etcd is gone"
}

# Ports that the service was started with; the request may be wrong, or tell of others.
def ports []: nothing -> list<int> {
  if not ($OURS | path exists) { return [] }
  let current = (open $OURS)
  [$current.advertise-client-urls $current.initial-advertise-peer-urls] | each {|url|
    $url | split row ":" | last | into int
  }
}
