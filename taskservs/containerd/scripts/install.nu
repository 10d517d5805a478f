# Installs containerd, configures it by a file of our own, and waits until it answers.

use common.nu [fail install-package installed-version must output progress]
use service.nu [CONFIG CRI OURS PACKAGE UNIT configuration-problems cri-table is-current wait-for-answer]

def main [request: path] {
  let request = (open $request)
  let parameters = $request.parameters

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
    write-file $CONFIG "version = 2\n"
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
  if not ($OURS | path exists) or (open --raw $OURS) != $text {
    write-file $OURS $text
  }
  let imports = ($theirs.imports? | default [])
  if $OURS not-in $imports {
    # Before the first table, where top-level words must be; one line of ours replaces theirs and keeps what it names.
    let rest = (open --raw $CONFIG | lines | where not ($it =~ '^\s*imports\s*='))
    write-file $CONFIG ([$"imports = ($imports | append $OURS | to json --raw)" ...$rest ""] | str join "\n")
  }
  let problems = (configuration-problems $parameters)
  if ($problems | is-not-empty) {
    fail $"($problems | str join "\n")\n($CONFIG) has something that stands against ($OURS)"
  }
}

def write-file [path: string, text: string] {
  mkdir ($path | path dirname)
  $text | save --force $"($path).new"
  must chmod 0644 $"($path).new"
  mv --force $"($path).new" $path
}
