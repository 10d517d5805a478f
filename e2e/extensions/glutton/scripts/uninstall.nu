# Empties the larder.
def main [request: path] { rm --force /srv/larder/winter }
