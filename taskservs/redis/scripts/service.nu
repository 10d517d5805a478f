# How redis is on a server.

use common.nu [fail succeeds]
use parameters.nu own-address

export const UNIT = "redis-server.service"
export const FOLDER = "/etc/redis"
export const CONFIG = "/etc/redis/redis.conf"
export const OURS = "/etc/redis/provisioning.conf"
# Digest of the configuration that the running service was started with: an interrupted run may have written a new one
# and not come to the restart.
export const APPLIED = "/etc/redis/provisioning.applied"

# Asks redis something; the answer's lines, or an empty list where it does not answer.
export def --wrapped ask [values: record, ...words: string]: nothing -> list<string> {
  let result = (^timeout 5 redis-cli -h (own-address $values.bind) -p ($values.port | into string) ...$words | complete)
  if $result.exit_code == 0 { $result.stdout | lines } else { [] }
}

# Waits until redis answers; it may be loading its data.
export def wait-for-pong [values: record, tries: int] {
  for try in 1..$tries {
    if (ask $values PING) == ["PONG"] { return }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 250ms
  }
  if not (succeeds systemctl is-active --quiet $UNIT) {
    let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
    let log = (^journalctl --unit $UNIT --lines 5 --no-pager --output cat | complete).stdout
    fail $"($log | str trim)\n($UNIT) is not active: ($why)"
  }
  fail $"redis does not answer PING on ((own-address $values.bind)) port ($values.port)"
}
