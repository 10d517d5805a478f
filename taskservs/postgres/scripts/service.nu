# How PostgreSQL is on a server: Debian's cluster 15/main, and how it is asked.

use common.nu [fail succeeds]

export const PACKAGE = "postgresql-15"
export const UNIT = "postgresql@15-main.service"
# Debian's service for all clusters; what is enabled is this one.
export const ALL = "postgresql.service"
export const FOLDER = "/etc/postgresql/15/main"
export const DATA = "/var/lib/postgresql/15/main"
export const HBA = "/etc/postgresql/15/main/pg_hba.conf"
export const START = "/etc/postgresql/15/main/start.conf"
# What start.conf said before us, where the cluster was there.
export const START_BEFORE = "/etc/postgresql/15/main/provisioning.start"
# The package's own postgresql.conf includes the files of conf.d, after its own words.
export const OURS = "/etc/postgresql/15/main/conf.d/provisioning.conf"
# All clusters of the version.
export const FOLDERS = ["/etc/postgresql/15" "/var/lib/postgresql/15"]
# While this is there, the package makes no cluster: one that it was killed in the middle of could not be told from a
# good one.
export const NO_CLUSTER = "/etc/postgresql-common/createcluster.d/provisioning.conf"
# While this is there, the cluster is being made, or removed, and is worth nothing.
export const CREATING = "/var/lib/postgresql/15/provisioning.creating"

const BIN = "/usr/lib/postgresql/15/bin"
const SOCKETS = "/var/run/postgresql"
const LOG = "/var/log/postgresql/postgresql-15-main.log"

# The settings that we want, as PostgreSQL's own view pg_settings shows them, but sizes in bytes.
export def wanted-settings [request: record]: nothing -> record {
  let given = $request.parameters
  {
    port: ($given.port | into string)
    listen_addresses: $given.listenAddress
    max_connections: ($given.maxConnections | into string)
    shared_buffers: (bytes-of $given.sharedBuffers | into string)
    password_encryption: "scram-sha-256"
    # Which server answers, over the connection itself.
    cluster_name: $request.server.hostname
  }
}

# Bytes of a size such as 128MB; PostgreSQL counts by 1024.
export def bytes-of [size: string]: nothing -> int {
  let parts = ($size | parse --regex '^(?<number>\d+)(?<unit>[MG])B$' | first)
  ($parts.number | into int) * (if $parts.unit == "M" { 1024 ** 2 } else { 1024 ** 3 })
}

# The lines at the head of pg_hba.conf, where the first rule that fits decides: nobody's `trust` below makes the
# password void, and nobody's `reject` shuts us out.
export def hba-block [parameters: record]: nothing -> string {
  let names = $'"($parameters.database)" "($parameters.user)"'
  [
    "# BEGIN provisioning: changes up to END are overwritten."
    "local all postgres peer"
    ...(["samehost" ...$parameters.allowedNetworks] | each {|network| $"host ($names) ($network) scram-sha-256" })
    "# END provisioning"
    ""
  ] | str join "\n"
}

# pg_hba.conf without our lines.
export def others-rules []: nothing -> string {
  open --raw $HBA | decode utf-8 | str replace --regex '(?s)# BEGIN provisioning.*?\n# END provisioning\n' ""
}

# Asks as the superuser, over the socket. The answer of `complete`; SQL comes by stdin, values as psql's variables.
export def ask [port: int, sql: string, values: record = {}]: nothing -> record {
  let variables = ($values | items {|name, value| [--variable $"($name)=($value)"] } | flatten)
  cd /
  ($sql | ^timeout 60 runuser -u postgres -- $"($BIN)/psql" --no-psqlrc --quiet --no-align --tuples-only --no-password
    --set ON_ERROR_STOP=1 --host $SOCKETS --port ($port | into string) --dbname postgres ...$variables | complete)
}

# Like `ask`; where it fails the script ends with PostgreSQL's words.
export def must-ask [port: int, sql: string, values: record = {}]: nothing -> string {
  let result = (ask $port $sql $values)
  if $result.exit_code != 0 { fail $"PostgreSQL refused: ($result.stderr | str trim)" }
  $result.stdout | str trim
}

# Logs in with the user's password over TCP and asks who answers. The answer of `complete`.
export def login [request: record]: nothing -> record {
  let given = $request.parameters
  let sql = "SELECT current_user, current_database(), current_setting('cluster_name')"
  with-env {PGPASSWORD: $request.secrets.password, PGCONNECT_TIMEOUT: "5"} {
    (^timeout 10 $"($BIN)/psql" --no-psqlrc --no-align --tuples-only --no-password
      --host (own-address $given.listenAddress) --port ($given.port | into string)
      --username $given.user --dbname $given.database --command $sql | complete)
  }
}

# Sets the password. psql's \password sends only its SCRAM digest, so no log of statements ever has the password.
# Without a terminal (setsid) it reads from stdin, twice.
export def set-password [port: int, user: string, password: string] {
  cd /
  let result = ($"($password)\n($password)\n" | ^setsid --wait runuser -u postgres -- $"($BIN)/psql" --no-psqlrc --quiet
    --no-password --host $SOCKETS --port ($port | into string) --dbname postgres --command $'\password "($user)"'
    | complete)
  if $result.exit_code != 0 { fail $"the password of ($user) could not be set: ($result.stderr | str trim)" }
}

# The address under which this machine itself reaches PostgreSQL.
export def own-address [listen: string]: nothing -> string {
  match ($listen | split row "," | first) {
    "*" | "0.0.0.0" => "127.0.0.1"
    "::" => "::1"
    $address => $address
  }
}

# Whether PostgreSQL takes connections on its port: ready, starting (it may be replaying its log), or silent.
export def state-of [port: int]: nothing -> string {
  let asked = (^$"($BIN)/pg_isready" --quiet --timeout 3 --host $SOCKETS --port ($port | into string) | complete)
  match $asked.exit_code { 0 => "ready", 1 => "starting", _ => "silent" }
}

# Waits until it takes connections. Debian's unit says success also where PostgreSQL did not start.
export def wait-until-ready [port: int, tries: int] {
  for try in 1..$tries {
    if (state-of $port) == "ready" { return }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 500ms
  }
  if not (succeeds systemctl is-active --quiet $UNIT) {
    let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
    fail $"(last-words)\n($UNIT) is not active: ($why)"
  }
  fail $"(last-words)\nPostgreSQL does not take connections on port ($port)"
}

# What differs from the settings that we want, in words: a list for people.
export def differences [port: int, wanted: record]: nothing -> list<string> {
  let names = ($wanted | columns | each {|name| $"'($name)'" } | str join ", ")
  let found = (must-ask $port $"SELECT json_object_agg\(name, json_build_object\(
      'value', CASE unit WHEN '8kB' THEN \(setting::bigint * 8192\)::text ELSE setting END,
      'source', coalesce\(sourcefile, source\)\)\) FROM pg_settings WHERE name IN \(($names)\)" | from json)
  $wanted | columns | where {|name| ($found | get $name).value != ($wanted | get $name) } | each {|name|
    let is = ($found | get $name)
    $"($name) is ($is.value) \(from ($is.source)\), not ($wanted | get $name)"
  }
}

# Whether pg_hba.conf is newer than what the server has loaded. (A rename changes ctime.)
export def hba-is-newer [port: int]: nothing -> bool {
  let changed = (^stat --format %.6Z $HBA | str trim)
  (must-ask $port "SELECT pg_conf_load_time() < to_timestamp(:'changed'::numeric)" {changed: $changed}) == "t"
}

# What PostgreSQL does not understand in pg_hba.conf as it is on the disk; with an error there it would not start again.
export def hba-errors [port: int]: nothing -> string {
  must-ask $port "SELECT 'pg_hba.conf line ' || line_number || ': ' || error FROM pg_hba_file_rules WHERE error <> ''"
}

export def is-started-at-boot []: nothing -> bool {
  let mode = (if ($START | path exists) { open --raw $START } else { "" })
  (succeeds systemctl is-enabled --quiet $ALL) and ($mode | lines | str trim | any {|line| $line == "auto" })
}

def last-words []: nothing -> string {
  let log = (if ($LOG | path exists) { open --raw $LOG | lines | last 5 | str join "\n" } else { "" })
  let journal = (^journalctl --unit $UNIT --lines 3 --no-pager --output cat | complete).stdout
  $"($log)\n($journal | str trim)" | str trim
}
