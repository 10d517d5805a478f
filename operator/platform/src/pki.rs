//! Keys and certificates: one authority for each instance, and for each program the least identity that does.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::files::{self, FileError};
use crate::instance::Instance;
use crate::network::Network;

/// How long the authority is valid. It is never renewed: kubeconfigs that people copied carry it.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a certificate is valid.
const CERTIFICATE_DAYS: i64 = 365;
/// A certificate with less left is made anew at the next start.
const RENEW_DAYS: i64 = 30;
/// Clocks differ a little; a certificate of this very second may not be valid yet for its reader.
const BACKDATE_HOURS: i64 = 1;

/// A key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("failed to {action} {name}")]
    Crypto {
        /// What was tried.
        action: &'static str,
        /// For which certificate.
        name: &'static str,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// A date out of range: the machine's clock is wrong.
    #[error("failed to compute a validity from the machine's clock; is its date right?")]
    Clock,
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// The record of expiry dates could not be encoded.
    #[error("failed to encode the record of certificates")]
    Record(#[source] serde_json::Error),
}

/// Where the certificate and key of a name lie.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
}

impl Pki {
    pub(crate) fn of(instance: &Instance) -> Self {
        Self { directory: instance.pki() }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.certificate("ca")
    }

    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crt"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    /// The public half of the key that signs service account tokens.
    pub(crate) fn service_account_public(&self) -> PathBuf {
        self.directory.join("service-account.pub")
    }
}

/// One certificate to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    /// File name, without suffix.
    name: String,
    /// The user that Kubernetes sees.
    common_name: String,
    /// The group that Kubernetes sees.
    organization: Option<String>,
    /// Names and addresses it serves under; none for a client.
    serves: Vec<String>,
}

/// A certificate that was made: what for and until when.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    #[serde(flatten)]
    wanted: Wanted,
    expires: Timestamp,
}

/// All certificates of an instance. The identities are those that the default RBAC rules of Kubernetes expect.
fn wanted(node_name: &str, network: &Network) -> Vec<Wanted> {
    let node = network.node_address().to_string();
    let certificate = |name: &str, common_name: &str, organization: Option<&str>, serves: &[&str]| Wanted {
        name: name.to_owned(),
        common_name: common_name.to_owned(),
        organization: organization.map(str::to_owned),
        serves: serves.iter().map(|name| (*name).to_owned()).collect(),
    };
    let service = network.kubernetes_service().to_string();
    let kubernetes = "kubernetes.default.svc.cluster.local";
    let api = [
        "127.0.0.1",
        "localhost",
        &node,
        &service,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        kubernetes,
        node_name,
    ];
    vec![
        certificate("apiserver", "kube-apiserver", None, &api),
        // No default role lets a user talk to kubelets, so the API server needs the group that may do everything.
        certificate("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[]),
        certificate("admin", "provisioning-admin", Some("system:masters"), &[]),
        // The API server reaches the kubelet under the node's InternalIP; without it, logs and exec fail.
        certificate(
            "kubelet",
            &format!("system:node:{node_name}"),
            Some("system:nodes"),
            &[&node, "127.0.0.1", node_name],
        ),
        certificate("kube-controller-manager", "system:kube-controller-manager", None, &["127.0.0.1"]),
        certificate("kube-scheduler", "system:kube-scheduler", None, &["127.0.0.1"]),
        certificate("kube-proxy", "system:kube-proxy", None, &[]),
    ]
}

/// Makes every key and certificate that is missing, was made for other names, or has less than [`RENEW_DAYS`] days left.
///
/// Returns the names of those that were made.
pub(crate) fn ensure(instance: &Instance, network: &Network, now: Timestamp) -> Result<Vec<String>, PkiError> {
    let pki = Pki::of(instance);
    files::create_directory(&pki.directory)?;
    let (authority, new_authority) = authority(&pki, now)?;
    if files::read_optional(&pki.service_account_public())?.is_none() {
        let key = generate("service-account")?;
        files::write(&pki.key("service-account"), key.serialize_pem().as_bytes(), 0o600)?;
        files::write(&pki.service_account_public(), key.public_key_pem().as_bytes(), 0o644)?;
    }
    let mut made = Vec::new();
    for wanted in wanted(&instance.node_name(), network) {
        if new_authority || !is_current(&pki, &wanted, now) {
            sign(&pki, &authority, &wanted, now)?;
            made.push(wanted.name);
        }
    }
    Ok(made)
}

fn record(pki: &Pki, name: &str) -> PathBuf {
    pki.directory.join(format!("{name}.json"))
}

fn is_current(pki: &Pki, wanted: &Wanted, now: Timestamp) -> bool {
    let readable = |path: &Path| path.is_file();
    let text = std::fs::read_to_string(record(pki, &wanted.name)).unwrap_or_default();
    let Ok(made) = serde_json::from_str::<Made>(&text) else { return false };
    let left = made.expires.duration_since(now);
    readable(&pki.certificate(&wanted.name))
        && readable(&pki.key(&wanted.name))
        && made.wanted == *wanted
        && left > SignedDuration::from_hours(24 * RENEW_DAYS)
}

/// Reads the authority, or makes it. Only the key is read back: name and key are all that signing needs.
fn authority(pki: &Pki, now: Timestamp) -> Result<(Issuer<'static, KeyPair>, bool), PkiError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished("provisioning-ca", None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    if let (Some(key), true) = (files::read_optional(&pki.key("ca"))?, pki.authority().is_file()) {
        let key = KeyPair::from_pem(&key).map_err(crypto("read", "ca"))?;
        return Ok((Issuer::new(parameters, key), false));
    }
    (parameters.not_before, parameters.not_after, _) = validity(now, AUTHORITY_DAYS)?;
    let key = generate("ca")?;
    let certificate = parameters.self_signed(&key).map_err(crypto("sign", "ca"))?;
    files::write(&pki.key("ca"), key.serialize_pem().as_bytes(), 0o600)?;
    files::write(&pki.authority(), certificate.pem().as_bytes(), 0o644)?;
    Ok((Issuer::new(parameters, key), true))
}

fn sign(pki: &Pki, authority: &Issuer<'static, KeyPair>, wanted: &Wanted, now: Timestamp) -> Result<(), PkiError> {
    let name = "certificate";
    let mut parameters = CertificateParams::new(wanted.serves.clone()).map_err(crypto("name", name))?;
    parameters.distinguished_name = distinguished(&wanted.common_name, wanted.organization.as_deref());
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !wanted.serves.is_empty() {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let expires;
    (parameters.not_before, parameters.not_after, expires) = validity(now, CERTIFICATE_DAYS)?;
    let key = generate(name)?;
    let certificate = parameters.signed_by(&key, authority).map_err(crypto("sign", name))?;
    // The record last: without it, an interrupted change is made anew.
    files::remove(&record(pki, &wanted.name))?;
    files::write(&pki.key(&wanted.name), key.serialize_pem().as_bytes(), 0o600)?;
    files::write(&pki.certificate(&wanted.name), certificate.pem().as_bytes(), 0o644)?;
    let made = serde_json::to_vec_pretty(&Made { wanted: wanted.clone(), expires }).map_err(PkiError::Record)?;
    Ok(files::write(&record(pki, &wanted.name), &made, 0o644)?)
}

fn distinguished(common_name: &str, organization: Option<&str>) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn generate(name: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("generate", name))
}

fn crypto(action: &'static str, name: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Crypto { action, name, source }
}

fn validity(now: Timestamp, days: i64) -> Result<(OffsetDateTime, OffsetDateTime, Timestamp), PkiError> {
    let begins = now - SignedDuration::from_hours(BACKDATE_HOURS);
    let expires = now + SignedDuration::from_hours(24 * days);
    let date = |moment: Timestamp| OffsetDateTime::from_unix_timestamp(moment.as_second()).map_err(|_| PkiError::Clock);
    Ok((date(begins)?, date(expires)?, expires))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fixture() -> (tempfile::TempDir, Instance, Network) {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::below(folder.path(), "heron".parse().unwrap()).unwrap();
        (folder, instance, Network { octet: 123, name: "prov-x".to_owned() })
    }

    fn find(name: &str) -> Wanted {
        let (_folder, instance, network) = fixture();
        wanted(&instance.node_name(), &network).into_iter().find(|wanted| wanted.name == name).unwrap()
    }

    #[test]
    fn the_api_server_serves_under_its_address_and_its_service() {
        let serves = find("apiserver").serves;
        for name in ["10.123.0.1", "10.123.64.1", "kubernetes.default.svc", "127.0.0.1"] {
            assert!(serves.iter().any(|other| other == name), "{name}");
        }
    }

    #[test]
    fn the_kubelet_is_a_node_that_serves_under_the_nodes_address() {
        let kubelet = find("kubelet");
        assert_eq!(kubelet.common_name, "system:node:provisioning-heron");
        assert_eq!(kubelet.organization.as_deref(), Some("system:nodes"));
        assert!(kubelet.serves.contains(&"10.123.0.1".to_owned()));
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let (_folder, instance, network) = fixture();
        ensure(&instance, &network, Timestamp::now()).unwrap();
        for entry in std::fs::read_dir(instance.pki()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|suffix| suffix == "key") {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
            }
        }
    }

    #[test]
    fn certificates_stay_until_thirty_days_before_their_end() {
        let (_folder, instance, network) = fixture();
        let start = Timestamp::now();
        let after = |days: i64| start + SignedDuration::from_hours(24 * days);
        assert_eq!(ensure(&instance, &network, start).unwrap().len(), 7);
        let authority = std::fs::read(Pki::of(&instance).authority()).unwrap();
        assert!(ensure(&instance, &network, after(300)).unwrap().is_empty());
        assert_eq!(ensure(&instance, &network, after(336)).unwrap().len(), 7);
        assert_eq!(std::fs::read(Pki::of(&instance).authority()).unwrap(), authority);
    }

    #[test]
    fn another_network_means_other_certificates_for_those_that_serve_there() {
        let (_folder, instance, network) = fixture();
        ensure(&instance, &network, Timestamp::now()).unwrap();
        let moved = Network { octet: 124, ..network };
        assert_eq!(ensure(&instance, &moved, Timestamp::now()).unwrap(), ["apiserver", "kubelet"]);
    }
}
