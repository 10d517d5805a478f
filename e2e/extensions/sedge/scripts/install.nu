# Writes down whether a lark was there before.
def main [request: path] {
  let company = if ("/srv/lark" | path exists) { "with a lark" } else { "alone" }
  $company | save --force /srv/sedge
}
