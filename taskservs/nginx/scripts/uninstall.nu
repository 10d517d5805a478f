# Removes our site, and nginx with its configuration where it is there for nobody else. Nothing there: nothing to do.

use before.nu [enabled-as-before forget noted ran-before remove-new take-away was-installed]
use common.nu [fail must progress succeeds wait-until-closed]
use service.nu [DEFAULT FOLDERS LINK PACKAGES PAGE PARKED SITE UNIT running-digest]

def main [request: path] {
  let port = (open $request).parameters.port? | default 80
  let before = (noted nginx)
  if $before == null {
    progress "no nginx of this extension is here: nothing to do"
    return
  }
  let others = (other-sites)
  if (was-installed $before nginx) or ($others | is-not-empty) {
    leave-nginx $port $before $others
  } else {
    remove-nginx $port $before
  }
  rm --recursive --force ($PAGE | path dirname)
  # Last: an interrupted run needs it again.
  forget nginx
}

# What somebody else lets nginx serve.
def other-sites []: nothing -> list<string> {
  glob /etc/nginx/sites-enabled/* | append (glob /etc/nginx/conf.d/*.conf) | where $it not-in [$LINK $DEFAULT]
}

# The site goes last: while it is there, nginx may still serve it.
def leave-nginx [port: int, before: record, others: list<string>] {
  let was_here = (was-installed $before nginx)
  progress $"nginx stays: (if $was_here { 'it was here before us' } else { $'it serves ($others | str join ", ")' })"
  rm --force $LINK
  if $was_here and ($PARKED | path exists --no-symlink) {
    mv --force $PARKED $DEFAULT
  }
  rm --force $PARKED
  let had_site = ($SITE | path exists)
  if $had_site and $was_here { enabled-as-before $before $UNIT }
  if $had_site and (succeeds systemctl is-active --quiet $UNIT) {
    if $was_here and not (ran-before $before $UNIT) {
      must systemctl stop $UNIT
    } else {
      must nginx -t -q
      must systemctl reload $UNIT
      wait-until-gone $port
    }
  }
  rm --force $SITE $"($SITE).new"
  progress "our site is gone"
}

def wait-until-gone [port: int] {
  for try in 1..40 {
    if (running-digest $port) == null { return }
    sleep 250ms
  }
  fail $"our site still answers on port ($port) after the reload"
}

def remove-nginx [port: int, before: record] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping nginx"
    must systemctl stop $UNIT
    wait-until-closed nginx $port
  }
  rm --force $LINK $SITE $"($SITE).new"
  if ($PARKED | path exists --no-symlink) { mv --force $PARKED $DEFAULT }
  take-away $before $PACKAGES
  remove-new $before $FOLDERS
  # The package makes this page and forgets it.
  rm --force /var/www/html/index.nginx-debian.html
  ^rmdir --ignore-fail-on-non-empty /var/www/html o+e>| ignore
  must systemctl daemon-reload
  progress "nginx is gone"
}
