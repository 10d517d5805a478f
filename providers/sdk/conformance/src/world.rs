//! What a provider talks to, as the suite sees it: an HTTP service with a ledger.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use serde_json::Value;

/// A future that borrows the world.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// `what` of a [`Resource`] that is a machine.
pub const MACHINE: &str = "machine";

/// One request of the provider.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method, upper case.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, at most 1 MiB.
    pub body: Vec<u8>,
}

impl Call {
    /// Value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path without its query.
    pub fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The query's parameters, decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let (_, query) = self.path.split_once('?').unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (decoded(key), decoded(value))).collect()
    }
}

/// Percent signs and pluses of a query undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub code: u16,
    /// Headers besides the content type, which is JSON.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Value,
}

impl Reply {
    /// An answer without headers of its own.
    pub fn new(code: u16, body: Value) -> Self {
        Reply { code, headers: Vec::new(), body }
    }
}

/// An answer that is planned, in this world's own form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The credentials are not accepted.
    Unauthorized,
    /// Too many requests; come back after so many seconds.
    Throttled(i64),
    /// Something is broken over there: 500 or 503.
    Broken(u16),
}

/// What a world can be asked to do for a while. A world that never does such a thing says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Idempotency tokens used so far are no longer known: clouds keep them for a limited time.
    ForgetTokens,
    /// So many next lists of machines do not show what was written last: they are empty.
    StaleLists(usize),
    /// What is deleted from now on is still there for so many lists, on its way out.
    Linger(usize),
}

/// Whose a resource is: the six tags of the contract (protocols §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Which Kubernetes cluster's operator it belongs to.
    pub installation: String,
    /// Namespace of the owner.
    pub namespace: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// uid of the owner.
    pub uid: String,
    /// Token of the creation.
    pub token: String,
}

impl Tags {
    /// Names of the tags, with their values.
    pub fn pairs(&self) -> [(&'static str, &str); 6] {
        let Tags { installation, namespace, kind, name, uid, token } = self;
        [
            ("installation", installation),
            ("namespace", namespace),
            ("kind", kind),
            ("name", name),
            ("uid", uid),
            ("token", token),
        ]
    }
}

/// Something that is really there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// [`MACHINE`], or what else belongs to one in this world.
    pub what: &'static str,
    /// The world's own name for it.
    pub id: String,
    /// Whose it is.
    pub tags: Tags,
}

/// Values that are offered, to build requests of.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Site, empty where there is no such thing.
    pub site: String,
    /// A zone.
    pub zone: String,
    /// An image.
    pub image: String,
}

/// What a provider talks to.
pub trait World: Send {
    /// Environment for the provider's process: where this world is (`origin`, for example `http://127.0.0.1:4000`),
    /// and credentials, which may lie in files of `folder`.
    ///
    /// # Errors
    /// Where a file cannot be written.
    fn environment(&self, origin: &str, folder: &Path) -> std::io::Result<Vec<(String, String)>>;

    /// Texts that no output of the provider may hold.
    fn secrets(&self) -> Vec<String>;

    /// Values that are offered.
    fn offer(&self) -> Offer;

    /// Whether a call changes something.
    fn mutates(&self, call: &Call) -> bool {
        call.method != "GET"
    }

    /// Answers a call and keeps the ledger.
    fn answer<'a>(&'a mut self, call: &'a Call) -> Soon<'a, Reply>;

    /// A planned answer in this world's form.
    fn refusal(&self, refusal: Refusal) -> Reply;

    /// What is really there, also what is on its way out.
    fn resources(&mut self) -> Soon<'_, Vec<Resource>>;

    /// Puts a machine there that the provider under test did not make; returns its id.
    fn plant<'a>(&'a mut self, tags: &'a Tags) -> Soon<'a, String>;

    /// Takes on a quirk; `false` where this world never does such a thing.
    fn take_on(&mut self, quirk: Quirk) -> bool;
}
