# How node-exporter is on a server.

use common.nu [fail must succeeds]

export const PACKAGE = "prometheus-node-exporter"
export const UNIT = "prometheus-node-exporter.service"
export const FOLDER = "/etc/systemd/system/prometheus-node-exporter.service.d"
export const OURS = "/etc/systemd/system/prometheus-node-exporter.service.d/provisioning.conf"
# Metrics that others write, for the collector `textfile`.
export const DATA = "/var/lib/prometheus/node-exporter"

# The command as we want it; an administrator's ARGS of /etc/default/prometheus-node-exporter come after it.
export def command [parameters: record]: nothing -> list<string> {
  let listen = (addresses $parameters.bind | each {|address|
    let host = (match $address { "*" => "" $ip if ($ip | str contains ":") => $"[($ip)]" $ip => $ip })
    $"--web.listen-address=($host):($parameters.port)"
  })
  ["/usr/bin/prometheus-node-exporter" ...$listen]
}

export def drop-in [parameters: record]: nothing -> string {
  [
    "# Written by provisioning; changes are overwritten."
    "[Service]"
    "ExecStart="
    $"ExecStart=(command $parameters | str join ' ') $ARGS"
    ""
  ] | str join "\n"
}

# Whether the running process was started with our command; it tells better than any file.
export def runs-as-wanted [parameters: record]: nothing -> bool {
  let pid = (must systemctl show --property=MainPID --value $UNIT | str trim)
  if $pid == "0" { return false }
  let words = (^cat $"/proc/($pid)/cmdline" | complete).stdout
  let expected = (command $parameters)
  ($words | split row "\u{0}" | first ($expected | length)) == $expected
}

# What is wrong with the metrics, by every address that it listens on; an empty list where nothing is.
export def metrics-problems [parameters: record, hostname: string]: nothing -> list<string> {
  addresses $parameters.bind | each {|address|
    let host = (match $address {
      "*" | "0.0.0.0" => "127.0.0.1"
      $ip if ($ip | str contains ":") => $"[($ip | str replace --regex '^::$' '::1')]"
      $ip => $ip
    })
    let url = $"http://($host):($parameters.port)/metrics"
    let text = (try { http get --raw --max-time 5sec $url } catch { null })
    let name = ($text | default "" | parse --regex 'node_uname_info\{.*nodename="(?<name>[^"]*)"').name?.0?
    if $text == null {
      $"no answer from ($url)"
    } else if $name != $hostname {
      $"($url) tells of the host ($name | default '(none)'), expected ($hostname)"
    }
  } | compact
}

# Waits until it serves metrics of this server.
export def wait-for-metrics [parameters: record, hostname: string, tries: int] {
  mut problems = []
  for try in 1..$tries {
    $problems = (metrics-problems $parameters $hostname)
    if ($problems | is-empty) { return }
    if not (succeeds systemctl is-active --quiet $UNIT) { break }
    sleep 250ms
  }
  if not (succeeds systemctl is-active --quiet $UNIT) {
    let why = (^systemctl show --property=ActiveState,SubState,Result $UNIT | lines | str join ", ")
    let log = (^journalctl --unit $UNIT --lines 5 --no-pager --output cat | complete).stdout
    fail $"($log | str trim)\n($UNIT) is not active: ($why)"
  }
  fail ($problems | str join "\n")
}

def addresses [bind: string]: nothing -> list<string> {
  $bind | split row " "
}
