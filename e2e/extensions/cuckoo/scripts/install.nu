# Calls.
def main [request: path] { "cuckoo" | save --force /srv/cuckoo }
