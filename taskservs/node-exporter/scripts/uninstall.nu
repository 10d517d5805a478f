# Stops node-exporter and removes the package and its configuration. Nothing there: nothing to do. The user
# `prometheus` stays, as Debian's package leaves it: other exporters and Prometheus itself share it.

use common.nu [fail must progress purge-packages succeeds]
use service.nu [FOLDER OURS PACKAGE UNIT]

def main [request: path] {
  let was_active = (succeeds systemctl is-active --quiet $UNIT)
  if $was_active {
    progress "stopping node-exporter"
    must systemctl stop $UNIT
  }
  # Known to dpkg in whatever state: an installation may have been interrupted.
  let status = (^dpkg-query --show --showformat "${db:Status-Status}" $PACKAGE | complete)
  if $status.exit_code == 0 and $status.stdout != "not-installed" {
    progress $"removing ($PACKAGE)"
    purge-packages [$PACKAGE]
  }
  if ($FOLDER | path exists) {
    rm --force $OURS $"($OURS).new"
    ^rmdir --ignore-fail-on-non-empty $FOLDER | complete | ignore
    must systemctl daemon-reload
  }
  succeeds systemctl reset-failed $UNIT | ignore
  if $was_active {
    wait-until-closed (open $request | get parameters.port)
  }
  progress "node-exporter is gone"
}

def wait-until-closed [port: int] {
  for try in 1..40 {
    if not (succeeds bash -c $"exec 3<>/dev/tcp/127.0.0.1/($port)") { return }
    sleep 250ms
  }
  fail $"port ($port) is still open after node-exporter was stopped"
}
