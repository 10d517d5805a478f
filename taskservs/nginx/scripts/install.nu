# Installs nginx, gives it our site in place of Debian's default one, and waits until it answers with it.

use before.nu [finish-purge note]
use common.nu [fail install-package installed-version must output progress put succeeds]
use service.nu [DEFAULT FOLDERS LINK PACKAGES PAGE PARKED SITE UNIT page running-digest site wait-for]

def main [request: path] {
  let request = (open $request)
  let port = $request.parameters.port

  note nginx $PACKAGES $FOLDERS [$UNIT]
  finish-purge nginx
  if (installed-version nginx) == null {
    install-package nginx
  }
  let version = (installed-version nginx)
  let changed = (configure $request)
  let site = (site $request)
  must systemctl enable --quiet $UNIT
  let active = (succeeds systemctl is-active --quiet $UNIT)
  # Asked of nginx itself: an interrupted run may have written the site and not come to the reload.
  let reloads = $active and ($changed or (running-digest $port) != $site.digest)
  if not $active {
    progress "starting nginx"
    must systemctl start $UNIT
  } else if $reloads {
    progress "reloading nginx with our site"
    must systemctl reload $UNIT
  }
  wait-for $port $site.digest 80
  if $reloads {
    # nginx lets its former workers accept for another 100 ms.
    sleep 250ms
  }

  output version $version
  output port $port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"nginx ($version) answers on port ($port)"
}

# Page, site and link. A site that nginx refuses is taken back: what runs would not survive a reboot with it.
# Says whether there is something to reload for; a page is read anew by each request.
def configure [request: record]: nothing -> bool {
  put $PAGE (page $request) | ignore
  let parks = ($DEFAULT | path exists --no-symlink)
  if $parks {
    mv --force $DEFAULT $PARKED
  }
  let former = (if ($SITE | path exists) { open --raw $SITE | decode utf-8 } else { null })
  let writes = (put $SITE (site $request).text)
  let links = not ($LINK | path exists)
  if $links {
    must ln --symbolic --force --no-dereference $SITE $LINK
  }
  let test = (^nginx -t -q | complete)
  if $test.exit_code != 0 {
    if $former != null {
      put $SITE $former | ignore
    } else {
      rm --force $LINK $SITE
      if ($PARKED | path exists --no-symlink) { mv --force $PARKED $DEFAULT }
    }
    fail $"($test.stderr | str trim)\nnginx refuses our site together with the other configuration of this server"
  }
  $parks or $writes or $links
}
