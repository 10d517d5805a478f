# Says whether the service is what it should be: enabled, listening, answering with our text. Changes nothing.

use common.nu [fail progress succeeds]
use service.nu [SOCKET files read wait-for]

def main [request: path] {
  let request = (open $request)

  for file in (files $request) {
    let found = (read $file.path)
    if $found == null {
      fail $"($file.path) is not there: it was never installed, or was removed"
    }
    if $found != $file.text {
      fail $"($file.path) is not what we write with these parameters: it was changed"
    }
  }
  if not (succeeds systemctl is-active --quiet $SOCKET) {
    fail $"($SOCKET) is not active: nobody listens"
  }
  if not (succeeds systemctl is-enabled --quiet $SOCKET) {
    fail $"($SOCKET) is not enabled: it would not come back after a reboot"
  }
  wait-for $request 4
  progress $"port ($request.parameters.port) answers with our text"
}
