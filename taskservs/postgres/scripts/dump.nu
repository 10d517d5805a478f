# Writes a dump of one database into a file on this server, for `pg_restore`, and removes the oldest ones.

use common.nu [fail must output progress]

const FOLDER = "/var/backups/postgresql"

def main [request: path] {
  let given = (open $request).parameters
  let part = $"($FOLDER)/($given.database).part"
  must install --directory --owner postgres --group postgres --mode 0700 $FOLDER
  let file = $"($FOLDER)/($given.database)-(date now | date to-timezone UTC | format date '%Y%m%dT%H%M%SZ').dump"
  # A killed run leaves no half dump under a good name.
  rm --force $part
  cd /
  let dump = ["--cluster" "15/main" "--no-password" "--format" "custom" "--dbname" $given.database "--file" $part]
  must runuser -u postgres -- pg_dump ...$dump
  must sync $part
  mv --force $part $file
  let sum = (must sha256sum $file | split row " " | first)
  let dumps = (glob $"($FOLDER)/($given.database)-????????T??????Z.dump" | sort)
  let old = ($dumps | drop $given.keep)
  $old | each {|one| rm --force $one } | ignore
  output file $file
  output bytes (ls $file | get 0.size | into int)
  output sha256 $sum
  progress $"($file) is written; ($dumps | length) dumps were there, ($old | length) of them removed"
}
