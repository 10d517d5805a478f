# Installs redis, configures it by a file of our own, and waits until it answers.

use common.nu [fail install-package installed-version must output progress succeeds]
use packages.nu remember
use service.nu [APPLIED CONFIG OURS UNIT password-of wait-for-pong wanted]

def main [request: path] {
  let request = (open $request)
  let given = $request.parameters
  let password = (password-of $request)
  if $password =~ '[\r\n\x00]' {
    fail --code 2 "secret password has a line break"
  }

  if not (is-installed $given.package) {
    remember redis ["redis-tools"]
    install-package $given.package
  }
  let version = (installed-version redis-server)
  if $version == null {
    fail --code 2 $"package ($given.package) does not bring redis-server"
  }
  configure (wanted $request) $password
  wait-for-pong $request 120

  output version $version
  output port $given.port
  output hostname $request.server.hostname
  output address $request.server.address
  progress $"redis ($version) answers on port ($given.port)"
}

def is-installed [package: string]: nothing -> bool {
  let parts = ($package | split row "=" --number 2)
  let version = (installed-version $parts.0)
  $version != null and (($parts | length) == 1 or $parts.1 == $version)
}

# Writes our file, includes it at the end of the package's own (the last word counts), and restarts what runs with
# another configuration.
def configure [wanted: record, password: string] {
  # Byte by byte: no character of a password then means anything to redis.conf.
  let secret = (if $password == "" { [] } else {
    [$"requirepass \"($password | encode utf-8 | encode hex | str replace --all --regex '(..)' '\x$1')\""]
  })
  let text = ([
    "# Written by provisioning; changes are overwritten."
    ...($wanted | items {|name, value| $"($name) ($value)" })
    ...$secret
    ""
  ] | str join "\n")
  let digest = ($"($text)(installed-version redis-server)" | hash sha256)
  let applied = (if ($APPLIED | path exists) { open --raw $APPLIED } else { "" })
  # Forgotten first: a killed run's configuration may be the one that runs, though a later run wants the former again.
  if $applied != $digest { rm --force $APPLIED }
  if not ($OURS | path exists) or (open --raw $OURS) != $text {
    write $OURS $text
  }
  let include = $"include ($OURS)"
  if $include not-in (open --raw $CONFIG | lines) {
    $"\n($include)\n" | save --append $CONFIG
  }

  if not (succeeds systemctl is-enabled --quiet $UNIT) { must systemctl enable --quiet $UNIT }
  if $applied != $digest {
    progress "starting redis with its configuration"
    # Its failed starts with a former configuration do not count.
    ^systemctl reset-failed $UNIT | complete | ignore
    must systemctl restart $UNIT
    write $APPLIED $digest
  } else if not (succeeds systemctl is-active --quiet $UNIT) {
    progress "starting redis"
    must systemctl start $UNIT
  }
}

# A file that only redis reads: it may hold the password, or tell of it.
def write [file: string, text: string] {
  "" | save --force $"($file).new"
  must chmod 0600 $"($file).new"
  must chown redis:redis $"($file).new"
  $text | save --force $"($file).new"
  mv --force $"($file).new" $file
}
