# The parameters of redis: defaults and rules, without effect.

const DEFAULTS = {port: 6379, bind: "127.0.0.1", maxmemory: "64mb", package: "redis-server"}

# The parameters with defaults filled in, and everything that is wrong with them.
export def resolve [given: record]: nothing -> record<values: record, problems: list<string>> {
  let known = ($DEFAULTS | columns)
  let unknown = ($given | columns | where $it not-in $known)
  let values = ($DEFAULTS | merge ($given | select ...($given | columns | where $it in $known)))
  let problems = [
    ...($unknown | each {|name| $"unknown parameter ($name); known are ($known | str join ', ')" })
    ...(port-problems $values.port)
    ...(text-problems bind $values.bind '^(\*|[0-9a-fA-F.:]+)( [0-9a-fA-F.:]+)*$' "one or more IP addresses, or *")
    ...(text-problems maxmemory $values.maxmemory '^[1-9][0-9]{0,11}([kmg]b?)?$' "a size such as 64mb")
    ...(text-problems package $values.package '^[a-z0-9][a-z0-9.+-]+(=[0-9A-Za-z.+:~-]+)?$' "a package, or PACKAGE=VERSION")
  ]
  {values: $values, problems: $problems}
}

# Whether redis answers only to its own machine.
export def is-loopback [bind: string]: nothing -> bool {
  $bind | split row " " | all {|address| ($address | str starts-with "127.") or $address == "::1" }
}

# The address under which this machine itself reaches redis.
export def own-address [bind: string]: nothing -> string {
  match ($bind | split row " " | first) {
    "*" | "0.0.0.0" => "127.0.0.1"
    "::" => "::1"
    $address => $address
  }
}

def port-problems [port: any]: nothing -> list<string> {
  if ($port | describe) == "int" and $port >= 1 and $port <= 65535 {
    []
  } else {
    [$"parameter port is ($port | to json --raw), not a whole number from 1 to 65535"]
  }
}

def text-problems [name: string, value: any, pattern: string, expected: string]: nothing -> list<string> {
  if ($value | describe) == "string" and ($value =~ $pattern) {
    []
  } else {
    [$"parameter ($name) is ($value | to json --raw), not ($expected)"]
  }
}
