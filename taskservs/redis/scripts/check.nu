# Says whether redis is what it should be: active, answering, on this server, with these parameters. Changes nothing.

use common.nu [fail progress succeeds]
use parameters.nu resolve
use service.nu [UNIT ask wait-for-pong]

def main [request: path] {
  let request = (open $request)
  let resolved = (resolve $request.parameters)
  if ($resolved.problems | is-not-empty) {
    fail --code 2 ($resolved.problems | str join "\n")
  }
  let values = $resolved.values

  if not (succeeds dpkg-query --show redis-server) {
    fail "redis-server is not installed"
  }
  # Ten seconds, for an append-only file that is still being read.
  wait-for-pong $values 40
  for expected in [
    {name: "syslog-ident", value: $request.server.hostname}
    {name: "appendonly", value: "yes"}
  ] {
    let found = (ask $values CONFIG GET $expected.name | get --optional 1)
    if $found != $expected.value {
      fail $"redis has ($expected.name) ($found), expected ($expected.value): its configuration was changed"
    }
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  progress $"redis answers on port ($values.port)"
}
