# Puts back what the install changed, where it still is as we set it, and removes our files and packages.

use common.nu [installed-version must progress purge-packages put]
use system.nu *

def main [request: path] {
  remove-file $MOTD
  if ($JOURNAL | path exists) {
    remove-file $JOURNAL
    if (has-journald) {
      progress "restarting journald without our limit"
      must systemctl restart $JOURNALD
    }
  }
  let state = (state)
  restore-sysctl $state.changes []
  rm --force $SYSCTL $"($SYSCTL).new"
  for change in $state.changes {
    match $change.name {
      "timezone" => { restore-timezone $change }
      "locale" => { if (lang) in $change.ours { write-lang $change.before } }
    }
  }
  keep-lang
  remove-packages $state
  put-back-lang
  rm --force /etc/localtime.new /etc/timezone.new $"($LOCALE).new" $"($LOCALE_GEN).new"
  # Last: an interrupted run needs it again.
  rm --recursive --force $FOLDER
  progress "the baseline is gone"
}

def restore-timezone [change: record] {
  if (timezone) in $change.ours {
    progress $"putting back the time zone ($change.before.localtime)"
    if $change.before.localtime != null {
      point-localtime $change.before.localtime
    } else if ($"($FOLDER)/localtime" | path exists) {
      cp --preserve [mode timestamps] $"($FOLDER)/localtime" /etc/localtime.new
      mv --force /etc/localtime.new /etc/localtime
    } else {
      rm --force /etc/localtime
    }
  }
  if not ("/etc/timezone" | path exists) or (open --raw /etc/timezone | str trim) not-in $change.ours { return }
  if $change.before.timezone == null {
    rm --force /etc/timezone
  } else {
    put /etc/timezone $change.before.timezone | ignore
  }
}

# The purge of `locales` takes /etc/default/locale along, whoever wrote it.
def keep-lang [] {
  if ($LOCALE | path exists) and ($FOLDER | path exists) {
    put $"($FOLDER)/default-locale" (open --raw $LOCALE) | ignore
  }
}

def put-back-lang [] {
  let kept = $"($FOLDER)/default-locale"
  if ($kept | path exists) and not ($LOCALE | path exists) {
    put $LOCALE (open --raw $kept) | ignore
  }
}

# Only packages that were not there before us and that nobody else's package needs.
def remove-packages [state: record] {
  let ours = [...$state.packages ...$state.brought]
  let removable = ($state.packages | where {|package|
    if (installed-version $package) == null { return false }
    let others = (would-go purge $package | where $it not-in $ours)
    if ($others | is-not-empty) {
      progress $"keeping ($package): ($others | str join ', ') would go with it"
    }
    $others | is-empty
  })
  purge-with-words $removable
  purge-with-words (would-go autoremove | where $it in $ours)

  let lines = (if ($LOCALE_GEN | path exists) { open --raw $LOCALE_GEN | lines } else { [] })
  let kept = ($state.generated | where $it in $lines)
  if ($kept | is-not-empty) {
    let text = ($lines | where $it not-in $kept | each { $"($in)\n" } | str join)
    put $LOCALE_GEN $text | ignore
    progress $"removing the locales ($kept | str join ', ')"
    must locale-gen | ignore
  }
}

def purge-with-words [packages: list<string>] {
  if ($packages | is-empty) { return }
  progress $"removing ($packages | str join ', ')"
  purge-packages $packages
}

# What apt-get would remove. That another package suggests one is no reason to keep it: libc6 suggests what `locales`
# brings along.
def --wrapped would-go [verb: string, ...packages: string]: nothing -> list<string> {
  (^apt-get --simulate -o APT::AutoRemove::SuggestsImportant=false $verb ...$packages | complete).stdout
  | lines | where $it =~ '^(Purg|Remv) ' | each { split row " " | get 1 }
}
