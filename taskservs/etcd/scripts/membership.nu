# Whether this server may be a member of the cluster that the request tells of, and how it begins. The rule: data are
# never begun anew where there were some, and an install does not change the list of a cluster that exists.

use common.nu [fail]
use service.nu *

# How etcd has to begin: `new` or `existing` (a member that was added to a cluster). It only counts without data. Ends
# with exit code 2 where the request and what exists disagree.
export def decide [request: record]: nothing -> string {
  if (has-data) { with-data $request } else { without-data $request }
}

def with-data [request: record]: nothing -> string {
  if not ($OURS | path exists) {
    fail --code 2 $"($DATA) has data, but ($OURS) is not there: put it back, or move the data away"
  }
  let current = (open $OURS)
  let values = $request.parameters
  if $current.initial-cluster-token != $values.clusterToken {
    fail --code 2 ($"parameter clusterToken is ($values.clusterToken), but the cluster of this server is "
      + $"($current.initial-cluster-token): it cannot be changed while there are data. Set it back")
  }
  if $current.name != $request.server.name {
    fail --code 2 $"this server was the member ($current.name), and is now called ($request.server.name): set it back"
  }
  let known = ($current.initial-cluster | split row ",")
  let wanted = (initial-cluster $request | split row ",")
  if ($known | sort) == ($wanted | sort) { return $current.initial-cluster-state }

  # The list differs from ours: right if people have changed the cluster itself so.
  let port = ($current.advertise-client-urls | split row ":" | last | into int)
  let living = (members $port)
  if $living != null and (urls $living) == (wanted-urls $request) { return $current.initial-cluster-state }
  refuse $known $wanted
}

def without-data [request: record]: nothing -> string {
  let mine = (peer-url $request.parameters $request.server.address)
  # A member that is just starting may know only some of the members.
  mut seen = (ask-others $request)
  for try in 1..4 {
    if $seen == null or (urls $seen) == (wanted-urls $request) { break }
    sleep 1sec
    $seen = (ask-others $request)
  }
  if $seen != null {
    if (urls $seen) != (wanted-urls $request) {
      refuse ($seen | each {|one| $"($one.name? | default 'not started')=($one.peerURLs.0)" }) (
        initial-cluster $request | split row ",")
    }
    let me = ($seen | where {|one| $mine in $one.peerURLs } | first)
    if ($me.name? | default "") == "" { return "existing" }
    if ($me.clientURLs? | default []) != [] { lost $request }
  }
  if ($JOINED | path exists) { lost $request }
  "new"
}

# The members by the first other server that answers, or null: then this server may be the first one.
def ask-others [request: record]: nothing -> any {
  for server in (others $request) {
    let answer = (ask-peer (peer-url $request.parameters $server.address) "/members")
    if $answer != null { return $answer }
  }
  null
}

def urls [members: list<any>]: nothing -> list<string> {
  $members | get peerURLs | flatten | sort
}

def wanted-urls [request: record]: nothing -> list<string> {
  $request.servers | each {|server| peer-url $request.parameters $server.address } | sort
}

def refuse [known: list<string>, wanted: list<string>] {
  let more = ($wanted | where $it not-in $known)
  let less = ($known | where $it not-in $wanted)
  fail --code 2 ([
    "the cluster exists with other members than servers (or peerPort) say, and an install does not change them"
    $"not in the cluster: (if $more == [] { 'none' } else { $more | str join ', ' })"
    $"only in the cluster: (if $less == [] { 'none' } else { $less | str join ', ' })"
    ("set servers and peerPort back; or first change the cluster on one of its members, one member at a time "
      + "\(etcdctl member list, member remove ID, member add NAME --peer-urls=URL), then install again")
  ] | str join "\n")
}

def lost [request: record] {
  let name = $request.server.name
  let url = (peer-url $request.parameters $request.server.address)
  let way = (if ($request.servers | length) == 1 {
    $"bring ($DATA) back, or uninstall for a new, empty cluster"
  } else {
    ($"bring ($DATA) back; or, on another member, replace this one \(etcdctl member remove ID, then etcdctl member add "
      + $"($name) --peer-urls=($url)), then install again")
  })
  fail --code 2 $"($name) was a member before, and has no data in ($DATA): it does not begin as an empty one. ($way)"
}
