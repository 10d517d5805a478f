# Ends all containers, stops containerd, and removes the packages, their configuration, images and all other data.
# What was here before us stays: then only our configuration goes, and containers go on.

use before.nu [
  enabled-as-before forget noted remove-new rm-aside running-as-before set-aside take-away was-installed
]
use common.nu [must progress succeeds]
use service.nu [DATA FOLDER OURS PACKAGE UNIT import-ours]

const FOLDERS = [$DATA "/run/containerd"]
const SHIMS = ["/usr/bin/containerd-shim" "/usr/bin/containerd-shim-runc-v1" "/usr/bin/containerd-shim-runc-v2"]

def main [request: path] {
  let before = (noted containerd)
  if $before == null {
    progress "no containerd of this extension is here: nothing to do"
    return
  }
  if (was-installed $before $PACKAGE) { leave-containerd $before } else { remove-containerd $before }
  # Last: an interrupted run needs it again.
  forget containerd
}

def leave-containerd [before: record] {
  progress "containerd stays: it was here before us"
  import-ours false
  if (set-aside $OURS) {
    enabled-as-before $before $UNIT
    running-as-before $before $UNIT
  }
  rm-aside $OURS
}

def remove-containerd [before: record] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping containerd"
    must systemctl stop $UNIT
  }
  # Containers outlive containerd (KillMode=process). Only now: it cannot start them again.
  end-containers
  end-shims
  unmount-all
  import-ours false
  rm --force $OURS
  rm-aside $OURS
  take-away $before [$PACKAGE]
  remove-new $before [$FOLDER ...$FOLDERS]
  progress "containerd is gone"
}

def end-containers [] {
  if (which runc | is-empty) { return }
  for root in (glob /run/containerd/runc/* --no-file) {
    let ids = ((^runc --root $root list --quiet | complete).stdout | lines)
    for id in $ids {
      progress $"ending the container ($id)"
      must runc --root $root delete --force $id | ignore
    }
  }
}

# By program, not by name: a name may be anybody's. A program removed meanwhile shows as "… (deleted)".
def end-shims [] {
  for exe in (glob /proc/[0-9]*/exe) {
    let program = (^readlink $exe | complete).stdout | str trim | str replace " (deleted)" ""
    if $program in $SHIMS {
      succeeds kill -9 ($exe | path split | get 2) | ignore
    }
  }
}

def unmount-all [] {
  let mounts = (must findmnt --raw --noheadings --output TARGET | lines
    | where {|target| $FOLDERS | any {|folder| $target starts-with $"($folder)/" } })
  for target in ($mounts | reverse) {
    must umount $target | ignore
  }
}
