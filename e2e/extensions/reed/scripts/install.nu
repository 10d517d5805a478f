# Plants the reed.
def main [request: path] {
  mkdir /srv/reed
  "a stalk" | save --force /srv/reed/stalk
}
