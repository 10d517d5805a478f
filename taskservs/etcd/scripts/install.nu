# Installs etcd, configures it as a member of the cluster, and waits until this member answers. The others may come
# later: whether there is a quorum is check.nu's matter.

use before.nu [note noted]
use common.nu [fail install-package installed-version must output progress put succeeds]
use membership.nu decide
use service.nu *

# Of the 3.4 series; before it, a single member could lose a write that it had confirmed.
const SOUND = "3.4.21"

def main [request: path] {
  let request = (open $request)
  let problems = (problems $request)
  if $problems != [] { fail --code 2 ($problems | str join "\n") }

  own
  let had_data = (settle)
  let state = (decide $request)
  # Added anew to a cluster: it may begin without data.
  if $state == "existing" and not $had_data { rm --force $JOINED }
  let wanted = (configuration $request $state)
  # Forgotten first: a killed run's configuration may be the one that runs, though a later run wants the former again.
  if (try { open --raw $OURS | decode utf-8 }) != $wanted { rm --force $APPLIED }
  put $OURS $wanted | ignore
  put $DROPIN (dropin) | ignore
  packages
  let version = (installed-version $SERVER_PACKAGE)
  start $request $state $version
  let running = (wait-for-member $request 120)
  if not ($JOINED | path exists) { put $JOINED "" | ignore }
  tell-quorum $request $had_data

  let values = $request.parameters
  output version $version
  output etcdVersion $running
  output port $values.clientPort
  output peerPort $values.peerPort
  output member $request.server.name
  output address $request.server.address
  output endpoint (client-url $values $request.server.address)
  output endpoints ($request.servers | each {|server| client-url $values $server.address } | str join ",")
  output clusterToken $values.clusterToken
  if not (succeeds dpkg --compare-versions $running ge $SOUND) {
    progress $"warning: etcd ($running) has known faults that lose data; they are mended in ($SOUND)"
  }
  progress $"etcd ($running) answers as member ($request.server.name)"
}

# Makes etcd on this server ours, before anything is changed, or leaves it to whom it belongs: an uninstall purges the
# package, and with it all of /var/lib/etcd.
def own [] {
  if ($OWNED | path exists) { mv --force $OWNED /var/lib/provisioning-etcd.packages }
  let is_new = ((noted etcd) == null and not ("/var/lib/provisioning-etcd.packages" | path exists))
  if $is_new and ((installed-version $SERVER_PACKAGE) != null or (glob $"($HOME)/*" | is-not-empty)) {
    fail --code 2 ($"($SERVER_PACKAGE) or data in ($HOME) are on this server and are not of this extension; they are "
      + $"left alone. If nobody needs them: apt-get purge ($SERVER_PACKAGE), and remove ($HOME)")
  }
  note etcd [$SERVER_PACKAGE $CLIENT_PACKAGE] [] [$UNIT]
}

# Whether there are data, for certain: a service without any may be about to make them, and is stopped.
def settle []: nothing -> bool {
  if not (has-data) and not (succeeds systemctl is-failed --quiet $UNIT) {
    ^systemctl stop $UNIT | complete | ignore
  }
  has-data
}

# The package starts etcd at once. Our configuration lies there already, and a mask, which dpkg's scripts do not lift,
# keeps it from starting at all until the data folder is right.
def packages [] {
  let missing = ([$SERVER_PACKAGE $CLIENT_PACKAGE] | where {|package| (installed-version $package) == null })
  if $missing == [] { return }
  if $SERVER_PACKAGE in $missing { must systemctl mask --quiet $UNIT }
  for package in $missing {
    # Killed while it was unpacked: apt takes it for installed. Removed, not purged: a purge takes the data.
    if (is-half $package) { must dpkg --force-remove-reinstreq --remove $package }
    install-package $package
  }
}

def start [request: record, state: string, version: string] {
  if not ($DATA | path exists) { must install --directory --owner etcd --group etcd --mode 0700 $DATA }
  if (^systemctl is-enabled $UNIT | complete).stdout =~ "masked" { must systemctl unmask --quiet $UNIT }
  if (^systemctl show --value --property=NeedDaemonReload $UNIT | str trim) != "no" or not (uses-ours) {
    must systemctl daemon-reload
  }
  if not (succeeds systemctl is-enabled --quiet $UNIT) { must systemctl enable --quiet $UNIT }

  let digest = (digest (configuration $request $state) $version)
  let applied = (if ($APPLIED | path exists) { open --raw $APPLIED } else { "" })
  if $applied != $digest {
    progress "starting etcd with its configuration"
    # Stopped first: a restart that is only queued would let the old process answer for the new one.
    must systemctl stop $UNIT
    ^systemctl reset-failed $UNIT | complete | ignore
    must systemctl start --no-block $UNIT
    put $APPLIED $digest | ignore
  } else if not (succeeds systemctl is-active --quiet $UNIT) {
    progress "starting etcd"
    ^systemctl reset-failed $UNIT | complete | ignore
    must systemctl start --no-block $UNIT
  }
}

def uses-ours []: nothing -> bool {
  $OURS in (^systemctl show --value --property=ExecStart $UNIT)
}

# A member that was restarted gets half a minute to come back, so that installs one after the other never stop two.
# Nothing here is an error.
def tell-quorum [request: record, had_data: bool] {
  let port = $request.parameters.clientPort
  for try in 1..(if $had_data { 6 } else { 1 }) {
    if (reads $port) { return (progress "the cluster has a quorum") }
    let silent = (silent $request)
    progress $"no quorum yet(if $silent == [] { '' } else { $'; no answer from ($silent | str join ", ")' })"
    if $had_data { sleep 1sec }
  }
}
