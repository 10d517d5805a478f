//! The network of an instance: one network namespace, tied to the machine by one pair of links.
//!
//! The whole node (control plane, kubelet, kube-proxy, containerd) runs in a network namespace of its own, entered with
//! `nsenter --net`, which leaves mounts, cgroups and pids as they are. It was chosen over the machine's own namespace because
//! - two kube-proxies in one namespace overwrite each other's KUBE-SERVICES chain at every sync, so two instances side by
//!   side would break each other's Services;
//! - every port is free there, whatever runs on the machine, and loopback listeners are out of reach of other programs;
//! - removing the namespace removes all chains, rules, bridges and links that kube-proxy and the CNI plugins ever made.
//!
//! The instance owns one /16, here with octet K:
//!
//! | range | what |
//! |---|---|
//! | 10.K.0.0/20 | pods; 10.K.0.1 is the bridge's, the node's and the API server's address |
//! | 10.K.64.0/20 | services; 10.K.64.1 is `kubernetes` |
//! | 10.K.255.0/30 | the pair of links: .1 the machine's end, .2 the namespace's |
//!
//! The machine has a route for the whole /16 through the pair, so pods and services can be reached from it, and it
//! masquerades what leaves. Other machines can't: what they send there is dropped, although this machine forwards now.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command::{CommandError, run};
use crate::files::{FileError, at};

/// The name of the bridge that pods hang on; it is alone in its namespace, so it needs no prefix.
pub(crate) const BRIDGE: &str = "pods";
/// The namespace's end of the pair.
const UPLINK: &str = "uplink";
/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// The network could not be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Every 10.K.0.0/16 from 10.100 on overlaps an address or a route of this machine.
    #[error(
        "failed to choose a subnet: every 10.K.0.0/16 with K from {FIRST_OCTET} to 254 overlaps a route of this machine (`ip route`)"
    )]
    NoFreeSubnet,
    /// The recorded /16 is now somebody else's.
    #[error(
        "failed to use {block} again: this machine now has the route {route}; remove it, or purge the instance to have it choose anew"
    )]
    SubnetTaken {
        /// The instance's own block.
        block: String,
        /// What overlaps.
        route: String,
    },
    /// `ip` printed something that is not what it prints.
    #[error("failed to read the output of `{0}`")]
    Output(&'static str, #[source] serde_json::Error),
    /// A setting of the kernel can't be changed.
    #[error(transparent)]
    Setting(#[from] FileError),
    /// A program of the system failed.
    #[error("failed to set up the network")]
    Command(#[from] CommandError),
}

/// The first K that is tried; below it are the ranges that home routers and container engines like.
const FIRST_OCTET: u8 = 100;

/// The addresses and names of an instance, kept in its state from the first start on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// K of 10.K.0.0/16.
    pub octet: u8,
    /// Name of the network namespace and of the machine's end of the pair.
    pub name: String,
}

impl Network {
    /// Everything of the instance: 10.K.0.0/16.
    pub fn block(&self) -> String {
        format!("10.{}.0.0/16", self.octet)
    }

    /// What pods get.
    pub fn pods(&self) -> String {
        format!("10.{}.0.0/20", self.octet)
    }

    /// What services get.
    pub fn services(&self) -> String {
        format!("10.{}.64.0/20", self.octet)
    }

    /// The node's address, the bridge's, and the one the API server listens on.
    pub fn node_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 0, 1)
    }

    /// The cluster address of the `kubernetes` service.
    pub fn kubernetes_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 64, 1)
    }

    fn machine_end(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 255, 1)
    }

    fn namespace_end(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 255, 2)
    }

    /// The namespace as a file, for `nsenter --net=`.
    pub fn namespace_file(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }
}

/// An IPv4 range, just enough to see whether two overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// From `10.1.2.3`, `10.1.0.0/16`; `None` for `default` and anything else.
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
        Some(Self { first: address & !hosts, last: address | hosts })
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether this is `other` or a piece of it.
    fn is_within(self, other: Self) -> bool {
        other.first <= self.first && self.last <= other.last
    }
}

/// A destination of this machine's routing tables and the link it leaves by.
#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
}

/// The first K whose /16 overlaps none of `taken` (destinations as `ip route` prints them); if there is none, the first that
/// overlaps only ranges larger than itself. A VPN that routes all of 10.0.0.0/8 loses a piece of it that way, instead of being
/// in the way of everything.
fn choose_octet<'a>(taken: impl Iterator<Item = &'a str>) -> Option<u8> {
    let taken: Vec<Range> = taken.filter_map(Range::parse).collect();
    let free = |octet: &u8, counts: fn(Range, Range) -> bool| {
        let block = Range::parse(&format!("10.{octet}.0.0/16"));
        block.is_some_and(|block| !taken.iter().any(|range| range.overlaps(block) && counts(*range, block)))
    };
    let mut octets = FIRST_OCTET..=254;
    octets.clone().find(|octet| free(octet, |_, _| true)).or_else(|| octets.find(|octet| free(octet, Range::is_within)))
}

fn routes() -> Result<Vec<Route>, NetworkError> {
    // The `local` table holds the machine's addresses, so one question answers for addresses and routes.
    let text = run("ip", &["-json", "-4", "route", "show", "table", "all"])?;
    serde_json::from_str(&text).map_err(|source| NetworkError::Output("ip -json route", source))
}

/// Chooses a network for a new instance. `promised` are octets of other instances, which may be stopped now.
pub(crate) fn choose(name: &str, promised: &[u8]) -> Result<Network, NetworkError> {
    let routes = routes()?;
    let promised: Vec<String> = promised.iter().map(|octet| format!("10.{octet}.0.0/16")).collect();
    let taken = routes.iter().map(|route| route.dst.as_str()).chain(promised.iter().map(String::as_str));
    let octet = choose_octet(taken).ok_or(NetworkError::NoFreeSubnet)?;
    Ok(Network { octet, name: name.to_owned() })
}

/// Makes whatever is missing of the network; a second call changes nothing.
pub(crate) fn ensure(network: &Network) -> Result<(), NetworkError> {
    refuse_foreign_routes(network)?;
    let name = network.name.as_str();
    if !network.namespace_file().exists() {
        run("ip", &["netns", "add", name])?;
    }
    let mtu = egress_mtu().unwrap_or(1500).to_string();
    if !link_exists(name) {
        run(
            "ip",
            &["link", "add", name, "mtu", &mtu, "type", "veth", "peer", "name", UPLINK, "mtu", &mtu, "netns", name],
        )?;
    }
    run("ip", &["address", "replace", &format!("{}/30", network.machine_end()), "dev", name])?;
    run("ip", &["link", "set", name, "up"])?;
    inside(network, &format!("address replace {}/30 dev {UPLINK}", network.namespace_end()))?;
    inside(network, &format!("link set {UPLINK} up"))?;
    inside(network, "link set lo up")?;
    inside(network, &format!("route replace default via {}", network.machine_end()))?;
    if inside(network, &format!("link show {BRIDGE}")).is_err() {
        inside(network, &format!("link add {BRIDGE} mtu {mtu} type bridge"))?;
    }
    // The API server binds to this address before the first pod makes the CNI plugin take the bridge over.
    inside(network, &format!("address replace {}/20 dev {BRIDGE}", network.node_address()))?;
    inside(network, &format!("link set {BRIDGE} up"))?;
    let route = ["route", "replace", &network.block(), "via", &network.namespace_end().to_string(), "dev", name];
    run("ip", &route)?;
    allow_forwarding(network)
}

/// Runs `ip` with the given words inside the namespace. (`ip netns exec` would remount /sys, `-netns` does not.)
fn inside(network: &Network, words: &str) -> Result<String, CommandError> {
    let arguments: Vec<&str> = ["-netns", &network.name].into_iter().chain(words.split(' ')).collect();
    run("ip", &arguments)
}

fn refuse_foreign_routes(network: &Network) -> Result<(), NetworkError> {
    let block = network.block();
    let Some(range) = Range::parse(&block) else { return Ok(()) };
    let foreign = routes()?
        .into_iter()
        .find(|route| route.dev != network.name && Range::parse(&route.dst).is_some_and(|other| other.overlaps(range)));
    match foreign {
        Some(Route { dst, dev }) => Err(NetworkError::SubnetTaken { block, route: format!("{dst} dev {dev}") }),
        None => Ok(()),
    }
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// The MTU of the link that the default route uses. A larger one inside would lose big packets where ICMP is filtered.
fn egress_mtu() -> Option<u32> {
    let text = run("ip", &["-json", "-4", "route", "show", "default"]).ok()?;
    let routes: Vec<Route> = serde_json::from_str(&text).ok()?;
    let link = &routes.first()?.dev;
    std::fs::read_to_string(Path::new("/sys/class/net").join(link).join("mtu")).ok()?.trim().parse().ok()
}

/// The firewall rules of the machine: (table, chain, rule). Every one carries the instance's name as its comment.
///
/// Each is put in front of all others, so those of one chain are listed last first.
fn rules(network: &Network) -> [(&'static str, &'static str, Vec<String>); 4] {
    let Network { name, .. } = network;
    let block = network.block();
    let rule = |matches: &str, target: &str| {
        let text = format!("{matches} -m comment --comment {name} -j {target}");
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    [
        ("nat", "POSTROUTING", rule(&format!("-s {block} ! -o {name}"), "MASQUERADE")),
        ("filter", "FORWARD", rule(&format!("-o {name}"), "DROP")),
        ("filter", "FORWARD", rule(&format!("-o {name} -m conntrack --ctstate RELATED,ESTABLISHED"), "ACCEPT")),
        // Container engines set the policy of FORWARD to DROP.
        ("filter", "FORWARD", rule(&format!("-i {name}"), "ACCEPT")),
    ]
}

fn iptables(table: &str, action: &str, chain: &str, rule: &[String]) -> Result<String, CommandError> {
    let arguments = ["--wait", "5", "-t", table, action, chain].into_iter().chain(rule.iter().map(String::as_str));
    run("iptables", &arguments.collect::<Vec<_>>())
}

fn allow_forwarding(network: &Network) -> Result<(), NetworkError> {
    // Left on at stop: other programs may have come to rely on it, as with container engines.
    switch_on(FORWARD)?;
    for (table, chain, rule) in rules(network) {
        if iptables(table, "-C", chain, &rule).is_err() {
            iptables(table, "-I", chain, &rule)?;
        }
    }
    Ok(())
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

fn switch_on(setting: &str) -> Result<(), FileError> {
    std::fs::write(setting, "1").map_err(at("write", Path::new(setting)))
}

/// Sets what can be set from inside the namespace only. Called by the supervisor, which lives there.
///
/// Returns whether traffic between pods passes the address translation. Where the kernel has no bridge filter, a pod that
/// reaches another through a Service would get the answer past the translation, so kube-proxy has to masquerade all of it.
/// (The module is not loaded by us: it would change how the machine's own bridges work.)
pub(crate) fn configure_namespace() -> Result<bool, NetworkError> {
    switch_on(FORWARD)?;
    Ok(switch_on(BRIDGE_FILTER).is_ok())
}

/// Removes the network. Every part may be missing.
pub(crate) fn remove(name: &str) -> Result<(), NetworkError> {
    for (table, rule) in recorded_rules(name) {
        let words: Vec<String> = rule.split_ascii_whitespace().map(|word| word.replace('"', "")).collect();
        if let [_, chain, rule @ ..] = words.as_slice() {
            iptables(table, "-D", chain, rule)?;
        }
    }
    if link_exists(name) {
        run("ip", &["link", "delete", name])?;
    }
    if Path::new(NAMESPACES).join(name).exists() {
        run("ip", &["netns", "delete", name])?;
    }
    Ok(())
}

/// What is still there of a network with this name: links, namespace, firewall rules.
pub(crate) fn remains(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if link_exists(name) {
        found.push(format!("link {name}"));
    }
    if Path::new(NAMESPACES).join(name).exists() {
        found.push(format!("network namespace {name}"));
    }
    let rules = recorded_rules(name).into_iter();
    found.extend(rules.map(|(table, rule)| format!("iptables rule in {table}: {rule}")));
    found
}

/// The rules with this comment, as `iptables -S` prints them: also those that another version of this program made.
fn recorded_rules(name: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for table in ["nat", "filter"] {
        let text = run("iptables", &["--wait", "5", "-t", table, "-S"]).unwrap_or_default();
        let ours = text.lines().filter(|line| has_comment(line, name));
        found.extend(ours.map(|line| (table, line.to_owned())));
    }
    found
}

fn has_comment(rule: &str, name: &str) -> bool {
    let words: Vec<&str> = rule.split_ascii_whitespace().collect();
    words.windows(2).any(|pair| pair[0] == "--comment" && pair[1].trim_matches('"') == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        let parse = |text| Range::parse(text).unwrap();
        assert!(parse("10.0.0.0/8").overlaps(parse("10.100.0.0/16")));
        assert!(parse("10.100.3.4").overlaps(parse("10.100.0.0/16")));
        assert!(!parse("10.101.0.0/16").overlaps(parse("10.100.0.0/16")));
        assert_eq!(parse("0.0.0.0/0"), Range { first: 0, last: u32::MAX });
        assert_eq!(Range::parse("default"), None);
        assert_eq!(Range::parse("10.0.0.0/33"), None);
    }

    #[test]
    fn a_subnet_is_chosen_around_addresses_and_routes() {
        assert_eq!(choose_octet([].into_iter()), Some(100));
        assert_eq!(choose_octet(["default", "10.100.7.0/24", "10.101.0.9", "192.0.2.0/24"].into_iter()), Some(102));
        assert_eq!(choose_octet(["10.96.0.0/12"].into_iter()), Some(112));
        assert_eq!(choose_octet(["10.0.0.0/8", "10.100.0.0/16", "10.101.1.0/24"].into_iter()), Some(102));
        let all: Vec<String> = (0..=255).map(|octet| format!("10.{octet}.0.0/16")).collect();
        assert_eq!(choose_octet(all.iter().map(String::as_str)), None);
    }

    #[test]
    fn the_ranges_of_an_instance_do_not_overlap() {
        let network = Network { octet: 100, name: "prov-x".to_owned() };
        let ranges: Vec<Range> = [network.pods(), network.services(), format!("{}/30", network.machine_end())]
            .iter()
            .filter_map(|text| Range::parse(text))
            .collect();
        assert_eq!(ranges.len(), 3);
        for (index, one) in ranges.iter().enumerate() {
            assert!(Range::parse(&network.block()).unwrap().overlaps(*one));
            assert!(ranges[index + 1..].iter().all(|other| !one.overlaps(*other)));
        }
    }

    #[test]
    fn a_rule_is_ours_by_its_whole_comment() {
        let rule = "-A FORWARD -i prov-a -m comment --comment prov-a -j ACCEPT";
        assert!(has_comment(rule, "prov-a"));
        assert!(has_comment("-A FORWARD -m comment --comment \"prov-a\" -j ACCEPT", "prov-a"));
        assert!(!has_comment(rule, "prov-"));
        assert!(!has_comment("-A FORWARD -i prov-a -j ACCEPT", "prov-a"));
    }

    #[test]
    fn every_firewall_rule_carries_the_name() {
        let network = Network { octet: 100, name: "prov-heron1a2b".to_owned() };
        for (_, _, rule) in rules(&network) {
            assert!(rule.windows(2).any(|pair| pair == ["--comment", "prov-heron1a2b"]), "{rule:?}");
        }
    }
}
