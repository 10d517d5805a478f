# Installs PostgreSQL, configures it by files of our own, creates role and database, and logs in.

use before.nu [finish-purge note]
use common.nu [fail install-package installed-version must output progress put succeeds]
use service.nu *

const PACKAGES = ["postgresql-15" "postgresql" "postgresql-client-15" "postgresql-common" "postgresql-client-common"]

def main [request: path] {
  let request = (open $request)
  let given = $request.parameters
  let problems = (problems-of $request)
  if ($problems | is-not-empty) { fail --code 2 ($problems | str join "\n") }

  note postgres $PACKAGES [$FOLDER $DATA ...$FOLDERS] [$UNIT $ALL]
  finish-purge postgres
  if (installed-version $PACKAGE) == null {
    put $NO_CLUSTER "create_main_cluster = false\n" | ignore
    install-package $PACKAGE
  }
  rm --force $NO_CLUSTER
  create-cluster
  configure $request
  start $given.port (wanted-settings $request)
  load-hba $given.port
  create-role-and-database $given
  log-in $request

  let version = (installed-version $PACKAGE)
  output version $version
  output port $given.port
  output hostname $request.server.hostname
  output address $request.server.address
  output database $given.database
  output user $given.user
  progress $"postgresql ($version) answers on port ($given.port)"
}

# What the schema cannot say.
def problems-of [request: record]: nothing -> list<string> {
  let given = $request.parameters
  let addresses = (if $given.listenAddress == "*" { [] } else { $given.listenAddress | split row "," })
  let networks = ($given.allowedNetworks | each { split row "/" | first })
  let password = $request.secrets.password
  [
    ...($addresses | where {|text| not (is-address $text) } | each {|text|
      $"parameter listenAddress: ($text) is not an IP address"
    })
    ...($networks | where {|text| not (is-address $text) } | each {|text|
      $"parameter allowedNetworks: ($text) is not an IP address"
    })
    ...(if (bytes-of $given.sharedBuffers) >= (sys mem | get total | into int) {
      [$"parameter sharedBuffers: ($given.sharedBuffers) is more than this server's memory"]
    } else { [] })
    ...(if ($password | is-empty) or $password =~ '[\r\n\x00]' {
      ["secret password is empty or has a line break"]
    } else { [] })
  ]
}

# Perl is in every Debian.
def is-address [text: string]: nothing -> bool {
  succeeds perl -MSocket=:all -e 'exit !defined inet_pton($ARGV[0] =~ /:/ ? AF_INET6 : AF_INET, $ARGV[0])' $text
}

# Makes the cluster 15/main where there is none. One that was there before is used as it is.
def create-cluster [] {
  if ($CREATING | path exists) {
    rm --recursive --force $FOLDER $DATA
  } else if ($"($FOLDER)/postgresql.conf" | path exists) {
    return
  }
  progress "creating the database cluster"
  # Data without configuration is somebody's, who wants it to be used.
  if not ($DATA | path exists) {
    put $CREATING "" | ignore
  }
  cd /
  must pg_createcluster --locale C.UTF-8 --encoding UTF8 "15" main
  # Only what is whole on the disk may lose its mark, and that for good: data comes next.
  must sync
  rm --force $CREATING
  must sync --file-system ($CREATING | path dirname)
}

def configure [request: record] {
  let given = $request.parameters
  let text = ([
    "# Written by provisioning; changes are overwritten."
    $"listen_addresses = '($given.listenAddress)'"
    $"port = ($given.port)"
    $"max_connections = ($given.maxConnections)"
    $"shared_buffers = ($given.sharedBuffers)"
    "password_encryption = 'scram-sha-256'"
    $"cluster_name = '($request.server.hostname)'"
    ""
  ] | str join "\n")
  write $OURS $text

  write $HBA $"(hba-block $given)(others-rules)"

  if not (is-started-at-boot) {
    if ($START | path exists) and not ($START_BEFORE | path exists) {
      write $START_BEFORE (open --raw $START | decode utf-8)
    }
    write $START "auto\n"
    must systemctl enable --quiet $ALL
    must systemctl daemon-reload
  }
}

def write [file: string, text: string] {
  put --mode 0640 --owner postgres:postgres $file $text | ignore
}

# Starts it, and restarts what runs with other settings: the server itself says with which it runs.
def start [port: int, wanted: record] {
  if not (succeeds systemctl is-active --quiet $ALL) { must systemctl start $ALL }
  if not (succeeds systemctl is-active --quiet $UNIT) {
    progress "starting PostgreSQL"
    succeeds systemctl start $UNIT
  }
  # Also after a start: a killed run may have left one under way, with the former settings.
  let is_elsewhere = ((state-of $port) == "silent" and (succeeds systemctl is-active --quiet $UNIT))
  if $is_elsewhere or (wait-and-compare $port $wanted | is-not-empty) {
    progress "restarting PostgreSQL with its configuration"
    succeeds systemctl restart $UNIT
  }
  let differ = (wait-and-compare $port $wanted)
  if ($differ | is-not-empty) { fail $"PostgreSQL runs with other settings: ($differ | str join '; ')" }
}

def wait-and-compare [port: int, wanted: record]: nothing -> list<string> {
  wait-until-ready $port 240
  differences $port $wanted
}

def load-hba [port: int] {
  let errors = (hba-errors $port)
  if ($errors | is-not-empty) { fail $errors }
  if not (hba-is-newer $port) { return }
  progress "loading pg_hba.conf"
  must systemctl reload $UNIT
  for try in 1..20 {
    if not (hba-is-newer $port) { return }
    sleep 250ms
  }
  fail "PostgreSQL did not load its changed pg_hba.conf"
}

# Each statement runs only where it changes something. With another `user` what the former owner has in the database
# becomes the new one's; a superuser's belongings stay.
def create-role-and-database [given: record] {
  let names = {user: $given.user, database: $given.database}
  must-ask $given.port "
    SELECT format('CREATE ROLE %I', :'user')
      WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \\gexec
    SELECT format('ALTER ROLE %I LOGIN', rolname) FROM pg_roles WHERE rolname = :'user' AND NOT rolcanlogin \\gexec
    SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8'' LOCALE ''C.UTF-8''', :'database',
      :'user') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \\gexec
    SELECT datdba::regrole::text <> quote_ident(:'user') AS other, rolsuper, rolname AS owner
      FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba WHERE datname = :'database' \\gset
    \\if :other
      \\if :rolsuper
        ALTER DATABASE :\"database\" OWNER TO :\"user\";
      \\else
        \\connect :\"database\"
        REASSIGN OWNED BY :\"owner\" TO :\"user\";
      \\endif
    \\endif
  " $names | ignore
}

# A login that works needs no new password.
def log-in [request: record] {
  let given = $request.parameters
  if (login $request).exit_code == 0 { return }
  progress $"setting the password of ($given.user)"
  set-password $given.port $given.user $request.secrets.password
  let answer = (login $request)
  if $answer.exit_code != 0 { fail $"($given.user) cannot log in: ($answer.stderr | str trim)" }
}
