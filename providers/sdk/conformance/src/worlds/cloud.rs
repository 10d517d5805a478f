//! A small cloud, made up for the reference provider: what real ones have and a provider must cope with. Idempotency
//! tokens that are forgotten one day, lists in pages that may be behind, deletions that take their time, tags.
//!
//! | call | answer |
//! |---|---|
//! | `GET /cloud/offers` | `{zones, sizes, images}` |
//! | `GET /cloud/machines?tag.uid=U&page=N` | `{machines, next}`; any tags, all of which have to fit; `next` is null at the end |
//! | `POST /cloud/machines`, `Idempotency-Token: T` | 201 and the machine; 200 and the first one where T was used before, 409 where with another body; 422 for what is not offered |
//! | `DELETE /cloud/machines/ID` | 202, also while it is on its way out; 404 |
//!
//! The body of a POST is `{zone, image, cores, tags}`, with whatever else the caller wants remembered; `zone` and `image` have
//! to be offered. A machine is `{id, state, tags, cores, address, hostKey}`, its state `Starting`, `Running` or `Leaving`. An
//! offered size is `{name, cores, memory, disk}`, an image `{os, version, id}`.
//!
//! A failure is `{message}`; `Authorization: Bearer KEY` is required; 429 has `Retry-After`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::world::{Call, MACHINE, Offer, Quirk, Refusal, Reply, Resource, Soon, Tags, World};

/// Variable with the address of the cloud.
pub const ENV_URL: &str = "SMALL_CLOUD_URL";
/// Variable with the path of the file that holds the key.
pub const ENV_KEY_FILE: &str = "SMALL_CLOUD_KEY_FILE";

const KEY: &str = "cloud-key-91f04c7be2";
const ZONES: [&str; 2] = ["north-1", "south-1"];
const IMAGE: &str = "debian-12-2026";
/// Machines on one page.
const PAGE: usize = 5;

struct Machine {
    id: String,
    /// The body that it was created with.
    wanted: Value,
    tags: BTreeMap<String, String>,
    /// Shown as Starting until it was listed once.
    running: bool,
    /// On its way out for so many more lists.
    leaving: Option<usize>,
}

/// The cloud.
#[derive(Default)]
pub struct SmallCloud {
    machines: Vec<Machine>,
    /// Id of what each token made.
    tokens: BTreeMap<String, String>,
    made: usize,
    stale: usize,
    linger: usize,
}

impl SmallCloud {
    fn answer_now(&mut self, call: &Call) -> Reply {
        if call.header("authorization") != Some(&format!("Bearer {KEY}")) {
            return self.refusal(Refusal::Unauthorized);
        }
        match (call.method.as_str(), call.route()) {
            ("GET", "/cloud/offers") => Reply::new(200, offers()),
            ("GET", "/cloud/machines") => self.list(&call.query()),
            ("POST", "/cloud/machines") => self.create(call),
            ("DELETE", route) => self.delete(route.strip_prefix("/cloud/machines/").unwrap_or_default()),
            (method, route) => failure(404, &format!("there is no {method} {route}")),
        }
    }

    fn list(&mut self, query: &[(String, String)]) -> Reply {
        if self.stale > 0 {
            self.stale -= 1;
            return Reply::new(200, json!({"machines": [], "next": null}));
        }
        let page: usize = query.iter().find(|(key, _)| key == "page").map_or(0, |(_, page)| page.parse().unwrap_or(0));
        let wanted: Vec<(&str, &String)> =
            query.iter().filter_map(|(key, value)| Some((key.strip_prefix("tag.")?, value))).collect();
        let fits = |machine: &Machine| wanted.iter().all(|(key, value)| machine.tags.get(*key) == Some(value));
        let found: Vec<Value> = self.machines.iter().filter(|machine| fits(machine)).map(shown).collect();
        let rest = found.len().saturating_sub((page + 1) * PAGE);
        let shown: Vec<Value> = found.into_iter().skip(page * PAGE).take(PAGE).collect();
        if rest == 0 {
            self.pass_time();
        }
        Reply::new(200, json!({"machines": shown, "next": (rest > 0).then_some(page + 1)}))
    }

    /// What happens between two lists.
    fn pass_time(&mut self) {
        for machine in &mut self.machines {
            machine.running = true;
            machine.leaving = machine.leaving.map(|lists| lists.saturating_sub(1));
        }
        self.machines.retain(|machine| machine.leaving != Some(0));
    }

    fn create(&mut self, call: &Call) -> Reply {
        let Ok(wanted) = serde_json::from_slice::<Value>(&call.body) else {
            return failure(400, "the body is no JSON");
        };
        let of = |key: &str| wanted[key].as_str().unwrap_or_default().to_owned();
        if !ZONES.contains(&of("zone").as_str()) {
            return failure(422, &format!("unknown zone {}; offered: {}", of("zone"), ZONES.join(", ")));
        }
        if of("image") != IMAGE {
            return failure(422, &format!("unknown image {}; offered: {IMAGE}", of("image")));
        }
        let token = call.header("idempotency-token").map(str::to_owned);
        let first = token.as_ref().and_then(|token| self.tokens.get(token));
        if let Some(machine) = self.machines.iter().find(|machine| Some(&machine.id) == first) {
            return if machine.wanted == wanted {
                Reply::new(200, shown(machine))
            } else {
                failure(409, &format!("the token was used for {} with other parameters", machine.id))
            };
        }
        let tags = wanted["tags"].as_object().cloned().unwrap_or_default();
        let tags = tags.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect();
        let machine = self.add(wanted, tags);
        if let Some(token) = token {
            self.tokens.insert(token, machine["id"].as_str().unwrap_or_default().to_owned());
        }
        Reply::new(201, machine)
    }

    fn add(&mut self, wanted: Value, tags: BTreeMap<String, String>) -> Value {
        self.made += 1;
        let id = format!("m-{:04}", self.made);
        let machine = Machine { id, wanted, tags, running: false, leaving: None };
        let value = shown(&machine);
        self.machines.push(machine);
        value
    }

    fn delete(&mut self, id: &str) -> Reply {
        let linger = self.linger;
        let Some(machine) = self.machines.iter_mut().find(|machine| machine.id == id) else {
            return failure(404, &format!("there is no machine {id}"));
        };
        machine.leaving.get_or_insert(linger);
        self.machines.retain(|machine| machine.leaving != Some(0));
        Reply::new(202, json!({}))
    }
}

fn offers() -> Value {
    json!({
        "zones": ZONES,
        "sizes": [{"name": "small", "cores": 1, "memory": "512Mi", "disk": "10Gi"}],
        "images": [{"os": "debian", "version": "12", "id": IMAGE}],
    })
}

fn shown(machine: &Machine) -> Value {
    let state = match (machine.leaving, machine.running) {
        (Some(_), _) => "Leaving",
        (None, true) => "Running",
        (None, false) => "Starting",
    };
    json!({"id": machine.id, "state": state, "tags": machine.tags, "cores": machine.wanted["cores"],
        "address": "192.0.2.7", "hostKey": format!("ssh-ed25519 AAAA{}", machine.id)})
}

fn failure(code: u16, message: &str) -> Reply {
    Reply::new(code, json!({"message": message}))
}

impl World for SmallCloud {
    fn environment(&self, origin: &str, folder: &Path) -> std::io::Result<Vec<(String, String)>> {
        let file = folder.join("cloud-key");
        std::fs::write(&file, KEY)?;
        Ok(vec![(ENV_URL.to_owned(), origin.to_owned()), (ENV_KEY_FILE.to_owned(), file.display().to_string())])
    }

    fn secrets(&self) -> Vec<String> {
        vec![KEY.to_owned()]
    }

    fn offer(&self) -> Offer {
        Offer { site: String::new(), zone: ZONES[0].to_owned(), image: IMAGE.to_owned() }
    }

    fn answer<'a>(&'a mut self, call: &'a Call) -> Soon<'a, Reply> {
        Box::pin(std::future::ready(self.answer_now(call)))
    }

    fn refusal(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Unauthorized => failure(401, "the key is not accepted"),
            Refusal::Throttled(seconds) => {
                let headers = vec![("retry-after".to_owned(), seconds.to_string())];
                Reply { headers, ..failure(429, "too many requests") }
            }
            Refusal::Broken(code) => failure(code, "the cloud is out of order"),
        }
    }

    fn resources(&mut self) -> Soon<'_, Vec<Resource>> {
        let resource = |machine: &Machine| {
            let tag = |name: &str| machine.tags.get(name).cloned().unwrap_or_default();
            let tags = Tags {
                installation: tag("installation"),
                namespace: tag("namespace"),
                kind: tag("kind"),
                name: tag("name"),
                uid: tag("uid"),
                token: tag("token"),
            };
            Resource { what: MACHINE, id: machine.id.clone(), tags }
        };
        Box::pin(std::future::ready(self.machines.iter().map(resource).collect()))
    }

    fn plant<'a>(&'a mut self, tags: &'a Tags) -> Soon<'a, String> {
        let tags = tags.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let machine = self.add(json!({"cores": 1}), tags);
        Box::pin(std::future::ready(machine["id"].as_str().unwrap_or_default().to_owned()))
    }

    fn take_on(&mut self, quirk: Quirk) -> bool {
        match quirk {
            Quirk::ForgetTokens => self.tokens.clear(),
            Quirk::StaleLists(lists) => self.stale = lists,
            Quirk::Linger(lists) => self.linger = lists,
        }
        true
    }
}
