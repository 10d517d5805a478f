//! The site of the Local provider: pods, Secrets and the catalog behind a Kubernetes API, with the node below it.
//!
//! It answers exactly the calls that the provider's role in the site allows, keeps what they wrote, and does what
//! scheduler and kubelet do between two looks. Names exist once and lists are never behind, as with the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use provisioning_api::names::{
    ANNOTATION_HOST_KEY, LABEL_INSTALLATION, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_NAMESPACE,
    LABEL_OWNER_UID, LABEL_ROLE, LABEL_TOKEN, SITE_CATALOG,
};
use serde_json::{Value, json};

use crate::claims::status;
use crate::world::{Call, MACHINE, Offer, Quirk, Refusal, Reply, Resource, Soon, Tags, World};

/// The site's namespace.
pub const SITE: &str = "wetland";
/// The image that its catalog offers.
pub const IMAGE: &str = "localhost/marsh-image:7";
const ZONES: [&str; 2] = ["local-a", "local-b"];
const NODE: &str = "reed";
const DISKS: &str = "/disks";

/// The site and its node.
pub struct Site {
    /// Pods by name.
    pub pods: BTreeMap<String, Value>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Value>,
    /// Folders on the node.
    pub disks: BTreeSet<String>,
    /// `catalog.json`; `None`: the ConfigMap is missing.
    pub catalog: Option<String>,
    /// Status that the kubelet gives every new server; `None`: Running and Ready.
    pub server_status: Option<Value>,
    /// Images that the node has not.
    pub absent_images: BTreeSet<String>,
    /// Lists for which a dying pod stays.
    linger: usize,
    counter: usize,
}

impl Default for Site {
    fn default() -> Self {
        let catalog = json!({
            "zones": ZONES,
            "sizes": [{"name": "small", "cores": 1, "memory": "512Mi", "disk": "10Gi"}],
            "images": [{"os": "debian", "version": "12", "id": IMAGE}],
            "diskRoot": DISKS,
        });
        Site {
            pods: BTreeMap::new(),
            secrets: BTreeMap::new(),
            disks: BTreeSet::new(),
            catalog: Some(catalog.to_string()),
            server_status: None,
            absent_images: BTreeSet::new(),
            linger: 0,
            counter: 0,
        }
    }
}

impl Site {
    /// Answers a call to the site's namespace.
    pub fn apply(&mut self, call: &Call) -> Reply {
        let route = call.route();
        let parts: Vec<&str> = route.trim_matches('/').split('/').collect();
        // api/v1/namespaces/SITE/KIND[/NAME]
        let ["api", "v1", "namespaces", SITE, kind, name @ ..] = parts.as_slice() else {
            return forbidden(&call.method, route);
        };
        let name = name.first().copied().unwrap_or_default();
        let read = || serde_json::from_slice::<Value>(&call.body).unwrap_or_default();
        match (call.method.as_str(), *kind, name) {
            ("GET", "configmaps", SITE_CATALOG) => match &self.catalog {
                Some(catalog) => Reply::new(
                    200,
                    json!({"kind": "ConfigMap", "apiVersion": "v1",
                    "metadata": {"name": SITE_CATALOG}, "data": {"catalog.json": catalog}}),
                ),
                None => not_found("configmaps", name),
            },
            ("GET", "pods", "") => {
                let items = self.list(call);
                self.settle();
                Reply::new(200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            ("GET", "pods", _) => {
                self.pods.get(name).map_or_else(|| not_found("pods", name), |pod| Reply::new(200, pod.clone()))
            }
            ("POST", "pods", "") => self.create_pod(read()),
            ("DELETE", "pods", _) => self.delete_pod(name, &read()),
            ("POST", "secrets", "") => self.create_secret(read()),
            ("DELETE", "secrets", _) => match self.secrets.remove(name) {
                Some(_) => {
                    Reply::new(200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
                }
                None => not_found("secrets", name),
            },
            _ => forbidden(&call.method, route),
        }
    }

    fn list(&self, call: &Call) -> Vec<Value> {
        let query = call.query();
        let selector = query.iter().find(|(key, _)| key == "labelSelector").map_or("", |(_, value)| value.as_str());
        let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|term| term.split_once('=')).collect();
        let fits = |pod: &&Value| wanted.iter().all(|(key, value)| label(pod, key) == *value);
        self.pods.values().filter(fits).cloned().collect()
    }

    /// Stores a pod, as a create does.
    pub fn create_pod(&mut self, mut pod: Value) -> Reply {
        let name = text(&pod["metadata"]["name"]).to_owned();
        if self.pods.contains_key(&name) {
            return status(409, "AlreadyExists", &format!("pods {name:?} already exists"));
        }
        self.counter += 1;
        pod["metadata"]["uid"] = json!(format!("pod-{}", self.counter));
        if pod["status"].is_null() {
            pod["status"] = json!({"phase": "Pending"});
        }
        self.pods.insert(name, pod.clone());
        Reply::new(201, pod)
    }

    fn delete_pod(&mut self, name: &str, options: &Value) -> Reply {
        let linger = self.linger;
        let Some(pod) = self.pods.get_mut(name) else { return not_found("pods", name) };
        let expected = &options["preconditions"]["uid"];
        if !expected.is_null() && pod["metadata"]["uid"] != *expected {
            return status(409, "Conflict", &format!("the UID in the precondition ({expected}) does not match"));
        }
        if pod["metadata"]["deletionTimestamp"].is_null() {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(linger);
        }
        Reply::new(200, pod.clone())
    }

    fn create_secret(&mut self, secret: Value) -> Reply {
        let name = text(&secret["metadata"]["name"]).to_owned();
        if self.secrets.contains_key(&name) {
            return status(409, "AlreadyExists", &format!("secrets {name:?} already exists"));
        }
        self.secrets.insert(name, secret.clone());
        Reply::new(201, secret)
    }

    /// What scheduler and kubelet do between two looks: dying pods go, servers boot, wipes run once no server is left.
    pub fn settle(&mut self) {
        let grace = |pod: &Value| pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
        self.pods.retain(|_, pod| pod["metadata"]["deletionTimestamp"].is_null() || grace(pod) > 0);
        for pod in self.pods.values_mut().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()) {
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace(pod) - 1);
        }
        let servers: BTreeSet<String> = self
            .pods
            .values()
            .filter(|pod| label(pod, LABEL_ROLE) == "server")
            .map(|pod| label(pod, LABEL_OWNER_UID).to_owned())
            .collect();
        let ready =
            json!({"phase": "Running", "podIP": "10.9.8.7", "conditions": [{"type": "Ready", "status": "True"}]});
        let booted = self.server_status.clone().unwrap_or(ready);
        for pod in self.pods.values_mut().filter(|pod| pod["status"]["phase"] == "Pending") {
            let folder = text(&pod["spec"]["volumes"][0]["hostPath"]["path"]).to_owned();
            let uid = label(pod, LABEL_OWNER_UID).to_owned();
            if self.absent_images.contains(text(&pod["spec"]["containers"][0]["image"])) {
                pod["spec"]["nodeName"] = json!(NODE);
                pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]);
            } else if label(pod, LABEL_ROLE) == "server" {
                self.disks.insert(folder);
                pod["spec"]["nodeName"] = json!(NODE);
                pod["status"] = booted.clone();
            } else if !servers.contains(&uid) {
                self.disks.retain(|disk| !disk.starts_with(&format!("{folder}/{uid}-")));
                pod["status"] = json!({"phase": "Succeeded"});
            }
        }
    }
}

fn not_found(kind: &str, name: &str) -> Reply {
    status(404, "NotFound", &format!("{kind} {name:?} not found"))
}

fn forbidden(method: &str, route: &str) -> Reply {
    let message = format!("{route} is forbidden: the provider cannot {method} this resource in the site");
    status(403, "Forbidden", &message)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(&object["metadata"]["labels"][key])
}

fn tags(object: &Value) -> Tags {
    let of = |key: &str| label(object, key).to_owned();
    Tags {
        installation: of(LABEL_INSTALLATION),
        namespace: of(LABEL_OWNER_NAMESPACE),
        kind: of(LABEL_OWNER_KIND),
        name: of(LABEL_OWNER_NAME),
        uid: of(LABEL_OWNER_UID),
        token: of(LABEL_TOKEN),
    }
}

impl World for Site {
    /// The site is behind the Kubernetes API that every executor has anyway.
    fn environment(&self, _origin: &str, _folder: &Path) -> std::io::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    fn offer(&self) -> Offer {
        Offer { site: SITE.to_owned(), zone: ZONES[0].to_owned(), image: IMAGE.to_owned() }
    }

    fn answer<'a>(&'a mut self, call: &'a Call) -> Soon<'a, Reply> {
        Box::pin(std::future::ready(self.apply(call)))
    }

    fn refusal(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Unauthorized => status(401, "Unauthorized", "Unauthorized"),
            Refusal::Throttled(seconds) => {
                let mut reply = status(429, "TooManyRequests", "storage is (re)initializing");
                reply.body["details"] = json!({"retryAfterSeconds": seconds});
                reply.headers.push(("retry-after".to_owned(), seconds.to_string()));
                reply
            }
            Refusal::Broken(code) => status(code, "InternalError", "etcdserver: leader changed"),
        }
    }

    fn resources(&mut self) -> Soon<'_, Vec<Resource>> {
        let mut resources = Vec::new();
        for (id, pod) in &self.pods {
            let what = if label(pod, LABEL_ROLE) == "server" { MACHINE } else { "pod" };
            resources.push(Resource { what, id: id.clone(), tags: tags(pod) });
        }
        for (id, secret) in &self.secrets {
            resources.push(Resource { what: "Secret", id: id.clone(), tags: tags(secret) });
        }
        for id in &self.disks {
            // /disks/SITE/NAMESPACE/UID-INCARNATION
            let folder = id.rsplit('/').next().unwrap_or_default();
            let uid = folder.rsplit_once('-').map_or(folder, |(uid, _)| uid).to_owned();
            resources.push(Resource { what: "disk", id: id.clone(), tags: Tags { uid, ..Tags::default() } });
        }
        Box::pin(std::future::ready(resources))
    }

    fn plant<'a>(&'a mut self, tags: &'a Tags) -> Soon<'a, String> {
        let name = format!("srv-planted-{}", self.counter);
        let Tags { installation, namespace, kind, name: owner, uid, token } = tags;
        let disk = format!("{DISKS}/{SITE}/{namespace}/{uid}-0");
        let pod = json!({
            "metadata": {
                "name": name,
                "labels": {
                    LABEL_INSTALLATION: installation, LABEL_OWNER_NAMESPACE: namespace, LABEL_OWNER_KIND: kind,
                    LABEL_OWNER_NAME: owner, LABEL_OWNER_UID: uid, LABEL_TOKEN: token, LABEL_ROLE: "server",
                    "provisioning.dev/incarnation": "0",
                },
                "annotations": {ANNOTATION_HOST_KEY: "ssh-ed25519 AAAAPlanted"},
            },
            "spec": {"nodeName": NODE, "containers": [{"name": "server", "image": IMAGE}]},
            "status": {"phase": "Running"},
        });
        self.disks.insert(disk);
        self.create_pod(pod);
        Box::pin(std::future::ready(name))
    }

    fn take_on(&mut self, quirk: Quirk) -> bool {
        match quirk {
            // A name is not forgotten, and a list is read from the store.
            Quirk::ForgetTokens | Quirk::StaleLists(_) => false,
            Quirk::Linger(lists) => {
                self.linger = lists;
                true
            }
        }
    }
}
