# What this extension changes on a server, and how it remembers what was there before.

use common.nu [fail must put succeeds]

export const FOLDER = "/var/lib/provisioning-os"
const STATE = "/var/lib/provisioning-os/state.json"
const NOTHING = {changes: [], packages: [], brought: [], before: null, generated: []}

export const SYSCTL = "/etc/sysctl.d/99-zz-provisioning.conf"
export const JOURNAL = "/etc/systemd/journald.conf.d/zz-provisioning.conf"
export const MOTD = "/etc/motd.d/provisioning"
export const LOCALE = "/etc/default/locale"
export const LOCALE_GEN = "/etc/locale.gen"
export const JOURNALD = "systemd-journald.service"
export const JOURNAL_DEFAULT = "200M"

# Message of journald about its space, with the limit that it works by.
const SPACE_MESSAGE = "ec387f577b844b8fa948f33cad9a75e6"

# Settings that each container has for itself, by Kubernetes' list. All others are the machine's, and a privileged
# container that writes them changes them for everybody there.
const OWN_IN_CONTAINER = ["net." "kernel.shm" "kernel.msg" "kernel.sem" "fs.mqueue."]

# What is remembered: `changes` [{name, before, ours}]: a setting's value before us and every value that we gave it;
# `packages` that we installed; `brought`: what came with them; `before`: all packages before an installation that did
# not end yet; `generated`: lines that we added to locale.gen. Written before the change itself, so that a killed run
# loses nothing.
export def state []: nothing -> record {
  $NOTHING | merge (if ($STATE | path exists) { open $STATE } else { {} })
}

export def save-state [state: record] {
  put $STATE $"($state | to json)\n" | ignore
}

# Remembers that a setting is about to get a value of ours.
export def remember [name: string, before: any, ours: string] {
  let state = (state)
  let fresh = {name: $name, before: $before, ours: []}
  let known = ($state.changes | where name == $name | get --optional 0 | default $fresh)
  if $ours in $known.ours { return }
  let entry = ($known | update ours ($known.ours | append $ours))
  save-state ($state | update changes ($state.changes | where name != $name | append $entry))
}

export def forget [name: string] {
  let state = (state)
  save-state ($state | update changes ($state.changes | where name != $name))
}

# Removes a file of ours, and its folder if that is empty then.
export def remove-file [path: string] {
  if not ($path | path dirname | path exists) { return }
  rm --force $path $"($path).new"
  ^rmdir --ignore-fail-on-non-empty ($path | path dirname) | complete | ignore
}

# Where /etc/localtime points to, or null.
export def localtime []: nothing -> any {
  let result = (^readlink /etc/localtime | complete)
  if $result.exit_code == 0 { $result.stdout | str trim } else { null }
}

# The time zone's name by /etc/localtime, or null.
export def timezone []: nothing -> any {
  let target = (localtime)
  if $target == null { null } else { $target | str replace --regex '^.*/zoneinfo/' '' }
}

export def point-localtime [target: string] {
  must ln --symbolic --force --no-dereference $target /etc/localtime.new
  must mv --force --no-target-directory /etc/localtime.new /etc/localtime
  # It answers timedatectl for half a minute by what it read when it started.
  succeeds systemctl try-restart systemd-timedated.service | ignore
}

# LANG by /etc/default/locale, or null.
export def lang []: nothing -> any {
  if not ($LOCALE | path exists) { return null }
  let line = (open --raw $LOCALE | lines | where $it starts-with "LANG=" | get --optional 0)
  if $line == null { null } else { $line | str replace "LANG=" "" | str trim --char '"' }
}

# Puts LANG into /etc/default/locale, or takes it out (null); other lines stay.
export def write-lang [value: any] {
  let lines = (if ($LOCALE | path exists) { open --raw $LOCALE | lines } else { [] })
  let ours = (if $value == null { [] } else { [$"LANG=($value)"] })
  let text = ([...$ours ...($lines | where not ($it starts-with "LANG="))] | each { $"($in)\n" } | str join)
  if $text == "" {
    rm --force $LOCALE
  } else {
    put $LOCALE $text | ignore
  }
}

# Whether sessions can use a locale. `locale -a` writes utf8 for UTF-8.
export def has-locale [locale: string]: nothing -> bool {
  let wanted = (plain-locale $locale)
  must locale -a | lines | any {|name| (plain-locale $name) == $wanted }
}

def plain-locale [locale: string]: nothing -> string {
  $locale | str lowercase | str replace --all "-" ""
}

export def in-container []: nothing -> bool {
  succeeds systemd-detect-virt --quiet --container
}

# Whether a setting is the server's own and not that of the machine that it shares with others.
export def is-own-sysctl [name: string]: nothing -> bool {
  ($OWN_IN_CONTAINER | any {|prefix| $name starts-with $prefix }) or not (in-container)
}

# The file of a setting. Its separators are dots; a slash stands for a dot in a name (net.ipv4.conf.eth0/1.forwarding).
export def sysctl-path [name: string]: nothing -> string {
  $"/proc/sys/($name | split chars | each { match $in { "." => "/" "/" => "." $c => $c } } | str join)"
}

# A setting's value with single spaces (the kernel separates by tabs), or null where there is none.
export def sysctl-value [name: string]: nothing -> any {
  let result = (^cat (sysctl-path $name) | complete)
  if $result.exit_code == 0 { $result.stdout | plain-value } else { null }
}

export def plain-value []: any -> string {
  $in | into string | split row --regex '\s+' | where $it != "" | str join " "
}

export def sysctl-text [values: record]: nothing -> string {
  $values | items {|name, value| $"($name) = ($value | plain-value)\n" } | str join
}

# Has systemd write settings into the kernel, as it does at boot. Whether that worked shows in the values themselves.
export def apply-sysctl [file: string] {
  let result = (^/lib/systemd/systemd-sysctl $file | complete)
  if $result.exit_code != 0 { print --stderr ($result.stderr | str trim) }
}

export def journal-text [size: string]: nothing -> string {
  $"# Written by provisioning; changes are overwritten.\n[Journal]\nSystemMaxUse=($size)\nRuntimeMaxUse=($size)\n"
}

export def has-journald []: nothing -> bool {
  succeeds systemctl is-active --quiet $JOURNALD
}

# When the running journald started, or null.
export def journald-start []: nothing -> any {
  let text = (must systemctl show --timestamp=us+utc --property=ExecMainStartTimestamp --value $JOURNALD | str trim)
  if $text == "" { null } else { $text | split row " " | skip 1 | str join " " | into datetime }
}

# Whether the running journald is younger than our file, so that it has read it.
export def journald-is-current []: nothing -> bool {
  let start = (journald-start)
  $start != null and $start >= (ls $JOURNAL | get 0.modified)
}

# The limit in bytes that the running journald told when it started, or null where that message is gone.
export def journald-limit []: nothing -> any {
  let since = (journald-start | format date "%s")
  (^journalctl --quiet --no-pager --output json --since $"@($since)" $"MESSAGE_ID=($SPACE_MESSAGE)" | complete).stdout
  | lines | last 1 | each { from json | get --optional MAX_USE } | compact | each { into int } | get --optional 0
}

export def bytes [size: string]: nothing -> int {
  let unit = ({M: 1048576, G: 1073741824, T: 1099511627776} | get ($size | str substring (-1)..))
  ($size | str substring ..(-2) | into int) * $unit
}

# Gives settings the value that they had before us, except those that are still wanted, and forgets them. A value that
# somebody else gave them since then stays.
export def restore-sysctl [changes: list<any>, wanted: list<string>] {
  let dropped = ($changes | where name starts-with "sysctl "
    | insert sysctl {|change| $change.name | str replace "sysctl " "" } | where sysctl not-in $wanted)
  for change in $dropped {
    if (sysctl-value $change.sysctl) in $change.ours {
      let file = $"($FOLDER)/restore.conf"
      put $file (sysctl-text {($change.sysctl): $change.before}) | ignore
      apply-sysctl $file
      rm --force $file
      let found = (sysctl-value $change.sysctl)
      if $found != $change.before {
        fail $"($change.sysctl) is ($found); the kernel did not take ($change.before), its value before us"
      }
    }
    forget $change.name
  }
}
