# haproxy's configuration from a request, without effect.

use common.nu fail
use service.nu [POOL SOCKET]

# The path that haproxy answers itself; also in manifest.yaml.
const PROBE = "/haproxy-health"

# The text of our file. The running haproxy tells the digest by `show env`.
export def configuration [request: record]: nothing -> record<text: string, digest: string> {
  let values = $request.parameters
  let text = ([
    "# Written by provisioning; changes are overwritten."
    "global"
    $"    stats socket ($SOCKET) mode 600 level admin"
    "    setenv PROVISIONING_CONFIG DIGEST"
    ""
    ...(front $values)
    ""
    ...(pool $values (servers $request))
    ""
    # Answers the operator's probe, so that it speaks of haproxy and not of one backend.
    "backend provisioning-probe"
    "    mode http"
    $"    http-request return status 200 content-type text/plain string UP if { nbsrv\(($POOL)) gt 0 }"
    "    http-request return status 503 content-type text/plain string DOWN"
    ...(stats $values)
    ""
  ] | str join "\n")
  let digest = ($text | hash sha256 | str substring 0..15)
  {text: ($text | str replace "DIGEST" $digest), digest: $digest}
}

def front [values: record]: nothing -> list<string> {
  let bind = (if ("/proc/net/if_inet6" | path exists) { $"[::]:($values.port) v4v6" } else { $"*:($values.port)" })
  let common = [
    "frontend provisioning-front"
    $"    bind ($bind)"
    $"    mode ($values.mode)"
    $"    default_backend ($POOL)"
  ]
  if $values.mode == "http" {
    [
      ...$common
      "    option httplog"
      "    option forwardfor"
      "    timeout client 1m"
      "    timeout http-request 10s"
      $"    use_backend provisioning-probe if { path ($PROBE) }"
    ]
  } else {
    [
      ...$common
      "    option tcplog"
      "    timeout client 1h"
      # The first bytes tell the operator's probe from a client. A client that waits for the server to speak first gets
      # through after these 100 ms.
      "    tcp-request inspect-delay 100ms"
      $"    acl probe req.payload\(0,($PROBE | str length | $in + 5)\) -m str \"GET ($PROBE) \""
      "    tcp-request content set-var(sess.probe) bool(true) if probe"
      "    tcp-request content switch-mode http if probe"
      "    tcp-request content accept if { req.len gt 0 }"
      "    use_backend provisioning-probe if { var(sess.probe) -m bool }"
    ]
  }
}

def pool [values: record, servers: list<record>]: nothing -> list<string> {
  let mode = (if $values.mode == "http" {
    [
      "    option httpchk"
      $"    http-check send meth GET uri ($values.healthPath) ver HTTP/1.1 hdr Host localhost hdr Connection close"
      "    timeout tunnel 1h"
      "    timeout server 1m"
    ]
  } else {
    ["    timeout server 1h"]
  })
  [
    $"backend ($POOL)"
    $"    mode ($values.mode)"
    $"    balance ($values.balance)"
    "    option redispatch"
    "    timeout connect 5s"
    "    timeout check 5s"
    ...$mode
    "    default-server check inter 2s fall 2 rise 2"
    ...($servers | each {|server| $"    server ($server.name) (host $server.address):($server.port)" })
  ]
}

def stats [values: record]: nothing -> list<string> {
  if $values.statsPort? == null { return [] }
  [
    ""
    "frontend provisioning-stats"
    $"    bind (host $values.statsAddress):($values.statsPort)"
    "    mode http"
    "    timeout client 1m"
    "    option dontlog-normal"
    "    stats enable"
    "    stats uri /"
  ]
}

def host [address: string]: nothing -> string {
  if ":" in $address { $"[($address)]" } else { $address }
}

# The backends, named one by one or by a group. What the schema can't say about them is checked here.
def servers [request: record]: nothing -> list<record> {
  let values = $request.parameters
  if $values.statsPort? == $values.port {
    fail --code 2 $"parameter statsPort is ($values.port), which is the front port too"
  }
  let servers = (if $values.backends? != null { $values.backends } else { group $request })
  let names = ($servers | get name)
  let twice = ($names | uniq --repeated)
  if ($twice | is-not-empty) {
    fail --code 2 $"parameter backends names ($twice | str join ', ') more than once"
  }
  let own = ["127.0.0.1" "::1" "localhost" $request.server.address $request.server.hostname]
  let loop = ($servers | where {|server| $server.port == $values.port and $server.address in $own })
  if ($loop | is-not-empty) {
    let field = (if $values.backends? != null { "backends" } else { "backendPort" })
    fail --code 2 $"parameter ($field): ($loop.0.name) is haproxy's own front port ($values.port)"
  }
  $servers
}

def group [request: record]: nothing -> list<record> {
  let name = $request.parameters.backendGroup
  let peers = ($request.peers? | default {} | get --optional $name)
  if $peers == null {
    let known = ($request.peers? | default {} | columns | str join ", ")
    fail --code 2 $"parameter backendGroup is ($name), which is not in peers \(there: ($known)\)"
  }
  if ($peers | is-empty) {
    fail $"group ($name) has no servers yet"
  }
  $peers | each {|peer| {name: $peer.name, address: $peer.address, port: $request.parameters.backendPort} }
}
