# Installs redis, configures it by a file of our own, and waits until it answers.

use common.nu [fail install-package installed-version must output progress]
use parameters.nu [is-loopback resolve]
use service.nu [APPLIED CONFIG OURS UNIT wait-for-pong]

def main [request: path] {
  let request = (open $request)
  let resolved = (resolve $request.parameters)
  if ($resolved.problems | is-not-empty) {
    fail --code 2 ($resolved.problems | str join "\n")
  }
  let values = $resolved.values

  if not (is-installed $values.package) {
    install-package $values.package
  }
  let version = (installed-version redis-server)
  if $version == null {
    fail --code 2 $"package ($values.package) does not bring redis-server"
  }
  configure $values $request.server.hostname
  wait-for-pong $values 120

  output version $version
  output port $values.port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"redis ($version) answers on port ($values.port)"
}

def is-installed [package: string]: nothing -> bool {
  let parts = ($package | split row "=" --number 2)
  let version = (installed-version $parts.0)
  $version != null and (($parts | length) == 1 or $parts.1 == $version)
}

# Writes our file, includes it at the end of the package's own (the last word counts), and restarts what runs with
# another configuration.
def configure [values: record, hostname: string] {
  let text = ([
    "# Written by provisioning; changes are overwritten."
    $"bind ($values.bind)"
    $"port ($values.port)"
    $"protected-mode (if (is-loopback $values.bind) { 'yes' } else { 'no' })"
    $"maxmemory ($values.maxmemory)"
    "appendonly yes"
    $"syslog-ident ($hostname)"
    ""
  ] | str join "\n")
  if not ($OURS | path exists) or (open --raw $OURS) != $text {
    $text | save --force $"($OURS).new"
    must chown root:redis $"($OURS).new"
    must chmod 0640 $"($OURS).new"
    mv --force $"($OURS).new" $OURS
  }
  let include = $"include ($OURS)"
  if $include not-in (open --raw $CONFIG | lines) {
    $"\n($include)\n" | save --append $CONFIG
  }

  let digest = ($"($text)(installed-version redis-server)" | hash sha256)
  let applied = (if ($APPLIED | path exists) { open --raw $APPLIED } else { "" })
  must systemctl enable --quiet $UNIT
  if $applied != $digest {
    progress "restarting redis with its configuration"
    must systemctl restart $UNIT
    $digest | save --force $APPLIED
  } else {
    must systemctl start $UNIT
  }
}
