# Says whether haproxy is what it should be: active, with our configuration, all backends UP. Changes nothing.

use common.nu [fail installed-version progress succeeds]
use config.nu configuration
use service.nu [DROPIN DROPIN_TEXT OURS UNIT backends wait-for]

def main [request: path] {
  let request = (open $request)
  let port = $request.parameters.port
  let config = (configuration $request)

  if (installed-version haproxy) == null {
    fail "haproxy is not installed"
  }
  # What runs, and what would run after a reboot.
  wait-for $config.digest 20
  for file in [{path: $OURS, text: $config.text} {path: $DROPIN, text: $DROPIN_TEXT}] {
    if not ($file.path | path exists) or (open --raw $file.path | decode utf-8) != $file.text {
      fail $"($file.path) was changed or is gone"
    }
  }
  if not (succeeds timeout 5 bash -c $"exec 3<>/dev/tcp/127.0.0.1/($port)") {
    fail $"haproxy does not listen on port ($port)"
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  let backends = (backends)
  if ($backends | is-empty) {
    fail "haproxy does not tell its backends on its admin socket"
  }
  let bad = ($backends | where state != "UP"
    | each {|backend| $"($backend.name) is ($backend.state) \(($backend.why)\)" })
  if ($bad | is-not-empty) {
    fail $"($bad | length) of ($backends | length) backends are not UP: ($bad | str join ', ')"
  }
  progress $"haproxy runs on port ($port), ($backends | length) backends UP"
}
