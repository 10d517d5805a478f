# Removes redis with its configuration and data. What was here before us stays: then only our configuration goes.

use before.nu [enabled-as-before forget noted remove-new rm-aside running-as-before set-aside take-away was-installed]
use common.nu [must progress succeeds wait-until-closed]
use service.nu [APPLIED FOLDERS OURS UNIT include-ours]

def main [request: path] {
  let before = (noted redis)
  if $before == null {
    progress "no redis of this extension is here: nothing to do"
    return
  }
  if (was-installed $before redis-server) {
    leave-redis $before
  } else {
    remove-redis $before (open $request).parameters.port
  }
  # Last: an interrupted run needs it again.
  forget redis
}

def leave-redis [before: record] {
  progress "redis stays: it was here before us"
  # First: whoever finds it takes redis for one that runs with our file.
  rm --force $APPLIED $"($APPLIED).new"
  include-ours false
  if (set-aside $OURS) {
    enabled-as-before $before $UNIT
    running-as-before $before $UNIT
  }
  rm-aside $OURS
}

def remove-redis [before: record, port: int] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping redis"
    must systemctl stop $UNIT
  }
  include-ours false
  rm --force $APPLIED $"($APPLIED).new" $OURS
  rm-aside $OURS
  take-away $before ["redis-server" "redis"]
  remove-new $before [...$FOLDERS "/var/log/redis" "/run/redis"]
  must systemctl daemon-reload
  wait-until-closed redis-server $port
  progress "redis is gone"
}
