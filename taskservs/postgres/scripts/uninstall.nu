# Removes PostgreSQL with its configuration and data. What was here before us stays: a cluster 15/main loses only our
# configuration, and packages lose only the cluster that is ours.

use before.nu *
use common.nu [must progress put succeeds wait-until-closed]
use service.nu [
  ALL CREATING DATA FOLDER FOLDERS HBA NO_CLUSTER OURS PACKAGE START START_BEFORE UNIT others-rules
]

const UNITS = "postgresql@15-*.service"
const SHARED = ["/etc/postgresql" "/var/lib/postgresql" "/var/log/postgresql" "/etc/postgresql-common/createcluster.d"
  "/etc/postgresql-common"]

def main [request: path] {
  let before = (noted postgres)
  if $before == null {
    progress "no PostgreSQL of this extension is here: nothing to do"
    return
  }
  if $FOLDER in $before.paths {
    leave-cluster $before
  } else {
    drop-cluster $before (open $request).parameters.port
  }
  if (was-installed $before $PACKAGE) {
    progress $"($PACKAGE) stays: it was here before us"
    rm --force $NO_CLUSTER $"($NO_CLUSTER).new"
  } else {
    remove-packages-of-ours $before
  }
  # Last: an interrupted run needs it again.
  forget postgres
}

# Role and database stay, too: nobody knows whose they are.
def leave-cluster [before: record] {
  progress "the cluster 15/main stays: it was here before us"
  if ($HBA | path exists) { put $HBA (others-rules) | ignore }
  if ($START_BEFORE | path exists) {
    put --mode 0644 $START (open --raw $START_BEFORE | decode utf-8) | ignore
    must systemctl daemon-reload
  }
  if (set-aside $OURS) {
    enabled-as-before $before $ALL
    running-as-before $before $UNIT
  }
  rm --force $START_BEFORE $"($START_BEFORE).new"
  rm-aside $OURS
}

def drop-cluster [before: record, port: int] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping PostgreSQL"
    must systemctl stop $UNIT
    wait-until-closed postgres $port
  }
  # Half of the data must not become a cluster again by the next installation.
  if $DATA not-in $before.paths and ($DATA | path exists) { put $CREATING "" | ignore }
  remove-new $before [$DATA $FOLDER]
  rm --force $CREATING $"($CREATING).new"
  glob /var/log/postgresql/postgresql-15-main.log* | each {|file| rm --force $file } | ignore
}

# Other clusters of version 15 came after us where there was none before, and go, too.
def remove-packages-of-ours [before: record] {
  let was_active = (^systemctl list-units --plain --no-legend --state=active $UNITS | complete).stdout | is-not-empty
  if $was_active {
    progress "stopping all clusters of PostgreSQL 15"
    must systemctl stop $UNITS
  }
  take-away $before [$PACKAGE "postgresql"]
  # Until now: a package that was unpacked only makes its cluster when dpkg is mended.
  rm --force $NO_CLUSTER $"($NO_CLUSTER).new"
  remove-new $before $FOLDERS
  if ($before.paths | is-empty) {
    glob /var/log/postgresql/postgresql-15-*.log* | each {|file| rm --force $file } | ignore
  }
  for folder in $SHARED {
    if ($folder | path exists) and (ls --all $folder | is-empty) { rm $folder }
  }
  must systemctl daemon-reload
  ^systemctl reset-failed $UNITS | complete | ignore
  progress "postgresql is gone"
}
