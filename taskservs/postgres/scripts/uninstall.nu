# Stops PostgreSQL and removes the packages, their configuration and the data. Nothing there: nothing to do.

use common.nu [fail must progress purge-packages succeeds]
use packages.nu [forget removable]
use service.nu [PACKAGE own-address]

const UNITS = "postgresql@15-*.service"
const FOLDERS = ["/etc/postgresql/15" "/var/lib/postgresql/15"]
const SHARED = ["/etc/postgresql" "/var/lib/postgresql" "/var/log/postgresql" "/etc/postgresql-common/createcluster.d"
  "/etc/postgresql-common"]

def main [request: path] {
  let given = (open $request).parameters
  # Other clusters, and with them postgresql.service, go on.
  let was_active = (^systemctl list-units --plain --no-legend --state=active $UNITS | complete).stdout | is-not-empty
  if $was_active {
    progress "stopping PostgreSQL"
    must systemctl stop $UNITS
  }
  let present = (removable postgres [$PACKAGE "postgresql"])
  if ($present | is-not-empty) {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  rm --recursive --force ...$FOLDERS /etc/postgresql-common/createcluster.d/provisioning.conf
  glob /var/log/postgresql/postgresql-15-*.log* | each {|file| rm --force $file } | ignore
  for folder in $SHARED {
    if ($folder | path exists) and (ls --all $folder | is-empty) { rm $folder }
  }
  forget postgres
  must systemctl daemon-reload
  ^systemctl reset-failed $UNITS | complete | ignore
  if $was_active { wait-until-closed (own-address $given.listenAddress) $given.port }
  progress "postgresql is gone"
}

def wait-until-closed [address: string, port: int] {
  for try in 1..40 {
    if not (succeeds bash -c $"exec 3<>/dev/tcp/($address)/($port)") { return }
    sleep 250ms
  }
  fail $"port ($port) is still open after PostgreSQL was stopped"
}
