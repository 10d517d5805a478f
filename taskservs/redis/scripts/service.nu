# How redis is on a server.

use common.nu [fail put succeeds]

export const UNIT = "redis-server.service"
export const FOLDER = "/etc/redis"
export const CONFIG = "/etc/redis/redis.conf"
export const OURS = "/etc/redis/provisioning.conf"
# Digest of the configuration that the running service was started with: an interrupted run may have written a new one
# and not come to the restart.
export const APPLIED = "/etc/redis/provisioning.applied"
export const PACKAGES = ["redis-server" "redis" "redis-tools"]
export const FOLDERS = ["/etc/redis" "/var/lib/redis"]

# Our configuration, as `CONFIG GET` shows it but for `maxmemory`.
export def wanted [request: record]: nothing -> record {
  let given = $request.parameters
  {
    bind: $given.bind
    port: ($given.port | into string)
    protected-mode: (if (is-loopback $given.bind) { "yes" } else { "no" })
    maxmemory: $given.maxmemory
    appendonly: "yes"
    # Which server answers, over the connection itself.
    syslog-ident: $request.server.hostname
  }
}

# Includes our file at the end of the package's own, where the last word counts, or takes that out again.
export def include-ours [wanted: bool] {
  let line = $"include ($OURS)"
  if not $wanted and not ($CONFIG | path exists) { return }
  let text = (open --raw $CONFIG | decode utf-8)
  if ($line in ($text | lines)) == $wanted { return }
  put $CONFIG (if $wanted {
    $"($text)\n($line)\n"
  } else {
    $text | str replace --all --regex ('(?m)^\n?' + $line + '$\n?') ""
  }) | ignore
}

# The password, or an empty string.
export def password-of [request: record]: nothing -> string {
  $request.secrets?.password? | default ""
}

# Asks redis something; the answer's lines, or an empty list where it does not answer. The password goes by the
# environment.
export def --wrapped ask [request: record, ...words: string]: nothing -> list<string> {
  let password = (password-of $request)
  let environment = (if $password == "" { {} } else { {REDISCLI_AUTH: $password} })
  let given = $request.parameters
  with-env $environment {
    let result = (^timeout 5 redis-cli -h (own-address $given.bind) -p ($given.port | into string) ...$words | complete)
    if $result.exit_code == 0 { $result.stdout | lines } else { [] }
  }
}

# Waits until redis answers; it may be loading its data.
export def wait-for-pong [request: record, tries: int] {
  let given = $request.parameters
  mut answer = []
  for try in 1..$tries {
    $answer = (ask $request PING)
    if $answer == ["PONG"] { return }
    if ($answer | any {|line| $line =~ '^(NOAUTH|WRONGPASS)' }) { break }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 250ms
  }
  if not (succeeds systemctl is-active --quiet $UNIT) {
    let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
    let log = (^journalctl --unit $UNIT --lines 5 --no-pager --output cat | complete).stdout
    fail $"($log | str trim)\n($UNIT) is not active: ($why)"
  }
  let words = (if ($answer | is-empty) { "nothing" } else { $answer | str join " " })
  fail $"redis does not answer PING on ((own-address $given.bind)) port ($given.port) with PONG but with ($words)"
}

# Bytes of a size in redis.conf: kb, mb and gb count by 1024, k, m and g by 1000.
export def bytes-of [size: string]: nothing -> int {
  let parts = ($size | parse --regex '^(?<number>\d+)(?<unit>[kmg]?)(?<binary>b?)$' | first)
  let base = (if $parts.binary == "b" { 1024 } else { 1000 })
  ($parts.number | into int) * $base ** (match $parts.unit { "k" => 1, "m" => 2, "g" => 3, _ => 0 })
}

# Whether redis answers only to its own machine.
def is-loopback [bind: string]: nothing -> bool {
  $bind | split row " " | all {|address| ($address | str starts-with "127.") or $address == "::1" }
}

# The address under which this machine itself reaches redis.
export def own-address [bind: string]: nothing -> string {
  match ($bind | split row " " | first) {
    "*" | "0.0.0.0" => "127.0.0.1"
    "::" => "::1"
    $address => $address
  }
}
