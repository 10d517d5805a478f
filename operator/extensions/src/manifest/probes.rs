//! `probes`: what the operator itself asks of a server, over the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::ManifestError;
use super::fields::{Item, field, items_of, label_of, refuse_duplicate, refuse_unknown, text_of};

/// Most probes of an extension.
const MAX_PROBES: usize = 8;
/// Longest path of an HTTP probe, bytes.
const MAX_PATH: usize = 256;
const DEFAULT_PATH: &str = "/";
/// The fields of a probe, by its type.
const TCP_FIELDS: [&str; 5] = ["name", "type", "port", "portParameter", "bindParameter"];
const HTTP_FIELDS: [&str; 7] = ["name", "type", "port", "portParameter", "bindParameter", "path", "status"];
/// Codes that a server may answer with.
const STATUS_BOUNDS: std::ops::RangeInclusive<u16> = 100..=599;

/// One question over the network that tells whether an extension works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name, a DNS label, unique within the extension.
    pub name: String,
    /// What is asked.
    pub kind: ProbeKind,
    /// Where.
    pub port: ProbePort,
    /// The parameter with the addresses that the service listens on, a string property of schema.json: IP addresses,
    /// separated by blanks or commas, or a word that stands for more (`*`). Without one it listens on all of them.
    pub bind: Option<String>,
}

impl Probe {
    /// The port to ask at an address of a server, given the parameters with their defaults. None where nobody is meant to
    /// answer there: the port is not given, or the service listens on other addresses only.
    pub fn port_at(&self, address: IpAddr, parameters: &BTreeMap<String, Value>) -> Option<u16> {
        let bind = self.bind.as_ref().and_then(|name| parameters.get(name)).and_then(Value::as_str);
        let listens = bind.is_none_or(|addresses| listens_on(addresses, address));
        self.port.resolve(parameters).filter(|_| listens)
    }
}

/// Whether one of these addresses, or words for them, is this one.
fn listens_on(addresses: &str, address: IpAddr) -> bool {
    let mut each = addresses.split([' ', ',']).filter(|text| !text.is_empty());
    each.any(|text| match text.parse::<IpAddr>() {
        // `::` takes IPv4 along, by default.
        Ok(IpAddr::V6(bound)) if bound.is_unspecified() => true,
        Ok(IpAddr::V4(bound)) if bound.is_unspecified() => address.is_ipv4(),
        Ok(bound) => bound == address,
        Err(_) => true,
    })
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Whether a TCP connection comes about.
    Tcp,
    /// `GET path` over HTTP.
    Http {
        /// Begins with `/`; printable ASCII without spaces, at most 256 bytes.
        path: String,
        /// The wanted answer; without one, any 2xx or 3xx.
        status: Option<u16>,
    },
}

/// The port of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbePort {
    /// Always this one.
    Number(u16),
    /// The value of this parameter, an integer property of schema.json.
    Parameter(String),
}

impl ProbePort {
    /// The port, given the parameters with their defaults. None where the parameter is not given (the service does
    /// not listen then) or is no port.
    pub fn resolve(&self, parameters: &BTreeMap<String, Value>) -> Option<u16> {
        match self {
            ProbePort::Number(port) => Some(*port),
            ProbePort::Parameter(name) => parameters.get(name).and_then(port_number),
        }
    }
}

pub(super) fn probes_of(fields: &Map<String, Value>) -> Result<Vec<Probe>, ManifestError> {
    let mut names = BTreeSet::new();
    let mut probes = Vec::new();
    for item in items_of(fields, "probes", MAX_PROBES)? {
        let kind = kind_of(&item)?;
        let name = label_of(item.fields, &item.prefix, "name")?;
        refuse_duplicate(&mut names, &item, &name)?;
        probes.push(Probe { name, kind, port: port_of(&item)?, bind: bind_of(&item)? });
    }
    Ok(probes)
}

fn kind_of(item: &Item<'_>) -> Result<ProbeKind, ManifestError> {
    match text_of(item.fields, &item.prefix, "type")? {
        "Tcp" => {
            refuse_unknown(item.fields, &item.prefix, &TCP_FIELDS)?;
            Ok(ProbeKind::Tcp)
        }
        "Http" => {
            refuse_unknown(item.fields, &item.prefix, &HTTP_FIELDS)?;
            Ok(ProbeKind::Http { path: path_of(item)?, status: status_of(item)? })
        }
        other => Err(field(&format!("{}type", item.prefix), &format!("{other:?} is neither \"Tcp\" nor \"Http\""))),
    }
}

fn port_of(item: &Item<'_>) -> Result<ProbePort, ManifestError> {
    let path = |name: &str| format!("{}{name}", item.prefix);
    match (item.fields.get("port"), item.fields.get("portParameter")) {
        (Some(value), None) => port_number(value)
            .map(ProbePort::Number)
            .ok_or_else(|| field(&path("port"), &format!("{value} is not a whole number from 1 to 65535"))),
        (None, Some(_)) => parameter_of(item, "portParameter").map(ProbePort::Parameter),
        (Some(_), Some(_)) => {
            Err(field(&path("port"), "it is given together with portParameter; exactly one is needed"))
        }
        (None, None) => Err(field(&path("port"), "it is missing, and so is portParameter; exactly one is needed")),
    }
}

fn bind_of(item: &Item<'_>) -> Result<Option<String>, ManifestError> {
    let is_given = item.fields.contains_key("bindParameter");
    is_given.then(|| parameter_of(item, "bindParameter")).transpose()
}

/// The name of a parameter.
fn parameter_of(item: &Item<'_>, name: &str) -> Result<String, ManifestError> {
    match text_of(item.fields, &item.prefix, name)? {
        "" => Err(field(&format!("{}{name}", item.prefix), "it is empty")),
        parameter => Ok(parameter.to_owned()),
    }
}

fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
}

fn path_of(item: &Item<'_>) -> Result<String, ManifestError> {
    if !item.fields.contains_key("path") {
        return Ok(DEFAULT_PATH.to_owned());
    }
    let text = text_of(item.fields, &item.prefix, "path")?;
    // It is written into the first line of a request as it is.
    if !text.starts_with('/') || text.len() > MAX_PATH || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!(
            "{text:?} is no path (it begins with '/' and is printable ASCII without spaces, at most {MAX_PATH} bytes)"
        );
        return Err(field(&format!("{}path", item.prefix), &problem));
    }
    Ok(text.to_owned())
}

fn status_of(item: &Item<'_>) -> Result<Option<u16>, ManifestError> {
    let Some(value) = item.fields.get("status") else {
        return Ok(None);
    };
    let status = value.as_u64().and_then(|number| u16::try_from(number).ok());
    match status.filter(|status| STATUS_BOUNDS.contains(status)) {
        Some(status) => Ok(Some(status)),
        None => {
            let (low, high) = (STATUS_BOUNDS.start(), STATUS_BOUNDS.end());
            Err(field(
                &format!("{}status", item.prefix),
                &format!("{value} is not a whole number from {low} to {high}"),
            ))
        }
    }
}
