# Removes our file, and haproxy with its configuration where it is there for nobody else. Nothing there: nothing to do.

use common.nu [fail must progress purge-packages succeeds]
use service.nu [BEFORE DEBIANS DROPIN OURS UNIT status-of]

def main [request: path] {
  let port = (open $request).parameters.port? | default 80
  if not ($BEFORE | path exists) and not ($OURS | path exists) and not ($DROPIN | path exists) {
    progress "nothing of ours is here"
    return
  }
  # Without the note nobody knows who brought haproxy: it stays.
  let before = (if ($BEFORE | path exists) { open --raw $BEFORE | decode utf-8 } else { "installed" })
  if $before == "installed" {
    leave-haproxy "it was here before us"
  } else if (has-others) {
    leave-haproxy $"($DEBIANS) has proxies that are not ours"
  } else {
    remove-haproxy
  }
  for try in 1..40 {
    if not (listens $port) { break }
    sleep 250ms
  }
  if $before != "installed" and not (has-others) and (listens $port) {
    fail $"haproxy still listens on port ($port) after it was stopped"
  }
  rm --recursive --force ($BEFORE | path dirname)
}

# Whether somebody else uses this haproxy.
def has-others []: nothing -> bool {
  ($DEBIANS | path exists) and (open --raw $DEBIANS | decode utf-8 | lines | any { $in =~ '^\s*(listen|frontend)\s' })
}

# The restart takes our file off the command line; it is skipped where an interrupted run came that far.
def leave-haproxy [why: string] {
  progress $"haproxy stays: ($why)"
  let restart = (($DROPIN | path exists) or ($OURS | path exists)) and (succeeds systemctl is-active --quiet $UNIT)
  rm --force $DROPIN
  rmdir-if-empty ($DROPIN | path dirname)
  must systemctl daemon-reload
  if $restart {
    must systemctl restart $UNIT
  }
  rm --force $OURS $"($OURS).new"
  progress "our configuration is gone"
}

def remove-haproxy [] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping haproxy"
    must systemctl stop $UNIT
  }
  # Known to dpkg in whatever state: an installation may have been interrupted.
  if (status-of haproxy) != "not-installed" {
    progress "removing haproxy"
    purge-packages ["haproxy"]
  }
  rm --force $DROPIN $"($DROPIN).new" $OURS $"($OURS).new"
  rmdir-if-empty ($DROPIN | path dirname)
  rmdir-if-empty /etc/haproxy
  rm --recursive --force /var/lib/haproxy /run/haproxy
  must systemctl daemon-reload
  progress "haproxy is gone"
}

def rmdir-if-empty [folder: string] {
  ^rmdir --ignore-fail-on-non-empty $folder o+e>| ignore
}

# Whether haproxy, and not something else, has the port.
def listens [port: int]: nothing -> bool {
  (^ss -Hltnp $"sport = :($port)" | complete).stdout | str contains '"haproxy"'
}
