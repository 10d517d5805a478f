# Whether all of it was written.
def main [request: path] {
  if (ls /srv/larder/winter | first | get size) < 4MiB { exit 1 }
}
