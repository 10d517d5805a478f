# Which packages an uninstall may take. apt's own marks (`apt-mark showauto`) do not survive a kill in its middle.

use common.nu succeeds

# Remembers which of these packages are not there yet: they come with ours, and go with it. To be called before ours is
# installed; only the first call counts.
export def remember [extension: string, also: list<string>] {
  let file = (file-of $extension)
  if ($file | path exists) { return }
  $also | where {|package| (status-of $package) == "not-installed" } | to text | save --force $"($file).new"
  mv $"($file).new" $file
}

# Those of ours that dpkg knows in whatever state (an installation may have been interrupted), and what came with them
# and no other package needs.
export def removable [extension: string, ours: list<string>]: nothing -> list<string> {
  let file = (file-of $extension)
  let came = (if ($file | path exists) { open --raw $file | lines } else { [] })
  let taken = ($ours | where {|package| (status-of $package) != "not-installed" })
  $came | where {|package| (status-of $package) != "not-installed" } | reduce --fold $taken {|package, taken|
    if (succeeds dpkg --dry-run --purge ...$taken $package) { [...$taken $package] } else { $taken }
  }
}

export def forget [extension: string] {
  rm --force (file-of $extension)
}

def file-of [extension: string]: nothing -> string {
  $"/var/lib/provisioning-($extension).packages"
}

def status-of [package: string]: nothing -> string {
  let result = (^dpkg-query --show --showformat "${db:Status-Status}" $package | complete)
  if $result.exit_code == 0 { $result.stdout } else { "not-installed" }
}
