# Writes the text and the units, and has systemd listen.

use common.nu [installed-version must output progress put succeeds]
use service.nu [APPLIED SOCKET SOCKET_FILE files read socket wait-for]

def main [request: path] {
  let request = (open $request)
  let port = $request.parameters.port

  # Forgotten before the unit is another one: should this run be cut off and the former unit be wanted again, what
  # listens is not what that note says.
  if (read $SOCKET_FILE) != (socket $port) { rm --force $APPLIED }
  let changes = (files $request | each {|file| put $file.path $file.text })
  # An interrupted run may have written the units and not come to this.
  let stale = (^systemctl show --property=NeedDaemonReload --value $SOCKET | complete).stdout | str trim
  if ($changes | any {|changed| $changed }) or $stale == "yes" {
    must systemctl daemon-reload
  }
  must systemctl enable --quiet $SOCKET
  start (socket $port)
  wait-for $request 40

  output version (installed-version systemd)
  output port $port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"port ($port) answers with our text"
}

# A socket that runs with this unit is left alone.
def start [unit: string] {
  let digest = ($unit | hash sha256)
  if (read $APPLIED) == $digest and (succeeds systemctl is-active --quiet $SOCKET) { return }
  progress $"starting ($SOCKET)"
  # The end-to-end suite cuts the installation off here (tests/case.yaml: interruptAt).
  # Take the sleep away when something of yours lasts.
  sleep 5sec
  must systemctl restart $SOCKET
  put $APPLIED $digest | ignore
}
