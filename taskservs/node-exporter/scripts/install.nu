# Installs node-exporter, has it listen where it should, and waits until it serves metrics.

use before.nu [finish-purge note]
use common.nu [install-package installed-version must output progress put]
use service.nu [DATA OURS PACKAGE UNIT drop-in runs-as-wanted wait-for-metrics]

def main [request: path] {
  let request = (open $request)
  let parameters = $request.parameters

  note node-exporter [$PACKAGE] [$DATA] [$UNIT]
  finish-purge node-exporter
  # Before the package, which starts the service at once: it must not listen elsewhere, not even for a moment.
  write-drop-in $parameters
  if (installed-version $PACKAGE) == null {
    install-package $PACKAGE
  }
  let version = (installed-version $PACKAGE)
  must systemctl enable --quiet $UNIT
  if not (runs-as-wanted $parameters) {
    progress "starting node-exporter with its configuration"
    must systemctl restart $UNIT
  }
  wait-for-metrics $parameters $request.server.hostname 80

  output version $version
  output port $parameters.port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"node-exporter ($version) serves metrics on port ($parameters.port)"
}

def write-drop-in [parameters: record] {
  put $OURS (drop-in $parameters) | ignore
  # Also where an interrupted run wrote it.
  let state = (^systemctl show --property=LoadState,NeedDaemonReload,DropInPaths $UNIT | complete).stdout
  let is_stale = ("NeedDaemonReload=yes" in ($state | lines) or $OURS not-in $state)
  if "LoadState=loaded" in ($state | lines) and $is_stale {
    must systemctl daemon-reload
  }
}
