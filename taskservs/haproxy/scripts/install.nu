# Installs haproxy, lets it read a file of ours, and waits until it runs with it. Backends may come later.

use before.nu [finish-purge note]
use common.nu [fail install-package installed-version must output progress put succeeds]
use config.nu configuration
use service.nu [DEBIANS DROPIN DROPIN_TEXT FOLDERS OURS UNIT backends running-digest wait-for]

def main [request: path] {
  let request = (open $request)
  let config = (configuration $request)

  note haproxy ["haproxy"] $FOLDERS [$UNIT]
  finish-purge haproxy
  if (installed-version haproxy) == null {
    install-package haproxy
  }
  let changed = (configure $config.text)
  must systemctl enable --quiet $UNIT
  start $config.digest $changed
  wait-for $config.digest 80

  let version = (installed-version haproxy)
  let backends = (backends | each {|backend| $"($backend.name)=($backend.state)" } | str join ",")
  output version $version
  output port $request.parameters.port
  output hostname $request.server.hostname
  output address $request.server.address
  output backends $backends
  progress $"haproxy ($version) runs on port ($request.parameters.port): ($backends)"
}

# A configuration that haproxy refuses never gets in place. Says whether it is another one than before.
def configure [text: string]: nothing -> bool {
  let changed = not ($OURS | path exists) or (open --raw $OURS | decode utf-8) != $text
  if $changed {
    $text | save --force $"($OURS).new"
    let test = (^haproxy -c -f $DEBIANS -f $"($OURS).new" | complete)
    if $test.exit_code != 0 {
      rm --force $"($OURS).new"
      fail $"($test.stderr | str trim)\nhaproxy refuses our configuration together with ($DEBIANS)"
    }
    must chmod 0644 $"($OURS).new"
    mv --force $"($OURS).new" $OURS
  }
  put $DROPIN $DROPIN_TEXT | ignore
  if (^systemctl show --property NeedDaemonReload --value $UNIT | str trim) == "yes" {
    must systemctl daemon-reload
  }
  $changed
}

# Starts, restarts or reloads, whichever is the least that is needed. What runs is asked of haproxy itself: an
# interrupted run may have written our file and not come to the reload.
def start [digest: string, changed: bool] {
  if not (succeeds systemctl is-active --quiet $UNIT) {
    progress "starting haproxy"
    ^systemctl reset-failed $UNIT | complete | ignore
    must systemctl start $UNIT
    return
  }
  if not $changed and (running-digest) == $digest { return }
  let pid = (^systemctl show --property MainPID --value $UNIT | str trim)
  if $OURS in (open --raw $"/proc/($pid)/cmdline" | decode utf-8 | split row (char nul)) {
    progress "reloading haproxy with its configuration"
    must systemctl reload $UNIT
  } else {
    # It was started before it knew of our file; a reload keeps the command line.
    progress "restarting haproxy with our file"
    must systemctl restart $UNIT
  }
}
