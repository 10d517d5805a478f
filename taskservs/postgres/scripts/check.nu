# Says whether PostgreSQL is what it should be: active, letting our user in, on this server, with these parameters.
# Changes nothing.

use common.nu [fail installed-version progress]
use service.nu *

def main [request: path] {
  let request = (open $request)
  let given = $request.parameters

  if (installed-version $PACKAGE) == null { fail $"($PACKAGE) is not installed" }
  if not ($"($FOLDER)/postgresql.conf" | path exists) { fail "PostgreSQL has no cluster 15/main" }
  # Ten seconds, for a log that is still being replayed.
  wait-until-ready $given.port 20

  let answer = (login $request)
  if $answer.exit_code != 0 { fail $"($given.user) cannot log in: ($answer.stderr | str trim)" }
  let expected = $"($given.user)|($given.database)|($request.server.hostname)"
  if ($answer.stdout | str trim) != $expected {
    fail $"PostgreSQL answers as ($answer.stdout | str trim), expected ($expected)"
  }
  let differ = (differences $given.port (wanted-settings $request))
  if ($differ | is-not-empty) { fail $"PostgreSQL runs with other settings: ($differ | str join '; ')" }
  check-hba $given
  if not (is-started-at-boot) {
    fail $"($ALL) is not enabled, or ($START) is not auto: PostgreSQL would not come back after a reboot"
  }
  progress $"postgresql lets ($given.user) in on port ($given.port)"
}

def check-hba [given: record] {
  if not (open --raw $HBA | str starts-with (hba-block $given)) {
    fail $"($HBA) does not begin with our rules: it was changed"
  }
  let errors = (hba-errors $given.port)
  if ($errors | is-not-empty) { fail $errors }
  if (hba-is-newer $given.port) { fail $"($HBA) was changed and not loaded" }
}
