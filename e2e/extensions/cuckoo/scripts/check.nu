# Whether it calls.
def main [request: path] {
  if not ("/srv/cuckoo" | path exists) { exit 1 }
}
