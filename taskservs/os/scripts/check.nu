# Says whether the server has its baseline: as the kernel, the C library, dpkg and journald tell. Changes nothing.

use common.nu [fail installed-version progress]
use system.nu *

def main [request: path] {
  let parameters = (open $request).parameters
  let problems = [
    ...(package-problems $parameters.packages)
    ...(timezone-problems $parameters.timezone)
    ...(locale-problems $parameters.locale)
    ...(sysctl-problems $parameters.sysctl)
    ...(journal-problems $parameters.journalMaxUse?)
    ...(motd-problems $parameters.motd)
  ]
  if ($problems | is-not-empty) {
    fail ($problems | str join "\n")
  }
  progress "the server has its baseline"
}

def package-problems [packages: list<string>]: nothing -> list<string> {
  $packages | each {|package|
    let parts = ($package | split row "=" --number 2)
    let version = (installed-version $parts.0)
    if $version == null {
      $"package ($parts.0) is not installed"
    } else if ($parts | length) == 2 and $parts.1 != $version {
      $"package ($parts.0) is version ($version), expected ($parts.1)"
    }
  } | compact
}

def timezone-problems [zone: string]: nothing -> list<string> {
  # What the C library makes of /etc/localtime, against the zone itself.
  let here = (^date "+%z %Z" | complete).stdout
  let there = (with-env {TZ: $zone} { ^date "+%z %Z" | complete }).stdout
  let name = (if ("/etc/timezone" | path exists) { open --raw /etc/timezone | str trim } else { null })
  if (timezone) != $zone {
    [$"the time zone is ((timezone) | default "unknown"), expected ($zone)"]
  } else if $name != $zone {
    [$"/etc/timezone says ($name | default "nothing"), expected ($zone)"]
  } else if $here != $there {
    [$"the clock shows ($here | str trim), expected ($there | str trim): is there a TZ in the environment?"]
  } else {
    []
  }
}

def locale-problems [locale: string]: nothing -> list<string> {
  [
    (if (lang) != $locale { $"LANG in ($LOCALE) is ((lang) | default "not set"), expected ($locale)" })
    (if not (has-locale $locale) { $"the server has no locale ($locale)" })
  ] | compact
}

def sysctl-problems [values: record]: nothing -> list<string> {
  let expected = ($values | items {|name, value| {name: $name, value: ($value | plain-value)} })
  let wrong = ($expected | each {|item|
    let found = (sysctl-value $item.name)
    if $found != $item.value { $"($item.name) is ($found | default "not there"), expected ($item.value)" }
  } | compact)
  let kept = (if ($SYSCTL | path exists) { open --raw $SYSCTL } else { "" })
  if ($values | is-not-empty) and not ($kept | str ends-with (sysctl-text $values)) {
    $wrong | append $"($SYSCTL) is not as written: the settings would not come back after a reboot"
  } else {
    $wrong
  }
}

def journal-problems [asked: any]: nothing -> list<string> {
  if not (has-journald) {
    if $asked == null { return [] }
    return [$"($JOURNALD) is not active"]
  }
  let size = ($asked | default $JOURNAL_DEFAULT)
  let text = (^systemd-analyze cat-config systemd/journald.conf | complete).stdout
  let limits = ($text | lines | where $it starts-with "SystemMaxUse=" | str replace "SystemMaxUse=" "")
  let limit = (if ($limits | is-empty) { null } else { $limits | last })
  if $limit != $size {
    return [$"journald is configured with SystemMaxUse=($limit | default "(none)"), expected ($size)"]
  }
  if not (journald-is-current) {
    return ["journald runs with an older configuration than ours"]
  }
  let told = (journald-limit)
  if $told != null and $told != (bytes $size) {
    return [$"journald works with a limit of ($told) bytes, expected (bytes $size)"]
  }
  []
}

def motd-problems [motd: string]: nothing -> list<string> {
  let found = (if ($MOTD | path exists) { open --raw $MOTD } else { "" })
  let expected = (if $motd == "" { "" } else { $"($motd | str trim --right)\n" })
  if $found == $expected { [] } else { [$"($MOTD) is not as written"] }
}
