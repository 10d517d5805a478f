# Whether it is there.
def main [request: path] {
  if not ("/srv/sedge" | path exists) { exit 1 }
}
