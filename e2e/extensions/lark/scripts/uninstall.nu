# Leaves nothing.
def main [request: path] {
  rm --force /srv/lark
}
