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

# Finishes what an interrupted dpkg left; quick where there is nothing. (`dpkg --audit` does not tell all of it.) It may
# fail: apt-get then says why, and may repair it.
def mend-dpkg [] {
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

def apt-get [verb: string, ...packages: string] {
  with-env {DEBIAN_FRONTEND: "noninteractive"} {
    (^flock ...$ONE_AT_A_TIME apt-get -qq -y -o $LOCK_WAIT
      -o "Dpkg::Options::=--force-confdef" -o "Dpkg::Options::=--force-confold"
      --no-install-recommends --allow-downgrades $verb ...$packages)
  }
}
