# Says whether node-exporter is what it should be: active, serving metrics of this server, with these parameters.
# Changes nothing.

use common.nu [fail installed-version progress succeeds]
use service.nu [PACKAGE UNIT runs-as-wanted wait-for-metrics]

def main [request: path] {
  let request = (open $request)
  let parameters = $request.parameters

  if (installed-version $PACKAGE) == null {
    fail $"($PACKAGE) is not installed"
  }
  wait-for-metrics $parameters $request.server.hostname 20
  if not (runs-as-wanted $parameters) {
    fail $"($UNIT) runs with another command than ours: its configuration was changed"
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  progress $"node-exporter serves metrics of ($request.server.hostname) on port ($parameters.port)"
}
