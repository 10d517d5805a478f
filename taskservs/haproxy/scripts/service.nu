# How haproxy is on a server.

use common.nu [fail succeeds]

export const UNIT = "haproxy.service"
export const DEBIANS = "/etc/haproxy/haproxy.cfg"
export const OURS = "/etc/haproxy/provisioning.cfg"
export const DROPIN = "/etc/systemd/system/haproxy.service.d/provisioning.conf"
export const SOCKET = "/run/haproxy/provisioning.sock"
export const FOLDERS = ["/etc/haproxy" "/var/lib/haproxy"]
# Name of the backend of our file that holds the servers.
export const POOL = "provisioning"

# Lets the service read our file after Debian's own, whatever an administrator says in /etc/default/haproxy.
export const DROPIN_TEXT = "# Written by provisioning; changes are overwritten.
[Service]
ExecStart=
ExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -f /etc/haproxy/provisioning.cfg -p $PIDFILE $EXTRAOPTS
ExecReload=
ExecReload=/usr/sbin/haproxy -Ws -f $CONFIG -f /etc/haproxy/provisioning.cfg -c -q $EXTRAOPTS
ExecReload=/bin/kill -USR2 $MAINPID
"

# Debian's perl-base is on every server; it is what can speak to a socket here.
const TALK = '
  alarm 5;
  my $socket = IO::Socket::UNIX->new($ARGV[0]) or die "$ARGV[0]: $!\n";
  print $socket "$ARGV[1]\n";
  print while <$socket>;
'

# Asks haproxy by its admin socket; null where it does not answer.
export def ask [command: string]: nothing -> any {
  let result = (^perl -MIO::Socket::UNIX -e $TALK $SOCKET $command | complete)
  if $result.exit_code == 0 { $result.stdout } else { null }
}

# Digest of the configuration that the running haproxy has, or null.
export def running-digest []: nothing -> any {
  ask "show env PROVISIONING_CONFIG" | default "" | parse "PROVISIONING_CONFIG={digest}" | get --optional 0.digest
    | if $in == null { null } else { $in | str trim }
}

# What haproxy thinks of its backends, once it has asked each of them.
export def backends []: nothing -> list<record<name: string, state: string, why: string>> {
  for try in 1..40 {
    let states = (states)
    if ($states | is-not-empty) and ($states | all {|backend| $backend.why not-in ["" "INI"] }) { return $states }
    sleep 250ms
  }
  states
}

def states []: nothing -> list<record<name: string, state: string, why: string>> {
  ask $"show stat ($POOL) 4 -1" | default "" | str trim --left --char "#" | str trim | from csv --no-infer
    | each {|row| {
      name: $row.svname
      state: ($row.status | split row " " | first)
      why: ($row.check_status | str trim --left --char "*" | str trim)
    } }
}

# Waits until haproxy runs with this configuration.
export def wait-for [digest: string, tries: int] {
  for try in 1..$tries {
    if (running-digest) == $digest { return }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 250ms
  }
  let log = (^journalctl --unit $UNIT --lines 8 --no-pager --output cat | complete).stdout
  let state = ((^systemctl is-active $UNIT | complete).stdout | str trim)
  let why = (if $state != "active" {
    $"($UNIT) is not active: ($state)"
  } else if (running-digest) == null {
    $"haproxy does not answer on ($SOCKET), or runs without our configuration"
  } else {
    "haproxy runs with another configuration than ours"
  })
  fail $"($log | str trim)\n($why)"
}
