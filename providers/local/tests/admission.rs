//! Replays tests/admission/cases.yaml against a cluster that has the chart.
//!
//! Needs `KUBECONFIG` of an administrator; run with `-- --ignored`. Each request is a dry run but for the objects that an
//! update or a delete needs, which never get a node and are removed again.
// clippy knows functions with #[test] as tests, not their helpers in a folder of tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, Config};
use provisioning_api::names::{DEFAULT_SITE, SITE_CATALOG};
use provisioning_api::provider_config::ProviderType;
use provisioning_api::server::Creation;
use provisioning_provider_local::catalog::Catalog;
use provisioning_provider_local::keys::HostKey;
use provisioning_provider_local::names::Machine;
use provisioning_provider_local::template;
use provisioning_sdk::request::Owner;
use serde::Deserialize;
use serde_json::{Value, json};

const UID: &str = "5d1c7e2a-91b4-4c1f-8e6d-0a3b5c7d9e1f";
const OTHER: &str = "77777777-91b4-4c1f-8e6d-0a3b5c7d9e1f";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    base: Base,
    #[serde(default, rename = "as")]
    requester: Requester,
    #[serde(default)]
    verb: Verb,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
    refused: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Base {
    Server,
    Wipe,
    Secret,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
enum Requester {
    #[default]
    Executor,
    Neighbour,
    Account,
    Administrator,
}

impl Requester {
    const ALL: [Requester; 4] =
        [Requester::Executor, Requester::Neighbour, Requester::Account, Requester::Administrator];

    fn user(self) -> &'static str {
        match self {
            Requester::Executor => "system:serviceaccount:marsh:provisioning-local-provider",
            Requester::Neighbour => "system:serviceaccount:fen:provisioning-local-provider",
            Requester::Account => "system:serviceaccount:marsh:somebody",
            Requester::Administrator => "heron-keeper",
        }
    }
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum Verb {
    #[default]
    Create,
    Update,
    Delete,
    Ephemeral,
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("admission/cases.yaml")).unwrap()
}

#[test]
fn the_table_has_cases_of_both_kinds_under_distinct_names() {
    let cases = cases();
    assert!(cases.iter().any(|case| case.refused.is_none()) && cases.iter().any(|case| case.refused.is_some()));
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    let catalog = Catalog { zones: vec![], sizes: vec![], images: vec![], disk_root: "/disks".into() };
    for case in &cases {
        // Every pointer must hit: a case that changes nothing would show nothing.
        manifest(case, &catalog, "localhost/marsh-image:7");
    }
}

#[tokio::test]
#[ignore = "needs a cluster that has the chart, and KUBECONFIG of its administrator"]
async fn the_site_s_policies_allow_the_provider_s_manifests_and_nothing_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let admin = Client::try_default().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), DEFAULT_SITE);
    let catalog = Catalog::read(&maps.get(SITE_CATALOG).await.unwrap()).unwrap();
    let image = catalog.images[0].id.clone();
    grant(&admin).await;
    let mut clients = BTreeMap::new();
    for requester in Requester::ALL {
        let mut config = Config::infer().await.unwrap();
        config.auth_info.impersonate = Some(requester.user().to_owned());
        clients.insert(requester, Client::try_from(config).unwrap());
    }
    let mut wrong = Vec::new();
    for case in cases() {
        let answer = replay(&admin, &clients[&case.requester], &case, manifest(&case, &catalog, &image)).await;
        match (&case.refused, answer) {
            (None, Ok(())) => {}
            (Some(expected), Err(words)) if words.contains(expected.as_str()) => {}
            (expected, answer) => wrong.push(format!("{}: expected {expected:?}, got {answer:?}", case.name)),
        }
    }
    withdraw(&admin).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn machine(image: &str) -> Machine {
    let creation = Creation {
        provider: ProviderType::Local,
        site: DEFAULT_SITE.into(),
        zone: "local-a".into(),
        cores: 1,
        memory_mib: 512,
        disk_gib: 10,
        reserved_percent: 10,
        image: image.into(),
        user_key: "ssh-ed25519 AAAA marsh".into(),
        token: "3f9a".into(),
    };
    let owner = Owner { kind: "Server".into(), namespace: "marsh".into(), name: "blue-heron".into(), uid: UID.into() };
    Machine::new(owner, "f00d".into(), 0, creation).unwrap()
}

fn manifest(case: &Case, catalog: &Catalog, image: &str) -> Value {
    let machine = machine(image);
    let root = &catalog.disk_root;
    let key = HostKey::generate().unwrap();
    let mut value = match case.base {
        Base::Server => serde_json::to_value(template::server(&machine, "blue-heron", key.public(), root).unwrap()),
        Base::Wipe => serde_json::to_value(template::wipe(&machine, None, image, root).unwrap()),
        Base::Secret => serde_json::to_value(template::secret(&machine, &key).unwrap()),
    }
    .unwrap();
    if case.verb == Verb::Create {
        change(&mut value, case);
    }
    value
}

fn change(value: &mut Value, case: &Case) {
    for (pointer, new) in &case.set {
        let new = new.to_string().replace("$UID", UID).replace("$OTHER", OTHER);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{}: no {parent}", case.name));
        let new = serde_json::from_str(&new).unwrap();
        match parent {
            Value::Array(list) if key == "-" => list.push(new),
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = new,
            map => map[key] = new,
        }
    }
    for pointer in &case.remove {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        assert!(parent.remove(&key.replace("~1", "/")).is_some(), "{}: no {pointer}", case.name);
    }
}

/// One request. `Err` holds the API server's words.
async fn replay(admin: &Client, client: &Client, case: &Case, value: Value) -> Result<(), String> {
    let kind = if matches!(case.base, Base::Secret) { "Secret" } else { "Pod" };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), DEFAULT_SITE, &resource);
    let as_admin: Api<DynamicObject> = Api::namespaced_with(admin.clone(), DEFAULT_SITE, &resource);
    let mut object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
    let name = object.metadata.name.clone().unwrap();
    let dry = PostParams { dry_run: true, field_manager: None };
    let words = |error: kube::Error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    };
    if case.verb == Verb::Create {
        return api.create(&dry, &object).await.map(drop).map_err(words);
    }
    // A scheduler that does not exist: the pod gets no node, so nothing runs.
    if kind == "Pod" {
        object.data["spec"]["schedulerName"] = json!("nobody");
    }
    let made = as_admin.create(&PostParams::default(), &object).await.unwrap();
    let answer = match case.verb {
        Verb::Create => unreachable!(),
        Verb::Delete => api.delete(&name, &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.map(drop),
        Verb::Update => {
            let mut changed = serde_json::to_value(&made).unwrap();
            change(&mut changed, case);
            api.replace(&name, &dry, &serde_json::from_value(changed).unwrap()).await.map(drop)
        }
        Verb::Ephemeral => {
            let mut changed = serde_json::to_value(&made).unwrap();
            changed["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "evil"}]);
            api.replace_subresource("ephemeralcontainers", &name, &dry, &changed).await.map(drop)
        }
    };
    as_admin.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    answer.map_err(words)
}

/// Rights in the site: more than the chart's role gives, so that it is the policies that refuse.
async fn grant(admin: &Client) {
    withdraw(admin).await;
    let subjects = |users: &[Requester]| -> Value {
        users
            .iter()
            .map(|user| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user.user()}))
            .collect()
    };
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admission-test"});
    let make = |resource: &str, body: Value| {
        let admin = admin.clone();
        let api = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", body["kind"].as_str().unwrap()),
            resource,
        );
        async move {
            let namespace = body["metadata"]["namespace"].as_str();
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(admin, namespace, &api),
                None => Api::all_with(admin, &api),
            };
            api.create(&PostParams::default(), &serde_json::from_value(body.clone()).unwrap()).await.unwrap();
        }
    };
    let rules = json!([{"apiGroups": [""], "resources": ["pods", "pods/ephemeralcontainers", "secrets"],
        "verbs": ["get", "create", "update", "delete"]}]);
    make("clusterroles", json!({"kind": "ClusterRole", "metadata": {"name": "admission-test"}, "rules": rules})).await;
    let users = subjects(&[Requester::Executor, Requester::Neighbour, Requester::Account]);
    let metadata = json!({"name": "admission-test", "namespace": DEFAULT_SITE});
    make("rolebindings", json!({"kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": users}))
        .await;
    let keeper = subjects(&[Requester::Administrator]);
    let mut all = role;
    all["name"] = json!("cluster-admin");
    let binding = json!({"kind": "ClusterRoleBinding", "metadata": {"name": "admission-test"}, "roleRef": all,
        "subjects": keeper});
    make("clusterrolebindings", binding).await;
    wait_for_rights(admin).await;
}

/// The authorizer learns of new bindings a moment later.
async fn wait_for_rights(admin: &Client) {
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(Requester::Administrator.user().to_owned());
    let client = Client::try_from(config).unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    let mine: Api<Namespace> = Api::all(admin.clone());
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while namespaces.get(DEFAULT_SITE).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the rights of the test never came");
        mine.get(DEFAULT_SITE).await.unwrap();
    }
}

async fn withdraw(admin: &Client) {
    let now = DeleteParams::default();
    let _ = Api::<RoleBinding>::namespaced(admin.clone(), DEFAULT_SITE).delete("admission-test", &now).await;
    let _ = Api::<ClusterRoleBinding>::all(admin.clone()).delete("admission-test", &now).await;
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(admin.clone());
    let _ = roles.delete("admission-test", &now).await;
}
