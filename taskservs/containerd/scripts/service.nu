# How containerd is on a server.

use common.nu [fail must put succeeds]

export const PACKAGE = "containerd"
export const UNIT = "containerd.service"
export const FOLDER = "/etc/containerd"
export const DATA = "/var/lib/containerd"
export const PACKAGES = ["containerd" "runc"]
export const CONFIG = "/etc/containerd/config.toml"
export const OURS = "/etc/containerd/provisioning.toml"
export const CRI = "io.containerd.grpc.v1.cri"

# What the parameters say, as the table of the CRI plugin.
export def cri-table [parameters: record]: nothing -> record {
  {
    sandbox_image: $parameters.sandboxImage
    containerd: {
      snapshotter: $parameters.snapshotter
      default_runtime_name: "runc"
      runtimes: {runc: {
        runtime_type: "io.containerd.runc.v2"
        options: {SystemdCgroup: $parameters.systemdCgroup}
      }}
    }
  }
}

# Has the package's own configuration import our file, or no more. One line before the first table, where top-level
# words must be; it replaces theirs and keeps what that names.
export def import-ours [wanted: bool] {
  if not ($CONFIG | path exists) { return }
  let text = (open --raw $CONFIG | decode utf-8)
  if not $wanted and $OURS not-in $text { return }
  let imports = ($text | from toml).imports? | default []
  if ($OURS in $imports) == $wanted { return }
  let all = ($imports | where $it != $OURS | append (if $wanted { [$OURS] } else { [] }))
  let line = (if ($all | is-empty) { [] } else { [$"imports = ($all | to json --raw)"] })
  let rest = ($text | lines | where not ($it =~ '^\s*imports\s*='))
  put $CONFIG ([...$line ...$rest ""] | str join "\n") | ignore
}

# The configuration as containerd reads it from all files, or null where it cannot.
export def configuration []: nothing -> any {
  let result = (^containerd config dump | complete)
  if $result.exit_code == 0 { $result.stdout | from toml } else { null }
}

# What differs between the configuration of the files and the parameters.
export def configuration-problems [parameters: record]: nothing -> list<string> {
  let found = (configuration)
  if $found == null { return [$"containerd cannot read its configuration ($CONFIG)"] }
  let cri = ($found.plugins | get --optional ([$CRI] | into cell-path))
  if $cri == null { return [$"($CONFIG) disables the CRI plugin"] }
  let cgroup = $cri.containerd.runtimes.runc?.options?.SystemdCgroup?
  [
    {name: "SystemdCgroup", found: $cgroup, expected: $parameters.systemdCgroup}
    {name: "sandbox_image", found: $cri.sandbox_image, expected: $parameters.sandboxImage}
    {name: "snapshotter", found: $cri.containerd.snapshotter, expected: $parameters.snapshotter}
    {name: "level", found: $found.debug.level, expected: $parameters.logLevel}
  ] | where {|it| $it.found != $it.expected } | each {|it|
    $"containerd is configured with ($it.name) ($it.found | default '(none)'), expected ($it.expected)"
  }
}

# Whether the running process is younger than the files of its configuration, so that it has read them.
export def is-current []: nothing -> bool {
  let text = (must systemctl show --timestamp=us+utc --property=ExecMainStartTimestamp --value $UNIT | str trim)
  if $text == "" or not (succeeds systemctl is-active --quiet $UNIT) { return false }
  let start = ($text | split row " " | skip 1 | str join " " | into datetime)
  [$CONFIG $OURS] | all {|file| ($file | path exists) and $start >= (ls $file | get 0.modified) }
}

# Asks containerd by its socket.
export def --wrapped ask [...words: string]: nothing -> record {
  ^timeout 10 ctr --timeout 5s --connect-timeout 5s ...$words | complete
}

# What is wrong with the running containerd; an empty list where nothing is.
export def answer-problems []: nothing -> list<string> {
  let version = (ask version)
  if $version.exit_code != 0 {
    return [$"containerd does not answer: ($version.stderr | str trim)"]
  }
  # TYPE ID PLATFORMS STATUS
  let cri = ((ask plugins ls).stdout | lines | where $it =~ '\scri\s' | get --optional 0 | default "")
  if not ($cri | str trim | str ends-with " ok") {
    return [$"containerd answers, but its CRI plugin is not well: ($cri | default --empty 'it is disabled')"]
  }
  []
}

# Waits until it answers.
export def wait-for-answer [tries: int] {
  mut problems = []
  for try in 1..$tries {
    let is_active = (succeeds systemctl is-active --quiet $UNIT)
    $problems = (if $is_active { answer-problems } else { [$"($UNIT) is not active"] })
    if ($problems | is-empty) { return }
    if (^systemctl is-active $UNIT | complete).stdout =~ "^(inactive|failed)" { break }
    sleep 250ms
  }
  let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
  fail $"($problems | str join "\n")\n($UNIT): ($why)"
}
