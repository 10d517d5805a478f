//! Fixtures shared by the unit tests.

use k8s_openapi::api::core::v1::ConfigMap;
use provisioning_api::provider_config::{OfferedImage, OfferedSize, ProviderType};
use provisioning_api::server::Creation;
use provisioning_sdk::request::Owner;
use serde_json::json;

use crate::catalog::Catalog;
use crate::names::Machine;

pub(crate) const UID: &str = "0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d10";
pub(crate) const IMAGE: &str = "localhost/marsh-image:7";

pub(crate) fn creation(token: &str) -> Creation {
    Creation {
        provider: ProviderType::Local,
        site: "wetland".into(),
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
    serde_json::from_value(json!({"metadata": {"name": "provisioning-catalog"}, "data": {"catalog.json": text}}))
        .unwrap()
}
