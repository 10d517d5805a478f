# Stops redis and removes the packages, their configuration and the data. Nothing there: nothing to do.

use common.nu [fail must progress purge-packages succeeds]
use packages.nu [forget removable]
use service.nu [FOLDER UNIT own-address]

const FOLDERS = ["/var/lib/redis" "/var/log/redis" "/run/redis"]

def main [request: path] {
  let given = (open $request).parameters
  let was_active = (succeeds systemctl is-active --quiet $UNIT)
  if $was_active {
    progress "stopping redis"
    must systemctl stop $UNIT
  }
  let present = (removable redis ["redis-server" "redis"])
  if ($present | is-not-empty) {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  rm --recursive --force $FOLDER ...$FOLDERS
  forget redis
  must systemctl daemon-reload
  if $was_active {
    wait-until-closed (own-address $given.bind) $given.port
  }
  progress "redis is gone"
}

def wait-until-closed [address: string, port: int] {
  for try in 1..40 {
    if not (succeeds bash -c $"exec 3<>/dev/tcp/($address)/($port)") { return }
    sleep 250ms
  }
  fail $"port ($port) is still open after redis was stopped"
}
