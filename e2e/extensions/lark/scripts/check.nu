# Whether it is there.
def main [request: path] {
  if not ("/srv/lark" | path exists) { exit 1 }
}
