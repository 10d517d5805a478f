# Never reached: the installation fails.
def main [request: path] { }
