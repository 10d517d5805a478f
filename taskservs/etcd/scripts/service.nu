# How etcd is on a server.

use common.nu [fail succeeds]

export const UNIT = "etcd.service"
export const SERVER_PACKAGE = "etcd-server"
export const CLIENT_PACKAGE = "etcd-client"
export const FOLDER = "/etc/etcd"
export const OURS = "/etc/etcd/provisioning.yaml"
# Version 0.1.0 noted here what it brought.
export const OWNED = "/etc/etcd/provisioning.packages"
# Digest of what the running service was started with: an interrupted run may have written a new configuration and not
# come to the restart.
export const APPLIED = "/etc/etcd/provisioning.applied"
# There were data once: a member without them must not begin again as an empty one.
export const JOINED = "/etc/etcd/provisioning.joined"
export const DROPIN_FOLDER = "/etc/systemd/system/etcd.service.d"
export const DROPIN = "/etc/systemd/system/etcd.service.d/provisioning.conf"
export const HOME = "/var/lib/etcd"
# Not the package's own /var/lib/etcd/default, so that what the package may start by itself never becomes our data.
export const DATA = "/var/lib/etcd/provisioning"

# Everything about the request that the schema cannot say.
export def problems [request: record]: nothing -> list<string> {
  let values = $request.parameters
  let addresses = ($request.servers | get address)
  let heartbeats = 5 * $values.heartbeatInterval
  [
    {bad: ($addresses | length | $in not-in [1 3])
      words: $"servers: a cluster has 1 or 3 members, not ($addresses | length)"}
    {bad: (($addresses | uniq | length) != ($addresses | length)), words: "servers: two of them have the same address"}
    {bad: ($values.clientPort == $values.peerPort)
      words: $"parameters clientPort and peerPort are both ($values.clientPort)"}
    {bad: ($values.electionTimeout < $heartbeats)
      words: $"parameter electionTimeout is ($values.electionTimeout), less than five heartbeats \(($heartbeats)\)"}
  ] | where bad | get words
}

def host [address: string]: nothing -> string {
  if ":" in $address { $"[($address)]" } else { $address }
}

export def peer-url [values: record, address: string]: nothing -> string {
  $"http://(host $address):($values.peerPort)"
}

export def client-url [values: record, address: string]: nothing -> string {
  $"http://(host $address):($values.clientPort)"
}

# The members as etcd wants them: NAME=URL,…
export def initial-cluster [request: record]: nothing -> string {
  $request.servers | each {|server| $"($server.name)=(peer-url $request.parameters $server.address)" } | str join ","
}

# Other members of the cluster.
export def others [request: record]: nothing -> table {
  $request.servers | where name != $request.server.name
}

# Our configuration. etcd ignores its command line and the environment (/etc/default/etcd) beside such a file.
export def configuration [request: record, state: string]: nothing -> string {
  let values = $request.parameters
  let address = $request.server.address
  let any = (if ":" in $address { "::" } else { "0.0.0.0" })
  let clients = (if $values.clientBind == "all" { [$any] } else { [$address "127.0.0.1"] | uniq })
  let peers = (if $values.peerBind == "all" { $any } else { $address })
  [
    "# Written by provisioning; changes are overwritten."
    $"name: '($request.server.name)'"
    $"data-dir: ($DATA)"
    $"listen-client-urls: '($clients | each {|one| client-url $values $one } | str join ',')'"
    $"advertise-client-urls: '(client-url $values $address)'"
    $"listen-peer-urls: '(peer-url $values $peers)'"
    $"initial-advertise-peer-urls: '(peer-url $values $address)'"
    $"initial-cluster: '(initial-cluster $request)'"
    $"initial-cluster-token: '($values.clusterToken)'"
    $"initial-cluster-state: ($state)"
    $"heartbeat-interval: ($values.heartbeatInterval)"
    $"election-timeout: ($values.electionTimeout)"
    $"quota-backend-bytes: ($values.quotaBackendBytes)"
    # Off by default where there is a configuration file.
    "enable-grpc-gateway: true"
    ""
  ] | str join "\n"
}

# exec, not the package's notify: etcd says that it is ready when it has a quorum, and neither a boot nor dpkg (which
# restarts it at an upgrade) may hang until other servers are there.
export def dropin []: nothing -> string {
  $"# Written by provisioning; changes are overwritten.
[Unit]
After=network-online.target

[Service]
Type=exec
# etcd without data begins an empty cluster without a word: never where there were data.
ExecStartPre=+/bin/sh -c 'test -d ($DATA)/member || ! test -e ($JOINED) || { echo \"no data in ($DATA)\"; exit 1; }'
ExecStart=
ExecStart=/usr/bin/etcd --config-file ($OURS)
Restart=on-failure
RestartSec=5
"
}

# Digest of what a restart brings about. The initial-… lines count only for a member without data.
export def digest [text: string, version: string]: nothing -> string {
  let lines = ($text | lines | where {|line| not ($line | str starts-with "initial-cluster") })
  $"($lines | str join "\n")(dropin)($version)" | hash sha256
}

export def has-data []: nothing -> bool {
  $"($DATA)/member" | path exists
}

# What a member says on its peers' port, which works without a quorum; null where it does not answer.
export def ask-peer [url: string, path: string]: nothing -> any {
  try { http get --raw --max-time 2sec $"($url)($path)" | from json } catch { null }
}

# Asks the member of this server something as a client.
export def --wrapped etcdctl [port: int, ...words: string]: nothing -> record {
  with-env {ETCDCTL_API: "3"} {
    (^timeout 8 etcdctl --endpoints $"http://127.0.0.1:($port)" --dial-timeout 2s --command-timeout 4s ...$words
      | complete)
  }
}

# A linearizable read: it succeeds only where the member hears a leader that has a quorum.
export def reads [port: int]: nothing -> bool {
  (etcdctl $port get --consistency l --limit 1 --keys-only provisioning).exit_code == 0
}

# The members by a cluster with a quorum; null where there is none. `member list` alone may be old, the read before it
# makes it new.
export def members [port: int]: nothing -> any {
  if not (reads $port) { return null }
  let result = (etcdctl $port member list --write-out json)
  if $result.exit_code == 0 { $result.stdout | from json | get members } else { null }
}

# Other members that do not answer, in words.
export def silent [request: record]: nothing -> list<string> {
  others $request | where {|server|
    (ask-peer (peer-url $request.parameters $server.address) "/version") == null
  } | each {|server| $"($server.name) \(($server.address)\)" }
}

# Whether dpkg was killed while it unpacked a package.
export def is-half [package: string]: nothing -> bool {
  (^dpkg-query --show --showformat "${db:Status-Eflag}" $package | complete).stdout == "reinstreq"
}

# The end of the script, with what systemd and etcd say.
export def fail-with-log [words: string] {
  let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
  let log = (^journalctl --unit $UNIT --lines 6 --no-pager --output cat | complete).stdout
  fail $"($log | str trim)\n($words) \(($UNIT): ($why)\)"
}

# Waits until the member of this server answers, with a quorum or not. Its version.
export def wait-for-member [request: record, tries: int]: nothing -> string {
  let url = (peer-url $request.parameters $request.server.address)
  for try in 1..$tries {
    let answer = (ask-peer $url "/version")
    if $answer != null { return $answer.etcdserver }
    if (succeeds systemctl is-failed --quiet $UNIT) { break }
    let restarts = (^systemctl show --value --property=NRestarts $UNIT | str trim | into int)
    if $restarts >= 3 { fail-with-log $"etcd ended ($restarts) times" }
    sleep 500ms
  }
  fail-with-log $"the member does not answer on ($url)"
}
