# Removes node-exporter with its configuration. What was here before us stays: then only our configuration goes. The
# user `prometheus` stays, as Debian's package leaves it: other exporters and Prometheus itself share it.

use before.nu [
  enabled-as-before forget noted remove-new rm-aside running-as-before set-aside take-away was-installed
]
use common.nu [must progress succeeds wait-until-closed]
use service.nu [DATA FOLDER OURS PACKAGE UNIT]

# The kernel keeps 15 characters.
const PROCESS = "prometheus-node"

def main [request: path] {
  let before = (noted node-exporter)
  if $before == null {
    progress "no node-exporter of this extension is here: nothing to do"
    return
  }
  if (was-installed $before $PACKAGE) {
    leave-exporter $before
  } else {
    remove-exporter $before (open $request).parameters.port
  }
  ^rmdir --ignore-fail-on-non-empty $FOLDER | complete | ignore
  # Last: an interrupted run needs it again.
  forget node-exporter
}

def leave-exporter [before: record] {
  progress "node-exporter stays: it was here before us"
  if (set-aside $OURS) {
    must systemctl daemon-reload
    enabled-as-before $before $UNIT
    running-as-before $before $UNIT
  }
  rm-aside $OURS
}

def remove-exporter [before: record, port: int] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping node-exporter"
    must systemctl stop $UNIT
    wait-until-closed $PROCESS $port
  }
  take-away $before [$PACKAGE]
  rm --force $OURS
  rm-aside $OURS
  remove-new $before [$DATA]
  must systemctl daemon-reload
  succeeds systemctl reset-failed $UNIT | ignore
  progress "node-exporter is gone"
}
