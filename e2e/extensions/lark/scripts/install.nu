# Settles slowly, so that whoever does not wait comes first.
def main [request: path] {
  sleep 5sec
  "song" | save --force /srv/lark
}
