# Builds a nest in the reed.
def main [request: path] {
  if not ("/srv/reed/stalk" | path exists) {
    print --stderr "no reed to build in"
    exit 1
  }
  "eggs" | save --force /srv/wren
}
