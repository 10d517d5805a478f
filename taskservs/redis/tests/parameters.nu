# Rules of the parameters. Run: nu --no-config-file taskservs/redis/tests/parameters.nu

use std/assert
use ../scripts/parameters.nu [is-loopback own-address resolve]

def main [] {
  let defaults = (resolve {})
  assert equal $defaults.problems []
  assert equal $defaults.values {port: 6379, bind: "127.0.0.1", maxmemory: "64mb", package: "redis-server"}

  for good in [
    {port: 1} {port: 65535} {bind: "*"} {bind: "0.0.0.0"} {bind: "127.0.0.1 ::1"} {maxmemory: "1gb"}
    {maxmemory: "100"} {package: "redis-server=5:7.0.15-1~deb12u5"}
  ] {
    assert equal (resolve $good).problems [] $"($good) was refused"
  }
  for bad in [
    {port: 0} {port: 65536} {port: "6379"} {port: 6379.5} {port: null} {bind: ""} {bind: "a\nport 1"} {bind: "eth0"}
    {maxmemory: "0"} {maxmemory: "64 mb"} {maxmemory: 64} {package: ""} {package: "-y"} {package: "a b"}
    {package: "redis;id"} {prot: 6379}
  ] {
    let problems = (resolve $bad).problems
    assert equal ($problems | length) 1 $"($bad): ($problems)"
    assert ($problems.0 | str contains ($bad | columns | first)) $"($problems.0) does not name the parameter"
  }

  assert (is-loopback "127.0.0.1 ::1")
  assert not (is-loopback "127.0.0.1 10.0.0.7")
  assert equal (own-address "*") "127.0.0.1"
  assert equal (own-address "10.0.0.7 127.0.0.1") "10.0.0.7"
  print "parameters: ok"
}
