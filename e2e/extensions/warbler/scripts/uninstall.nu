# Leaves the nest, which takes the reed to stand on.
def main [request: path] {
  if not ("/srv/reed/stalk" | path exists) {
    print --stderr "the reed went first"
    exit 1
  }
  rm --force /srv/warbler
}
