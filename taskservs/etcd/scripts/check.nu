# Says whether etcd is what it should be: active, ours, healthy, with a quorum, with these members. Changes nothing.

use before.nu noted
use common.nu [fail installed-version progress succeeds]
use service.nu *

def main [request: path] {
  let request = (open $request)
  let problems = (problems $request)
  if $problems != [] { fail --code 2 ($problems | str join "\n") }
  let values = $request.parameters

  for package in [$SERVER_PACKAGE $CLIENT_PACKAGE] {
    if (installed-version $package) == null { fail $"($package) is not installed" }
  }
  if (noted etcd) == null { fail "etcd on this server is not of this extension" }
  check-unit $request
  wait-for-member $request 20 | ignore
  wait-for-quorum $request
  check-members $request
  check-running $values

  let silent = (silent $request)
  if $silent != [] { progress $"warning: no answer from ($silent | str join ', '); there is a quorum without" }
  progress $"etcd answers on port ($values.clientPort) as member ($request.server.name) of ($request.servers | length)"
}

# What can be seen without asking etcd.
def check-unit [request: record] {
  let state = (if ($OURS | path exists) { open $OURS | get initial-cluster-state } else { "new" })
  let expected = (configuration $request $state)
  for file in [{path: $OURS, text: $expected} {path: $DROPIN, text: (dropin)}] {
    if not ($file.path | path exists) or (open --raw $file.path) != $file.text {
      fail $"($file.path) is not what the parameters say: install again"
    }
  }
  if not (succeeds systemctl is-active --quiet $UNIT) { fail-with-log $"($UNIT) is not active" }
  if not (succeeds systemctl is-enabled --quiet $UNIT) {
    fail $"($UNIT) is not enabled: it would not come back after a reboot"
  }
  let pid = (^systemctl show --value --property=MainPID $UNIT | str trim)
  let command = (try { open --raw $"/proc/($pid)/cmdline" | decode utf-8 } catch { "" })
  if $OURS not-in $command { fail $"etcd runs without ($OURS): it was started in another way" }
  let digest = (digest $expected (installed-version $SERVER_PACKAGE))
  if not ($APPLIED | path exists) or (open --raw $APPLIED) != $digest {
    fail $"etcd was not started with what ($OURS) says now: install again"
  }
}

# Half a minute: all members may have been started only now.
def wait-for-quorum [request: record] {
  let deadline = (date now) + 30sec
  while not (reads $request.parameters.clientPort) {
    if (date now) > $deadline {
      let silent = (silent $request)
      let who = (if $silent == [] { "all members answer, look at their logs" } else {
        $"no answer from ($silent | str join ', ') on port ($request.parameters.peerPort)" })
      fail-with-log $"the cluster has no quorum: ($who)"
    }
    sleep 1sec
  }
}

def check-members [request: record] {
  let values = $request.parameters
  let found = (members $values.clientPort)
  if $found == null { fail "the member list could not be read" }
  let missing = ($request.servers | where {|server|
    $found | where {|one| (peer-url $values $server.address) in $one.peerURLs } | is-empty
  })
  if ($missing | is-not-empty) {
    fail $"not a member of the cluster: ($missing | each {|one| $'($one.name) \(($one.address)\)' } | str join ', ')"
  }
  let wanted = ($request.servers | each {|server| peer-url $values $server.address })
  let strange = ($found | where {|one| $one.peerURLs | any {|url| $url not-in $wanted } })
  if ($strange | is-not-empty) {
    let words = ($strange | each {|one| $"($one.name? | default 'not started') \(($one.peerURLs | str join ' ')\)" })
    fail $"a member of the cluster, but not in servers: ($words | str join ', ')"
  }
  let silent = ($found | where {|one| ($one.name? | default "") == "" } | get peerURLs | flatten)
  if $silent != [] { fail $"a member that never started: ($silent | str join ', ')" }
}

# What etcd itself says about how it runs.
def check-running [values: record] {
  let health = (etcdctl $values.clientPort endpoint health)
  if $health.exit_code != 0 { fail $"the member is not healthy: ($health.stderr | str trim)" }
  let alarms = (etcdctl $values.clientPort alarm list)
  if ($alarms.stdout | str trim) != "" { fail $"etcd has an alarm: ($alarms.stdout | str trim)" }
  let metrics = (http get --raw --max-time 5sec $"http://127.0.0.1:($values.clientPort)/metrics" | lines)
  let quota = ($metrics | where ($it | str starts-with "etcd_server_quota_backend_bytes ")
    | get --optional 0 | default "none 0" | split row " " | last | into float | into int)
  if $quota != $values.quotaBackendBytes {
    fail $"etcd runs with a quota of ($quota) bytes, expected ($values.quotaBackendBytes)"
  }
}
