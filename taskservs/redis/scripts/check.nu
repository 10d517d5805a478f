# Says whether redis is what it should be: active, answering, on this server, with these parameters. Changes nothing.

use common.nu [fail installed-version progress succeeds]
use service.nu [UNIT ask bytes-of password-of wait-for-pong wanted]

def main [request: path] {
  let request = (open $request)
  let given = $request.parameters

  if (installed-version redis-server) == null {
    fail "redis-server is not installed"
  }
  # Ten seconds, for an append-only file that is still being read.
  wait-for-pong $request 40
  let expected = (wanted $request | update maxmemory (bytes-of $given.maxmemory | into string))
  let answer = (ask $request CONFIG GET ...($expected | columns))
  let found = ($answer | chunks 2 | each {|pair| {$pair.0: ($pair | get --optional 1)} } | into record)
  for name in ($expected | columns) {
    let is = ($found | get --optional $name)
    if $is != ($expected | get $name) {
      fail $"redis has ($name) ($is), expected ($expected | get $name): its configuration was changed"
    }
  }
  check-password $request
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  progress $"redis answers on port ($given.port)"
}

# Our password was taken already; now nobody must come in without it, and nobody needs one where there is none.
def check-password [request: record] {
  let anonymous = (ask ($request | upsert secrets {}) PING | str join " ")
  if (password-of $request) != "" and not ($anonymous | str starts-with "NOAUTH") {
    fail $"redis answers without the password: ($anonymous)"
  }
}
