# Stops redis and removes the packages, their configuration and the data. Nothing there: nothing to do.

use common.nu [fail installed-version must progress purge-packages succeeds]
use parameters.nu resolve
use service.nu [FOLDER UNIT]

const PACKAGES = ["redis-server" "redis-tools" "redis"]
const FOLDERS = ["/var/lib/redis" "/var/log/redis" "/run/redis"]

def main [request: path] {
  let was_active = (succeeds systemctl is-active --quiet $UNIT)
  if $was_active {
    progress "stopping redis"
    must systemctl stop $UNIT
  }
  # Known to dpkg in whatever state: an installation may have been interrupted.
  let known = ($PACKAGES | where {|package| succeeds dpkg-query --show --showformat "${db:Status-Status}" $package })
  let present = ($known | where {|package| (status-of $package) != "not-installed" })
  if ($present | is-not-empty) {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  rm --recursive --force $FOLDER ...$FOLDERS
  must systemctl daemon-reload
  if $was_active {
    wait-until-closed (open $request)
  }
  progress "redis is gone"
}

def status-of [package: string]: nothing -> string {
  (^dpkg-query --show --showformat "${db:Status-Status}" $package | complete).stdout
}

# Wrong parameters must not stand in the way of an uninstall: the default port is looked at then.
def wait-until-closed [request: record] {
  let resolved = (resolve $request.parameters)
  let port = (if ($resolved.problems | is-empty) { $resolved.values.port } else { 6379 })
  for try in 1..40 {
    if not (succeeds bash -c $"exec 3<>/dev/tcp/127.0.0.1/($port)") { return }
    sleep 250ms
  }
  fail $"port ($port) is still open after redis was stopped"
}
