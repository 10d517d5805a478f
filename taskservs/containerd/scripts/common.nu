# What scripts of an extension need: words to the runner, commands that must succeed, packages.

const LOCK_WAIT = "DPkg::Lock::Timeout=60"

# Scripts of several Taskservs may run on one server at the same time, and not all locks of apt are waited for by apt
# itself: one of them uses it at a time. The lock is not handed on to what apt starts.
const ONE_AT_A_TIME = ["--close" "--wait" "300" "/run/lock/provisioning-apt"]

# Tells people where the script is.
export def progress [message: string] {
  print ({event: "progress", message: $message} | to json --raw)
}

# Reports a result of the step.
export def output [name: string, value: any] {
  print ({event: "output", name: $name, value: $value} | to json --raw)
}

# Ends the script with words for people, which become the step's message.
export def fail [message: string, --code: int = 1] {
  print --stderr $message
  exit $code
}

# Runs a command and returns its stdout. Where it fails the script ends with the command's own last words.
export def --wrapped must [command: string, ...arguments: string]: nothing -> string {
  let result = (run-external $command ...$arguments | complete)
  if $result.exit_code != 0 {
    print --stderr $"($command) ($arguments | str join ' ')"
    for text in [$result.stdout $result.stderr] {
      print --stderr ($text | lines | last 20 | str join "\n")
    }
    exit $result.exit_code
  }
  $result.stdout
}

# Whether a command succeeds; what it says does not matter.
export def --wrapped succeeds [command: string, ...arguments: string]: nothing -> bool {
  (run-external $command ...$arguments | complete).exit_code == 0
}

# Version of an installed package, or null.
export def installed-version [package: string]: nothing -> any {
  let result = (^dpkg-query --show --showformat "${db:Status-Status} ${Version}" $package | complete)
  let words = ($result.stdout | split row " ")
  if $result.exit_code == 0 and ($words | first) == "installed" { $words | get 1 } else { null }
}

# dpkg's state of a package: `installed`, `config-files` (removed, not purged), … or `not-installed`.
export def status-of [package: string]: nothing -> string {
  let result = (^dpkg-query --show --showformat "${db:Status-Status}" $package | complete)
  if $result.exit_code == 0 { $result.stdout } else { "not-installed" }
}

# Puts a text in place, whole or not at all, also when the power fails. Says whether it was another one before. Without
# `mode` and `owner` (USER:GROUP) a file keeps its own, and a new one is root's and may be read by all.
export def put [path: string, text: string, --mode: string, --owner: string]: nothing -> bool {
  let is_there = ($path | path exists)
  if $is_there and (open --raw $path | decode utf-8) == $text { return false }
  let new = $"($path).new"
  mkdir ($path | path dirname)
  # Whose it is comes before what is in it: that may be a secret.
  must install --mode ($mode | default (if $is_there { "0600" } else { "0644" })) /dev/null $new
  if $mode == null and $is_there { must chmod --reference $path $new }
  if $owner != null { must chown $owner $new } else if $is_there { must chown --reference $path $new }
  $text | save --force $new
  must sync $new
  mv --force $new $path
  true
}

# Waits until a program, by the name of its process (cut to 15 characters), listens on a port no more.
export def wait-until-closed [program: string, port: int] {
  for try in 1..40 {
    let listeners = (must ss --no-header --listening --tcp --numeric --processes $"sport = :($port)")
    if $"\"($program)\"" not-in $listeners { return }
    sleep 250ms
  }
  fail $"port ($port) is still open: ($program) has not ended"
}

# Finishes what an interrupted dpkg left; quick where there is nothing. (`dpkg --audit` does not tell all of it.) It may
# fail: apt-get then says why, and may repair it.
export def mend-dpkg [] {
  with-env {DEBIAN_FRONTEND: "noninteractive"} { ^flock ...$ONE_AT_A_TIME dpkg --configure -a | complete | ignore }
}

# Installs a package (`NAME` or `NAME=VERSION`). The package lists are fetched where there are none, and where the
# first try fails (they may be old).
export def install-package [package: string] {
  mend-dpkg
  let has_lists = (glob /var/lib/apt/lists/*_Packages* | is-not-empty)
  if $has_lists {
    progress $"installing ($package)"
    let result = (apt-get install $package | complete)
    if $result.exit_code == 0 { return }
  }
  progress "fetching the package lists"
  must flock ...$ONE_AT_A_TIME apt-get -qq -o $LOCK_WAIT -o "APT::Update::Error-Mode=any" update
  progress $"installing ($package)"
  let result = (apt-get install $package | complete)
  if $result.exit_code != 0 {
    fail --code $result.exit_code ($result.stderr | str trim)
  }
}

# Removes packages with their configuration.
export def purge-packages [packages: list<string>] {
  mend-dpkg
  let result = (apt-get purge ...$packages | complete)
  if $result.exit_code != 0 {
    fail --code $result.exit_code ($result.stderr | str trim)
  }
}

# Removes packages; their configuration and data stay.
export def remove-packages [packages: list<string>] {
  mend-dpkg
  let result = (apt-get remove ...$packages | complete)
  if $result.exit_code != 0 {
    fail --code $result.exit_code ($result.stderr | str trim)
  }
}

def apt-get [verb: string, ...packages: string] {
  with-env {DEBIAN_FRONTEND: "noninteractive"} {
    (^flock ...$ONE_AT_A_TIME apt-get -qq -y -o $LOCK_WAIT
      -o "Dpkg::Options::=--force-confdef" -o "Dpkg::Options::=--force-confold"
      --no-install-recommends --allow-downgrades $verb ...$packages)
  }
}
