# Removes our file, and haproxy with its configuration where it is there for nobody else. Nothing there: nothing to do.

use before.nu [
  enabled-as-before forget noted remove-new rm-aside running-as-before set-aside take-away was-installed
]
use common.nu [must progress succeeds wait-until-closed]
use service.nu [DEBIANS DROPIN OURS UNIT]

def main [request: path] {
  let port = (open $request).parameters.port? | default 80
  let before = (noted haproxy)
  if $before == null {
    progress "no haproxy of this extension is here: nothing to do"
    return
  }
  if (was-installed $before haproxy) {
    leave-haproxy $before "it was here before us"
  } else if (has-others) {
    leave-haproxy $before $"($DEBIANS) has proxies that are not ours"
  } else {
    remove-haproxy $before $port
  }
  # Last: an interrupted run needs it again.
  forget haproxy
}

# Whether somebody else uses this haproxy.
def has-others []: nothing -> bool {
  ($DEBIANS | path exists) and (open --raw $DEBIANS | decode utf-8 | lines | any { $in =~ '^\s*(listen|frontend)\s' })
}

# The restart takes our file off the command line.
def leave-haproxy [before: record, why: string] {
  progress $"haproxy stays: ($why)"
  if (set-aside $DROPIN) {
    must systemctl daemon-reload
    if (was-installed $before haproxy) {
      enabled-as-before $before $UNIT
      running-as-before $before $UNIT
    } else if (succeeds systemctl is-active --quiet $UNIT) {
      must systemctl restart $UNIT
    }
  }
  rm --force $OURS $"($OURS).new"
  rm-aside $DROPIN
  rmdir-if-empty ($DROPIN | path dirname)
  progress "our configuration is gone"
}

def remove-haproxy [before: record, port: int] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping haproxy"
    must systemctl stop $UNIT
    wait-until-closed haproxy $port
  }
  take-away $before ["haproxy"]
  rm --force $DROPIN $OURS $"($OURS).new"
  rm-aside $DROPIN
  rmdir-if-empty ($DROPIN | path dirname)
  rmdir-if-empty /etc/haproxy
  remove-new $before ["/var/lib/haproxy" "/run/haproxy"]
  must systemctl daemon-reload
  progress "haproxy is gone"
}

def rmdir-if-empty [folder: string] {
  ^rmdir --ignore-fail-on-non-empty $folder o+e>| ignore
}
