# Removes our site, and nginx with its configuration where it is there for nobody else. Nothing there: nothing to do.

use common.nu [fail must progress purge-packages succeeds]
use service.nu [BEFORE DEFAULT LINK PACKAGES PAGE PARKED SITE UNIT running-digest status-of]

const FOLDERS = ["/etc/nginx" "/var/lib/nginx" "/var/log/nginx"]

def main [request: path] {
  let port = (open $request).parameters.port? | default 80
  if not ($BEFORE | path exists) and not ($SITE | path exists) {
    progress "nothing of ours is here"
    return
  }
  # Without the note nobody knows who brought nginx: it stays.
  let before = (if ($BEFORE | path exists) { open --raw $BEFORE | decode utf-8 } else { "installed" })
  let others = (other-sites)
  if $before == "installed" or ($others | is-not-empty) {
    leave-nginx $port $before $others
  } else {
    remove-nginx $port
  }
  rm --recursive --force ($PAGE | path dirname)
  rm --recursive --force ($BEFORE | path dirname)
}

# What somebody else lets nginx serve.
def other-sites []: nothing -> list<string> {
  glob /etc/nginx/sites-enabled/* | append (glob /etc/nginx/conf.d/*.conf) | where $it not-in [$LINK $DEFAULT]
}

def leave-nginx [port: int, before: string, others: list<string>] {
  let why = (if $before == "installed" { "it was here before us" } else { $"it serves ($others | str join ', ')" })
  progress $"nginx stays: ($why)"
  rm --force $LINK $SITE
  if $before == "installed" and ($PARKED | path exists --no-symlink) {
    mv --force $PARKED $DEFAULT
  }
  rm --force $PARKED
  if (succeeds systemctl is-active --quiet $UNIT) {
    must nginx -t -q
    must systemctl reload $UNIT
    wait-until-gone $port
  }
  progress "our site is gone"
}

def wait-until-gone [port: int] {
  for try in 1..40 {
    if (running-digest $port) == null { return }
    sleep 250ms
  }
  fail $"our site still answers on port ($port) after the reload"
}

def remove-nginx [port: int] {
  if (succeeds systemctl is-active --quiet $UNIT) {
    progress "stopping nginx"
    must systemctl stop $UNIT
  }
  # Known to dpkg in whatever state: an installation may have been interrupted.
  let present = ($PACKAGES | where {|package| (status-of $package) != "not-installed" })
  if ($present | is-not-empty) {
    progress $"removing ($present | str join ', ')"
    purge-packages $present
  }
  rm --recursive --force ...$FOLDERS
  # The package makes this page and forgets it.
  rm --force /var/www/html/index.nginx-debian.html
  ^rmdir --ignore-fail-on-non-empty /var/www/html o+e>| ignore
  must systemctl daemon-reload
  for try in 1..40 {
    if not (listens $port) { break }
    sleep 250ms
  }
  if (listens $port) {
    fail $"nginx still listens on port ($port) after it was stopped"
  }
  progress "nginx is gone"
}

# Whether nginx, and not something else, has the port.
def listens [port: int]: nothing -> bool {
  (^ss -Hltnp $"sport = :($port)" | complete).stdout | str contains '"nginx"'
}
