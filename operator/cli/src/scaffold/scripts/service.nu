# How the service is on a server: a socket of systemd that starts `cat` for every connection.

use common.nu fail

export const SOCKET = "ext-@NAME@.socket"
export const CONNECTIONS = "ext-@NAME@@*.service"
export const FOLDER = "/etc/ext-@NAME@"
export const TEXT = "/etc/ext-@NAME@/text"
export const SOCKET_FILE = "/etc/systemd/system/ext-@NAME@.socket"
export const SERVICE_FILE = "/etc/systemd/system/ext-@NAME@@.service"
# Digest of the unit that the running socket was started with: an interrupted run may have written a new one and not
# come to the restart.
export const APPLIED = "/etc/ext-@NAME@/applied"

# Our files and what is in them: install writes it, check compares it.
export def files [request: record]: nothing -> table<path: string, text: string> {
  [
    {path: $TEXT, text: (line $request)}
    {path: $SERVICE_FILE, text: (service)}
    {path: $SOCKET_FILE, text: (socket $request.parameters.port)}
  ]
}

# What a client gets: it names the host, so that a client can tell which one it has reached.
export def line [request: record]: nothing -> string {
  $"($request.server.hostname): ($request.parameters.text)\n"
}

export def socket [port: int]: nothing -> string {
  [
    "# Written by provisioning; changes are overwritten."
    "[Unit]"
    "Description=@NAME@: a line of text over TCP"
    ""
    "[Socket]"
    $"ListenStream=($port)"
    "Accept=yes"
    ""
    "[Install]"
    "WantedBy=sockets.target"
    ""
  ] | str join "\n"
}

def service []: nothing -> string {
  [
    "# Written by provisioning; changes are overwritten."
    "[Unit]"
    "Description=@NAME@: one connection"
    "CollectMode=inactive-or-failed"
    ""
    "[Service]"
    $"ExecStart=/bin/cat ($TEXT)"
    "StandardInput=null"
    "StandardOutput=socket"
    ""
  ] | str join "\n"
}

# The text of a file, or null where there is none.
export def read [path: string]: nothing -> any {
  if ($path | path exists) { open --raw $path | decode utf-8 } else { null }
}

# What the service says over TCP, or null where it does not answer.
export def ask [port: int]: nothing -> any {
  let result = (^timeout 5 bash -c $"exec 3<>/dev/tcp/127.0.0.1/($port) && cat <&3" | complete)
  if $result.exit_code == 0 { $result.stdout } else { null }
}

# Waits until a client gets our line.
export def wait-for [request: record, tries: int] {
  let port = $request.parameters.port
  for try in 1..$tries {
    if (ask $port) == (line $request) { return }
    sleep 250ms
  }
  let said = (ask $port)
  let why = (if $said == null { "does not answer" } else { $"answers ($said | to json --raw)" })
  let state = (^systemctl show --property=ActiveState,SubState,Result $SOCKET | lines | str join ", ")
  fail $"port ($port) ($why), expected is our text; ($SOCKET): ($state)"
}
