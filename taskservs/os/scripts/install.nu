# Gives a Debian server its baseline. Remembers what was there before, for the uninstall.

use common.nu [fail install-package installed-version must output progress put]
use system.nu *

def main [request: path] {
  let request = (open $request)
  let parameters = $request.parameters
  if not ("/etc/debian_version" | path exists) {
    fail "this is not a Debian server: it has no /etc/debian_version"
  }
  # Before the first change: what cannot be must not stop half-way.
  refuse-impossible $parameters

  install-packages $parameters.packages
  set-timezone $parameters.timezone
  set-locale $parameters.locale
  set-sysctl $parameters.sysctl
  limit-journal ($parameters.journalMaxUse? | default $JOURNAL_DEFAULT)
  if $parameters.motd == "" {
    remove-file $MOTD
  } else {
    put $MOTD $"($parameters.motd | str trim --right)\n" | ignore
  }

  let version = (open --raw /etc/debian_version | str trim)
  output version $version
  output timezone $parameters.timezone
  output locale $parameters.locale
  progress $"Debian ($version) has its baseline"
}

def refuse-impossible [parameters: record] {
  for name in ($parameters.sysctl | columns) {
    if not (is-own-sysctl $name) {
      fail --code 2 $"parameter sysctl: ($name) is not this container's own; set it on the machine that runs it"
    }
    if not (sysctl-path $name | path exists) {
      fail --code 2 $"parameter sysctl: the kernel has no ($name); a module may have to be loaded first"
    }
  }
  if $parameters.journalMaxUse? != null and not (has-journald) {
    fail $"parameter journalMaxUse: ($JOURNALD) is not active"
  }
}

def install-packages [packages: list<string>] {
  for package in $packages {
    let parts = ($package | split row "=" --number 2)
    let version = (installed-version $parts.0)
    if $version != null and (($parts | length) == 1 or $parts.1 == $version) { continue }
    add-package $package
  }
  note-brought
}

# Installs a package, and remembers that it is ours if it was not there.
def add-package [package: string] {
  let name = ($package | split row "=" | first)
  let state = (state)
  let new = (if (installed-version $name) == null { [$name] } else { [] })
  save-state ($state | merge {
    packages: ($state.packages | append $new | uniq)
    before: ($state.before | default (installed-packages))
  })
  install-package $package
}

# What our packages brought along, those of an interrupted run included.
def note-brought [] {
  let state = (state)
  if $state.before == null { return }
  let brought = (installed-packages | where $it not-in $state.before and $it not-in $state.packages)
  save-state ($state | merge {brought: ($state.brought | append $brought | uniq), before: null})
}

def installed-packages []: nothing -> list<string> {
  must dpkg-query --show --showformat "${db:Status-Status} ${Package}\n" | lines
  | where $it starts-with "installed " | str replace "installed " ""
}

def set-timezone [zone: string] {
  if (installed-version tzdata) == null {
    add-package tzdata
    note-brought
  }
  let file = $"/usr/share/zoneinfo/($zone)"
  if ($file | path type) not-in ["file" "symlink"] {
    fail --code 2 $"parameter timezone: there is no time zone ($zone)"
  }
  let name = (if ("/etc/timezone" | path exists) { open --raw /etc/timezone } else { null })
  if (timezone) == $zone and $name == $"($zone)\n" { return }
  progress $"setting the time zone to ($zone)"
  # Not a link: somebody copied the file of a zone; it has no name, so the copy itself is kept.
  if (localtime) == null and ("/etc/localtime" | path exists) and not ($"($FOLDER)/localtime" | path exists) {
    mkdir $FOLDER
    cp --preserve [mode timestamps] /etc/localtime $"($FOLDER)/localtime.new"
    mv $"($FOLDER)/localtime.new" $"($FOLDER)/localtime"
  }
  remember timezone {localtime: (localtime), timezone: $name} $zone
  point-localtime $file
  put /etc/timezone $"($zone)\n" | ignore
}

def set-locale [locale: string] {
  if not (has-locale $locale) { generate-locale $locale }
  if (lang) == $locale { return }
  progress $"setting the locale to ($locale)"
  remember locale (lang) $locale
  write-lang $locale
}

def generate-locale [locale: string] {
  if (installed-version locales) == null {
    add-package locales
    note-brought
  }
  let supported = (open --raw /usr/share/i18n/SUPPORTED | lines)
  let line = ($supported | where $it starts-with $"($locale) " | get --optional 0)
  if $line == null {
    fail --code 2 $"parameter locale: Debian has no locale ($locale)"
  }
  let text = (if ($LOCALE_GEN | path exists) { open --raw $LOCALE_GEN } else { "" })
  if $line not-in ($text | lines | str trim) {
    let state = (state)
    save-state ($state | update generated ($state.generated | append $line | uniq))
    put $LOCALE_GEN $"($text | str trim --right --char "\n")\n($line)\n" | ignore
  }
  progress $"generating the locale ($locale)"
  must locale-gen | ignore
  if not (has-locale $locale) {
    fail $"locale-gen did not make ($locale)"
  }
}

# Settings no longer named get the value that they had.
def set-sysctl [values: record] {
  restore-sysctl (state).changes ($values | columns)
  if ($values | is-empty) {
    rm --force $SYSCTL
    return
  }
  let wrong = ($values
    | items {|name, value| {name: $name, expected: ($value | plain-value), found: (sysctl-value $name)} }
    | where {|item| $item.found != $item.expected })
  for item in $wrong {
    remember $"sysctl ($item.name)" $item.found $item.expected
  }
  put $SYSCTL $"# Written by provisioning; changes are overwritten.\n(sysctl-text $values)" | ignore
  if ($wrong | is-not-empty) {
    progress $"setting ($wrong.name | str join ', ')"
    apply-sysctl $SYSCTL
  }
  for item in $wrong {
    let found = (sysctl-value $item.name)
    if $found != $item.expected {
      fail $"parameter sysctl: the kernel did not take ($item.expected) for ($item.name), which is ($found)"
    }
  }
  if (^systemctl is-enabled systemd-sysctl.service | complete).stdout =~ "masked" {
    progress "skipped: systemd-sysctl is masked here, so nothing sets sysctl at boot"
  }
}

def limit-journal [size: string] {
  if not (has-journald) {
    progress $"skipped: ($JOURNALD) does not run here, so its journal has no limit of ours"
    return
  }
  put $JOURNAL (journal-text $size) | ignore
  if (journald-is-current) { return }
  progress $"restarting journald with a limit of ($size)"
  must systemctl restart $JOURNALD
}
