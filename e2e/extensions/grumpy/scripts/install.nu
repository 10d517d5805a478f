# Fails in the way of a script that knows why.
def main [request: path] {
  print ({event: "progress", message: "looking for a place in the marsh"} | to json --raw)
  print --stderr "first a line that nobody needs"
  print --stderr "the marsh is dry: no place for a nest"
  exit 3
}
