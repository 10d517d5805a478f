# Takes it away.
def main [request: path] { rm --force /srv/tern }
