//! Fixtures of the unit tests, and a site in memory behind a real `kube::Client`, with faults at any call.

use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use provisioning_api::names::{LABEL_INSTALLATION, LABEL_OWNER_NAMESPACE, LABEL_OWNER_UID, LABEL_TOKEN, SITE_CATALOG};
use provisioning_api::provider_config::{OfferedImage, OfferedSize, ProviderType};
use provisioning_api::server::Creation;
use provisioning_api::steps::Direction;
use provisioning_conformance::world::{Call, Reply};
use provisioning_conformance::worlds::site;
use provisioning_sdk::claim::{Claim, Identity};
use provisioning_sdk::request::{Envelope, Owner};
use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::names::Machine;
use crate::site::Site;

pub(crate) const UID: &str = "0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d10";
pub(crate) const IMAGE: &str = site::IMAGE;
const SITE: &str = site::SITE;

pub(crate) fn creation(token: &str) -> Creation {
    Creation {
        provider: ProviderType::Local,
        site: SITE.into(),
        zone: "local-a".into(),
        cores: 1,
        memory_mib: 512,
        disk_gib: 10,
        reserved_percent: 10,
        image: IMAGE.into(),
        user_key: "ssh-ed25519 AAAAuser marsh".into(),
        token: token.into(),
    }
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner { kind: "Server".into(), namespace: "marsh".into(), name: name.into(), uid: UID.into() }
}

pub(crate) fn machine(name: &str, incarnation: i64) -> Machine {
    Machine::new(owner(name), "f00d".into(), incarnation, creation(&format!("token-{incarnation}"))).unwrap()
}

pub(crate) fn catalog() -> Catalog {
    Catalog {
        zones: vec!["local-a".into(), "local-b".into()],
        sizes: vec![OfferedSize { name: "small".into(), cores: 1, memory: "512Mi".into(), disk: "10Gi".into() }],
        images: vec![OfferedImage { os: "debian".into(), version: "12".into(), id: IMAGE.into() }],
        disk_root: "/disks".into(),
    }
}

pub(crate) fn catalog_map(catalog: &Catalog) -> ConfigMap {
    let text = serde_json::to_string(catalog).unwrap();
    serde_json::from_value(json!({"metadata": {"name": SITE_CATALOG}, "data": {"catalog.json": text}})).unwrap()
}

/// What goes wrong at a call of the provider to the site.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The process dies before the request arrives.
    Before(usize),
    /// The process dies after the request had its effect.
    After(usize),
    /// The process dies, and the request has its effect that many calls later, when the next run is at work.
    Late(usize, usize),
    /// The call is answered with this code.
    Answer(usize, u16),
}

/// The site, with what goes wrong on the way there.
pub(crate) struct World {
    pub(crate) site: site::Site,
    /// Calls to the site, as `VERB kind`, of all runs.
    pub(crate) calls: Vec<String>,
    /// `None`: the catalog's ConfigMap is missing.
    pub(crate) catalog: Option<Catalog>,
    fault: Option<Fault>,
    seen: usize,
    dead: bool,
    late: Option<(usize, Call)>,
}

/// Shared handle of a [`World`].
#[derive(Clone)]
pub(crate) struct FakeSite(Arc<Mutex<World>>);

impl FakeSite {
    pub(crate) fn new() -> Self {
        FakeSite(Arc::new(Mutex::new(World {
            site: site::Site::default(),
            calls: Vec::new(),
            catalog: Some(catalog()),
            fault: None,
            seen: 0,
            dead: false,
            late: None,
        })))
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// A new process of the provider with a claim of its own; `fault` counts its calls from 0.
    pub(crate) async fn start(&self, fault: Option<Fault>) -> Site {
        self.with(|world| {
            world.fault = None;
            world.dead = false;
        });
        let site = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let site = site.clone();
            async move { site.answer(request).await }
        });
        let client = Client::new(service, SITE);
        let envelope = Envelope {
            owner: owner("blue-heron"),
            step: "create".into(),
            run: 1,
            epoch: 0,
            direction: Direction::Forward,
            input_hash: "v1:0".into(),
            timeout_seconds: 600,
            installation: "f00d".into(),
            payload: (),
        };
        let identity = Identity { job_name: "job".into(), pod_uid: "p".into() };
        let claim = Claim::acquire(client.clone(), &envelope, &identity).await.unwrap();
        self.with(|world| {
            world.fault = fault;
            world.seen = 0;
        });
        Site::new(client, SITE, claim)
    }

    pub(crate) fn add_pod(&self, mut pod: Value, status: Value) {
        pod["status"] = status;
        self.with(|world| world.site.create_pod(pod));
    }

    pub(crate) fn pods(&self) -> Vec<Value> {
        self.with(|world| world.site.pods.values().cloned().collect())
    }

    pub(crate) fn secrets(&self) -> Vec<Value> {
        self.with(|world| world.site.secrets.values().cloned().collect())
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        let (method, path) = (parts.method.to_string(), parts.uri.to_string());
        self.with(|world| world.answer(Call { method, path, headers: Vec::new(), body }))
    }
}

impl World {
    fn answer(&mut self, call: Call) -> Result<Response<Body>, tower::BoxError> {
        if !call.path.contains(&format!("/namespaces/{SITE}/")) {
            return Ok(reply(workspace_object(&call.path)));
        }
        if let Some((wait, _)) = &mut self.late {
            *wait = wait.saturating_sub(1);
        }
        if let Some((_, call)) = self.late.take_if(|(wait, _)| *wait == 0) {
            self.apply(&call);
        }
        if self.dead {
            return Err("the process is dead".into());
        }
        let now = self.seen;
        self.seen += 1;
        match self.fault {
            Some(Fault::Before(at)) if at == now => {
                self.dead = true;
                Err("died before the request arrived".into())
            }
            Some(Fault::After(at)) if at == now => {
                self.dead = true;
                self.apply(&call);
                Err("died before the answer arrived".into())
            }
            Some(Fault::Late(at, wait)) if at == now => {
                self.dead = true;
                self.late = Some((wait, call));
                Err("died while the request was on its way".into())
            }
            Some(Fault::Answer(at, code)) if at == now => Ok(reply((code, status(code, "as planned")))),
            _ => Ok(reply(self.apply(&call))),
        }
    }

    fn apply(&mut self, call: &Call) -> (u16, Value) {
        let parts: Vec<&str> = call.route().trim_matches('/').split('/').collect();
        let verb = if call.method == "GET" && parts.len() == 5 { "LIST" } else { call.method.as_str() };
        self.calls.push(format!("{verb} {}", parts[4]));
        match (verb, parts[4]) {
            ("LIST", _) => {
                let query = call.query();
                let selector = query.iter().find(|(key, _)| key == "labelSelector").unwrap();
                assert!([LABEL_OWNER_UID, LABEL_INSTALLATION].iter().any(|label| selector.1.contains(label)));
            }
            ("DELETE", "pods") => {
                let options: Value = serde_json::from_slice(&call.body).unwrap();
                assert!(options["preconditions"]["uid"].is_string(), "pods are deleted by uid");
            }
            _ => {}
        }
        self.site.catalog = self.catalog.as_ref().map(|catalog| serde_json::to_string(catalog).unwrap());
        let Reply { code, body, .. } = self.site.apply(call);
        assert!(code != 403, "the provider has no right to {verb} {}", call.path);
        (code, body)
    }
}

/// The owner, its Workspace and the Lease, which are not in the site.
fn workspace_object(uri: &str) -> (u16, Value) {
    let step = json!({"id": "create", "action": "Create", "undo": "DeleteServer", "phase": "Running", "run": 1,
        "inputHash": "v1:0", "epoch": 0});
    let meta = json!({"name": "blue-heron", "namespace": "marsh", "uid": UID});
    if uri.contains("/servers/") {
        let server = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server", "metadata": meta,
            "status": {"steps": [step]}});
        return (200, server);
    }
    if uri.contains("/workspaces/") {
        let workspace = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
            "metadata": {"name": "workspace", "namespace": "marsh"}, "spec": {}});
        return (200, workspace);
    }
    (201, json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "job"}}))
}

fn reply((code, body): (u16, Value)) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code})
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(&object["metadata"]["labels"][key])
}

/// A manifest as JSON, with other labels where given.
pub(crate) fn relabelled(pod: &k8s_openapi::api::core::v1::Pod, name: &str, labels: &[(&str, &str)]) -> Value {
    let mut value = serde_json::to_value(pod).unwrap();
    value["metadata"]["name"] = json!(name);
    for (key, label) in labels {
        value["metadata"]["labels"][*key] = json!(label);
    }
    value
}

/// A server of another workspace on the same site, with its disk, which nothing may touch.
pub(crate) fn add_neighbour(site: &FakeSite) -> String {
    let uid = "ffffffff-3c55-4d7e-9a39-6f1f4a8c2d10";
    let pod = crate::template::server(&machine("grey-goose", 0), "grey-goose", "ssh-ed25519 N", "/disks").unwrap();
    let labels = [(LABEL_OWNER_UID, uid), (LABEL_OWNER_NAMESPACE, "fen"), (LABEL_TOKEN, "other")];
    site.add_pod(relabelled(&pod, "srv-grey-goose", &labels), json!({"phase": "Running"}));
    let disk = format!("/disks/{SITE}/fen/{uid}-0");
    site.with(|world| world.site.disks.insert(disk.clone()));
    disk
}
