# What was on a server before an extension came there. `install` writes it down before it touches anything, `uninstall`
# forgets it after all else. By it an uninstall takes only what came with the extension; without it, nothing.

use common.nu [mend-dpkg must progress purge-packages put remove-packages status-of succeeds]

# Notes how these packages (the main one first), paths and units are: dpkg's state; what is there and not empty; what
# runs, and is started at boot. Only the first call counts: what a run left that was cut off is ours.
export def note [extension: string, packages: list<string>, paths: list<string>, units: list<string>] {
  let file = (file-of $extension)
  if ($file | path exists) { return }
  let came = (former $extension $packages)
  let is_new = ($came | is-empty)
  let text = ({
    extension: $extension
    packages: ($packages | each {|name|
      {name: $name, status: (if $name in $came { "not-installed" } else { status-of $name })}
    })
    paths: (if $is_new { $paths | where {|path| has-something $path } } else { [] })
    units: ($units | each {|name| {
      name: $name
      active: ($is_new and (succeeds systemctl is-active --quiet $name))
      enabled: ($is_new and (succeeds systemctl is-enabled --quiet $name))
    } })
  } | to json)
  put $file $"($text)\n" | ignore
  # On the disk for good, before anything else is.
  let folder = ($file | path dirname)
  must sync $folder ($folder | path dirname) | ignore
}

# The note, or null where there is none: then nothing here came with the extension.
export def noted [extension: string]: nothing -> any {
  let file = (file-of $extension)
  if ($file | path exists) { open --raw $file | from json } else { null }
}

export def forget [extension: string] {
  rm --force (former-list $extension)
  rm --recursive --force (file-of $extension | path dirname)
}

# Whether somebody else had a package installed. What was removed, but not purged, was not, though it may have data.
export def was-installed [before: record, package: string]: nothing -> bool {
  (status-before $before $package) not-in ["not-installed" "config-files"]
}

# Removes the packages that came with the extension: `ours`, in whatever state an installation that was cut off left
# them, and of the others those that no package needs any more. They are purged, and their data with them, only where
# nothing of it was here before.
export def take-away [before: record, ours: list<string>] {
  # An installation that was cut off may still go on, or have left packages in states that tell nothing.
  mend-dpkg
  let keeps = (has-rest $before)
  let gone = (if $keeps { ["not-installed" "config-files"] } else { ["not-installed"] })
  let came = ($before.packages | get name
    | where {|name| not (was-installed $before $name) and (status-of $name) not-in $gone })
  # What came along.
  let others = ($came | where $it not-in $ours)
  let taken = ($others | reduce --fold ($came | where $it in $ours) {|name, taken|
    if (succeeds dpkg --dry-run --purge ...$taken $name) { [...$taken $name] } else { $taken }
  })
  if ($taken | is-empty) { return }
  progress $"removing ($taken | str join ', ')"
  if $keeps { return (remove-packages $taken) }
  put (mark-of $before.extension) "" | ignore
  purge-packages $taken
}

# Before an installation: ends the purge of an uninstall that was cut off. dpkg would take configuration files that are
# gone for removed on purpose. Packages that a person removed are not purged: their data are wanted.
export def finish-purge [extension: string] {
  let mark = (mark-of $extension)
  if not ($mark | path exists) { return }
  let before = (noted $extension)
  let rest = ($before.packages | get name | where {|name|
    not (was-installed $before $name) and (status-of $name) == "config-files"
  })
  if ($rest | is-not-empty) { purge-packages $rest }
  rm --force $mark
}

# Removes those of these paths that were not here before.
export def remove-new [before: record, paths: list<string>] {
  for path in ($paths | where $it not-in $before.paths) { rm --recursive --force $path }
}

# Takes a file of ours out of use. Its new name says that the service may still run with it, until `rm-aside`; says
# whether it is so.
export def set-aside [file: string]: nothing -> bool {
  if ($file | path exists) { mv --force $file $"($file).gone" }
  $"($file).gone" | path exists
}

export def rm-aside [file: string] {
  rm --force $"($file).gone" $"($file).new"
}

# Whether a unit ran before us.
export def ran-before [before: record, unit: string]: nothing -> bool {
  (unit-before $before $unit).active
}

# Has a unit run where it ran before us, restarted without our configuration, and else not.
export def running-as-before [before: record, unit: string] {
  # Its failed starts with our configuration do not count.
  ^systemctl reset-failed $unit | complete | ignore
  must systemctl (if (ran-before $before $unit) { "restart" } else { "stop" }) $unit | ignore
}

# Has a unit be started at boot only where it was before us.
export def enabled-as-before [before: record, unit: string] {
  if not (unit-before $before $unit).enabled and (succeeds systemctl is-enabled --quiet $unit) {
    must systemctl disable --quiet $unit | ignore
  }
}

def file-of [extension: string]: nothing -> string {
  $"/var/lib/provisioning-($extension)/before.json"
}

# While it is there, packages are being purged.
def mark-of [extension: string]: nothing -> string {
  $"/var/lib/provisioning-($extension)/purging"
}

def has-something [path: string]: nothing -> bool {
  ($path | path exists) and (($path | path type) != "dir" or (ls --all $path | is-not-empty))
}

# A package that is not in the note is nobody's to take.
def status-before [before: record, package: string]: nothing -> string {
  $before.packages | where name == $package | get --optional 0.status | default "installed"
}

def unit-before [before: record, unit: string]: nothing -> record {
  $before.units | where name == $unit | get --optional 0 | default {active: true, enabled: true}
}

# Whether there was something of a package that was not installed: its configuration files, or data.
def has-rest [before: record]: nothing -> bool {
  ($before.paths | is-not-empty) or ($before.packages | any {|one| $one.status == "config-files" })
}

# Versions of extensions before this note wrote another: which packages came with their main one, or dpkg's word.
def former [extension: string, packages: list<string>]: nothing -> list<string> {
  let list = (former-list $extension)
  let word = $"/var/lib/provisioning-($extension)/before"
  if ($list | path exists) {
    [($packages | first) ...(open --raw $list | lines)]
  } else if ($word | path exists) and (open --raw $word | str trim) == "not-installed" {
    $packages
  } else {
    []
  }
}

def former-list [extension: string]: nothing -> string {
  $"/var/lib/provisioning-($extension).packages"
}
