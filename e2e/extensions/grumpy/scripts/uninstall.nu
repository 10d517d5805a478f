# There is nothing to take away.
def main [request: path] { }
