# Installs containerd, configures it by a file of our own, and waits until it answers.

use before.nu [finish-purge note]
use common.nu [fail install-package installed-version must output progress put]
use service.nu [
  CONFIG CRI DATA FOLDER OURS PACKAGE PACKAGES UNIT configuration-problems cri-table import-ours is-current
  wait-for-answer
]

# Docker's own package of containerd; apt would remove it for Debian's.
const DOCKERS = "containerd.io"

def main [request: path] {
  let request = (open $request)
  let parameters = $request.parameters

  if (installed-version $DOCKERS) != null {
    fail --code 2 $"($DOCKERS) is on this server, and Debian's ($PACKAGE) would take its place; it is left alone"
  }
  note containerd $PACKAGES [$FOLDER $DATA] [$UNIT]
  finish-purge containerd
  if (installed-version $PACKAGE) == null {
    install-package $PACKAGE
  }
  let version = (installed-version $PACKAGE)
  configure $parameters
  must systemctl enable --quiet $UNIT
  if not (is-current) {
    # Containers go on: only containerd itself is restarted (the unit has KillMode=process).
    progress "restarting containerd with its configuration"
    must systemctl restart $UNIT
  }
  wait-for-answer 120

  output version $version
  output socket "/run/containerd/containerd.sock"
  output cgroupDriver (if $parameters.systemdCgroup { "systemd" } else { "cgroupfs" })
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"containerd ($version) answers on its socket"
}

# Writes our file, and has the package's own import it. containerd takes the whole table of a plugin from the last file
# that has one, so ours repeats what an administrator (or Debian) has in config.toml for the CRI plugin, below ours.
def configure [parameters: record] {
  # The administrator may have removed it; containerd does without, but then nothing would import ours.
  if not ($CONFIG | path exists) {
    put $CONFIG "version = 2\n" | ignore
  }
  let theirs = (try { open $CONFIG } catch { fail $"($CONFIG) is not TOML" })
  if $theirs.version? != 2 {
    fail $"($CONFIG) is of version ($theirs.version? | default 1), expected 2"
  }
  let their_cri = ($theirs.plugins? | default {} | get --optional ([$CRI] | into cell-path) | default {})
  let ours = {
    version: 2
    debug: {level: $parameters.logLevel}
    plugins: {($CRI): ($their_cri | merge deep (cri-table $parameters))}
  }
  let text = $"# Written by provisioning; changes are overwritten. Yours belong in config.toml.\n($ours | to toml)"
  put $OURS $text | ignore
  import-ours true
  let problems = (configuration-problems $parameters)
  if ($problems | is-not-empty) {
    fail $"($problems | str join "\n")\n($CONFIG) has something that stands against ($OURS)"
  }
}
