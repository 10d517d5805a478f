# Stops the service and removes its files. Nothing there: nothing to do.

use common.nu [must progress succeeds wait-until-closed]
use service.nu [CONNECTIONS FOLDER SERVICE_FILE SOCKET SOCKET_FILE]

def main [request: path] {
  let was_active = (succeeds systemctl is-active --quiet $SOCKET)
  if ($SOCKET_FILE | path exists) {
    must systemctl disable --quiet $SOCKET
  }
  if $was_active {
    progress $"stopping ($SOCKET)"
    must systemctl stop $SOCKET
  }
  # Connections that are still open.
  must systemctl stop $CONNECTIONS
  rm --recursive --force $FOLDER $SOCKET_FILE $SERVICE_FILE
  must systemctl daemon-reload
  if $was_active {
    wait-until-closed systemd (open $request).parameters.port
  }
  progress "nothing is left"
}
