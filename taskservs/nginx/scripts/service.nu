# How nginx is on a server.

use common.nu [fail succeeds]

export const UNIT = "nginx.service"
export const PACKAGES = ["nginx" "nginx-common"]
export const SITE = "/etc/nginx/sites-available/provisioning"
export const LINK = "/etc/nginx/sites-enabled/provisioning"
# Debian's default site, and where it waits while ours is there.
export const DEFAULT = "/etc/nginx/sites-enabled/default"
export const PARKED = "/etc/nginx/provisioning.default"
export const PAGE = "/var/www/provisioning/index.html"
export const FOLDERS = ["/etc/nginx" "/var/lib/nginx" "/var/log/nginx"]

# Our site. /health carries a digest of it: so the running nginx itself says which configuration it has.
export def site [request: record]: nothing -> record<text: string, digest: string> {
  let values = $request.parameters
  let host = $request.server.hostname
  let served_by = $"add_header X-Served-By \"($host)\" always;"
  let has_ipv6 = ("/proc/net/if_inet6" | path exists)
  let ipv6 = (if $has_ipv6 { [$"    listen [::]:($values.port) default_server;"] } else { [] })
  let text = ([
    "# Written by provisioning; changes are overwritten."
    "server {"
    $"    listen ($values.port) default_server;"
    ...$ipv6
    $"    server_name ($values.serverName);"
    $"    root ($PAGE | path dirname);"
    "    index index.html;"
    "    charset utf-8;"
    $"    ($served_by)"
    "    location = /health {"
    "        access_log off;"
    "        default_type text/plain;"
    $"        ($served_by)"
    "        add_header X-Provisioning-Config \"DIGEST\" always;"
    "        return 200 \"ok\\n\";"
    "    }"
    "    location = /whoami {"
    "        default_type text/plain;"
    $"        return 200 \"($host)\\n\";"
    "    }"
    "}"
    ""
  ] | str join "\n")
  let digest = ($text | hash sha256 | str substring 0..15)
  {text: ($text | str replace "DIGEST" $digest), digest: $digest}
}

# The page at /.
export def page [request: record]: nothing -> string {
  let host = $request.server.hostname
  let default = $"<!DOCTYPE html>\n<title>($host)</title>\n<h1>($host)</h1>\n<p>nginx runs here.</p>\n"
  $request.parameters.index? | default $default
}

# Asks nginx for a path; null where it does not answer.
export def ask [port: int, path: string]: nothing -> any {
  try {
    let answer = (http get --raw --full --allow-errors --max-time 5sec $"http://127.0.0.1:($port)($path)")
    let headers = ($answer.headers.response | update name { str lowercase })
    {status: $answer.status, body: $answer.body, headers: $headers}
  } catch { null }
}

# Digest of the configuration that the running nginx has, or null.
export def running-digest [port: int]: nothing -> any {
  let answer = (ask $port "/health")
  if $answer == null { return null }
  $answer.headers | where name == "x-provisioning-config" | get --optional 0.value
}

# Waits until nginx answers with this configuration.
export def wait-for [port: int, digest: string, tries: int] {
  for try in 1..$tries {
    if (running-digest $port) == $digest { return }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 250ms
  }
  let log = (^tail --lines 5 /var/log/nginx/error.log | complete).stdout
  let state = (^systemctl is-active $UNIT | complete).stdout
  let why = (if ($state | str trim) != "active" {
    $"($UNIT) is not active: ($state | str trim)"
  } else if (running-digest $port) == null {
    $"nginx does not answer /health of our site on port ($port)"
  } else {
    $"nginx runs with another configuration than ours on port ($port)"
  })
  fail $"($log | str trim)\n($why)"
}
