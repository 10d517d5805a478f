# Ends all containers, stops containerd, and removes the packages, their configuration, images and all other data.
# Nothing there: nothing to do.

use common.nu [must progress purge-packages succeeds]
use service.nu [FOLDER UNIT]

const FOLDERS = ["/var/lib/containerd" "/run/containerd"]
const SHIMS = ["/usr/bin/containerd-shim" "/usr/bin/containerd-shim-runc-v1" "/usr/bin/containerd-shim-runc-v2"]

def main [request: path] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping containerd"
    must systemctl stop $UNIT
  }
  # Containers outlive containerd (KillMode=process). Only now: it cannot start them again.
  end-containers
  end-shims
  unmount-all
  # Known to dpkg in whatever state: an installation may have been interrupted. runc stays where somebody installed it
  # by name.
  let automatic = (must apt-mark showauto runc | lines)
  let present = (["containerd" ...$automatic] | where {|package| (status-of $package) not-in ["" "not-installed"] })
  if ($present | is-not-empty) {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  rm --recursive --force $FOLDER ...$FOLDERS
  progress "containerd is gone"
}

def status-of [package: string]: nothing -> string {
  (^dpkg-query --show --showformat "${db:Status-Status}" $package | complete).stdout
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
