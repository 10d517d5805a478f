# Says whether nginx is what it should be: active, answering with our site, on this server. Changes nothing.

use common.nu [fail installed-version progress succeeds]
use service.nu [DEFAULT LINK SITE UNIT ask page site wait-for]

def main [request: path] {
  let request = (open $request)
  let port = $request.parameters.port
  let site = (site $request)

  if (installed-version nginx) == null {
    fail "nginx is not installed"
  }
  # What runs, and what would run after a reboot.
  wait-for $port $site.digest 20
  if not ($LINK | path exists) or not ($SITE | path exists) or (open --raw $SITE | decode utf-8) != $site.text {
    fail $"our site ($LINK) was changed or is gone"
  }
  if ($DEFAULT | path exists --no-symlink) {
    fail $"Debian's default site is enabled again: ($DEFAULT)"
  }
  for expected in [
    {path: "/whoami", body: $"($request.server.hostname)\n"}
    {path: "/", body: (page $request)}
  ] {
    let answer = (ask $port $expected.path)
    if $answer == null or $answer.status != 200 or $answer.body != $expected.body {
      fail $"GET ($expected.path) on port ($port) is not answered with our text \(status ($answer.status?)\)"
    }
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  progress $"nginx answers on port ($port)"
}
