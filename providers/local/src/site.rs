//! The site's API: the few calls that this provider makes, each bounded, each effect after a look at the claim.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use provisioning_api::names::SITE_CATALOG;
use provisioning_api::steps::FailureClass;
use provisioning_sdk::claim::{Claim, ClaimError};
pub use provisioning_sdk::patience::Patience;

use crate::errors::Failure;

/// Longest duration of one call (protocols §2: a call lasts at most 60 s).
const CALL: Duration = Duration::from_secs(60);

/// Why a call to the site did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The run may not act, or the API server could not be asked whether it may.
    #[error(transparent)]
    ConfirmClaim(#[from] ClaimError),
    /// The API server answered with an error, or could not be reached.
    #[error("failed to {verb} {object}")]
    Call {
        /// The verb, for example `create`.
        verb: &'static str,
        /// Kind and name.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer within 60 s. The call may still have had its effect: the next run looks before it acts.
    #[error("failed to {verb} {object}: no answer within {} s", CALL.as_secs())]
    AwaitAnswer {
        /// The verb.
        verb: &'static str,
        /// Kind and name.
        object: String,
    },
}

impl Failure for SiteError {
    fn class(&self) -> FailureClass {
        match self {
            SiteError::ConfirmClaim(ClaimError::Refused(_)) => FailureClass::Refused,
            SiteError::ConfirmClaim(ClaimError::Request { .. }) | SiteError::AwaitAnswer { .. } => {
                FailureClass::Transient
            }
            SiteError::Call { source, .. } => match &**source {
                kube::Error::Api(status) => class_of(status.code, &status.message),
                _ => FailureClass::Transient,
            },
        }
    }

    fn reason(&self) -> &'static str {
        match (self, self.class()) {
            (SiteError::ConfirmClaim(ClaimError::Refused(_)), _) => "ClaimRefused",
            (SiteError::ConfirmClaim(ClaimError::Request { .. }), _) => "ClaimUnanswered",
            (_, FailureClass::Throttled) => "TooManyRequests",
            (_, FailureClass::Unauthorized) => "Forbidden",
            (_, FailureClass::Invalid) => "RequestDenied",
            _ => "SiteUnavailable",
        }
    }

    fn retry_after_seconds(&self) -> Option<i64> {
        let SiteError::Call { source, .. } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        let wished = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        (status.code == 429 && wished > 0).then(|| i64::from(wished))
    }
}

/// Class of an answer. The API server uses 403 both for missing rights, which a person must grant, and for
/// admission's refusals (quota, pod security, webhooks), which are about the request; only the text tells.
fn class_of(code: u16, message: &str) -> FailureClass {
    match code {
        401 => FailureClass::Unauthorized,
        403 if message.contains(" cannot ") && message.contains(" resource ") => FailureClass::Unauthorized,
        429 => FailureClass::Throttled,
        400 | 403 | 404 | 405 | 413 | 422 => FailureClass::Invalid,
        _ => FailureClass::Transient,
    }
}

/// What a create found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now, made by this call.
    Fresh,
    /// Something of that name was there before.
    AlreadyExists,
}

/// The site's namespace, seen with the executor's rights, and the claim without which nothing is changed there.
pub struct Site {
    name: String,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    claim: Claim,
}

impl Site {
    /// The site of that name.
    pub fn new(client: Client, name: &str, claim: Claim) -> Self {
        Site {
            name: name.to_owned(),
            pods: Api::namespaced(client.clone(), name),
            secrets: Api::namespaced(client.clone(), name),
            maps: Api::namespaced(client, name),
            claim,
        }
    }

    /// Reads the ConfigMap with what the site offers.
    pub async fn read_catalog_map(&self) -> Result<ConfigMap, SiteError> {
        let object = || format!("ConfigMap {}/{SITE_CATALOG} (the chart makes it)", self.name);
        call("get", object, self.maps.get(SITE_CATALOG)).await
    }

    /// Pods with these labels, read from the API server, not from a cache of ours.
    pub async fn list_pods(&self, selector: &str) -> Result<Vec<Pod>, SiteError> {
        let parameters = ListParams::default().labels(selector);
        let object = || format!("pods of site {}", self.name);
        Ok(call("list", object, self.pods.list(&parameters)).await?.items)
    }

    /// The pod of that name.
    pub async fn get_pod(&self, name: &str) -> Result<Option<Pod>, SiteError> {
        call("get", || self.pod(name), self.pods.get_opt(name)).await
    }

    /// Creates a pod.
    pub async fn create_pod(&mut self, pod: &Pod) -> Result<Created, SiteError> {
        self.claim.confirm().await?;
        let parameters = PostParams::default();
        let answer = call("create", || self.pod(&pod.name_any()), self.pods.create(&parameters, pod)).await;
        created(answer.map(drop))
    }

    /// Deletes exactly this pod (by uid), gracefully. Fine where it is gone or another one has its name.
    pub async fn delete_pod(&mut self, pod: &Pod) -> Result<(), SiteError> {
        self.claim.confirm().await?;
        let name = pod.name_any();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        deleted(call("delete", || self.pod(&name), self.pods.delete(&name, &parameters)).await.map(drop), &[404, 409])
    }

    /// Creates a Secret.
    pub async fn create_secret(&mut self, secret: &Secret) -> Result<Created, SiteError> {
        self.claim.confirm().await?;
        let parameters = PostParams::default();
        let object = || self.secret(&secret.name_any());
        created(call("create", object, self.secrets.create(&parameters, secret)).await.map(drop))
    }

    /// Deletes the Secret of that name. Fine where it is gone.
    pub async fn delete_secret(&mut self, name: &str) -> Result<(), SiteError> {
        self.claim.confirm().await?;
        let parameters = DeleteParams::default();
        deleted(call("delete", || self.secret(name), self.secrets.delete(name, &parameters)).await.map(drop), &[404])
    }

    fn pod(&self, name: &str) -> String {
        format!("pod {}/{name}", self.name)
    }

    fn secret(&self, name: &str) -> String {
        format!("Secret {}/{name}", self.name)
    }
}

/// One call within its time.
async fn call<T>(
    verb: &'static str,
    object: impl FnOnce() -> String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, SiteError> {
    match tokio::time::timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(SiteError::Call { verb, object: object(), source: Box::new(source) }),
        Err(_) => Err(SiteError::AwaitAnswer { verb, object: object() }),
    }
}

fn code(error: &SiteError) -> u16 {
    match error {
        SiteError::Call { source, .. } => match &**source {
            kube::Error::Api(status) => status.code,
            _ => 0,
        },
        _ => 0,
    }
}

fn created(answer: Result<(), SiteError>) -> Result<Created, SiteError> {
    match answer {
        Ok(()) => Ok(Created::Fresh),
        Err(error) if code(&error) == 409 => Ok(Created::AlreadyExists),
        Err(error) => Err(error),
    }
}

fn deleted(answer: Result<(), SiteError>, fine: &[u16]) -> Result<(), SiteError> {
    answer.or_else(|error| if fine.contains(&code(&error)) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_s_class_decides_who_has_to_do_something() {
        let table = [
            (401, "Unauthorized", FailureClass::Unauthorized),
            (
                403,
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group """#,
                FailureClass::Unauthorized,
            ),
            (403, "pods \"p\" is forbidden: exceeded quota: compute", FailureClass::Invalid),
            (403, "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"", FailureClass::Invalid),
            (404, "namespaces \"nowhere\" not found", FailureClass::Invalid),
            (422, "ValidatingAdmissionPolicy 'p' with binding 'p' denied request", FailureClass::Invalid),
            (429, "too many requests", FailureClass::Throttled),
            (500, "etcdserver: leader changed", FailureClass::Transient),
            (504, "request timed out", FailureClass::Transient),
        ];
        for (code, message, class) in table {
            assert_eq!(class_of(code, message), class, "{code} {message}");
        }
    }
}
