# Whether it stands.
def main [request: path] {
  if not ("/srv/reed/stalk" | path exists) { exit 1 }
}
