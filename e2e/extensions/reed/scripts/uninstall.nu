# Cuts it.
def main [request: path] { rm --recursive --force /srv/reed }
