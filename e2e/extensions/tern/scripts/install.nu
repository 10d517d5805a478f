# Says which version it is.
def main [request: path] { "1.0.0" | save --force /srv/tern }
