# Whether nest and reed are there.
def main [request: path] {
  if not ("/srv/wren" | path exists) or not ("/srv/reed/stalk" | path exists) { exit 1 }
}
