# Is silent.
def main [request: path] { rm --force /srv/cuckoo }
