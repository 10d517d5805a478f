# Says whether containerd is what it should be: active, answering, with these parameters. Changes nothing.

use common.nu [fail installed-version progress succeeds]
use service.nu [PACKAGE UNIT ask configuration-problems is-current wait-for-answer]

def main [request: path] {
  let parameters = (open $request | get parameters)

  if (installed-version $PACKAGE) == null {
    fail $"($PACKAGE) is not installed"
  }
  # Five seconds: after a reboot it may be starting.
  wait-for-answer 20
  let problems = (configuration-problems $parameters)
  if ($problems | is-not-empty) {
    fail ($problems | str join "\n")
  }
  if not (is-current) {
    fail "containerd runs with an older configuration than its files have"
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  let namespaces = (ask namespaces ls --quiet)
  if $namespaces.exit_code != 0 {
    fail $"containerd does not list its namespaces: ($namespaces.stderr | str trim)"
  }
  progress "containerd answers on its socket"
}
