//! The last log lines of a failed run stay readable after its Job is gone: a ConfigMap per step.

use futures::AsyncReadExt;
// Logs are offered for the published type only.
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, LogParams, PostParams};
use provisioning_api::names::{
    ANNOTATION_STEP_ID, LABEL_LOG_OF, LABEL_MANAGED_BY, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_UID, LABEL_RUN,
    MANAGER, MAX_LOG,
};
use provisioning_plan::ids::step_label;
use provisioning_sdk::result::tail;

use super::finalize::delete;
use super::kind::Kind;
use super::observe::EXECUTOR;
use crate::context::Context;
use crate::error::Error;
use crate::executors::Job;

/// Name of the ConfigMap that keeps the log of a step's last failed run.
pub fn log_name(owner_uid: &str, step: &str) -> String {
    format!("log-{}", step_label(&format!("{owner_uid}\n{step}")))
}

/// Keeps the log of a Job's failed run. Its Job is closed afterwards, not before: until then the next pass tries again.
///
/// # Errors
/// Where the ConfigMap cannot be written. A log that cannot be read any more is no error.
pub async fn keep<K: Kind>(ctx: &Context, object: &K, job: &Job) -> Result<(), Error> {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    // The last lines; a limit in bytes would keep the first ones.
    let parameters = LogParams { container: Some(EXECUTOR.to_owned()), tail_lines: Some(300), ..LogParams::default() };
    match end_of_log(&pods, &name, &parameters).await {
        Ok(text) if !text.is_empty() => store(ctx, object, job, &tail(&text, MAX_LOG)).await,
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::info!(job = name, %error, "the log of a failed run cannot be read");
            Ok(())
        }
    }
}

/// The end of a log, however long its lines are: no more than what is kept, twice, is in memory.
async fn end_of_log(pods: &Api<Pod>, name: &str, parameters: &LogParams) -> Result<String, kube::Error> {
    let mut stream = std::pin::pin!(pods.log_stream(name, parameters).await?);
    let (mut end, mut piece) = (Vec::new(), vec![0; 8 * 1024]);
    loop {
        let count = stream.read(&mut piece).await.map_err(kube::Error::ReadEvents)?;
        end.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count == 0 {
            return Ok(String::from_utf8_lossy(&end).into_owned());
        }
        if end.len() > 2 * MAX_LOG {
            end.drain(..end.len() - MAX_LOG);
        }
    }
}

async fn store<K: Kind>(ctx: &Context, object: &K, job: &Job, text: &str) -> Result<(), Error> {
    let uid = object.uid().unwrap_or_default();
    let step = job.annotations().get(ANNOTATION_STEP_ID).cloned().unwrap_or_default();
    let name = log_name(&uid, &step);
    let labels = [
        (LABEL_MANAGED_BY, MANAGER.to_owned()),
        (LABEL_OWNER_UID, uid),
        (LABEL_OWNER_KIND, K::KIND.to_owned()),
        (LABEL_OWNER_NAME, object.name_any()),
        (LABEL_LOG_OF, step_label(&step)),
        (LABEL_RUN, job.labels().get(LABEL_RUN).cloned().unwrap_or_default()),
    ];
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            annotations: Some([(ANNOTATION_STEP_ID.to_owned(), step)].into()),
            ..ObjectMeta::default()
        },
        data: Some([("log".to_owned(), text.to_owned())].into()),
        ..ConfigMap::default()
    };
    let maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    // One log per step: an older one makes room.
    delete(&maps, &name).await?;
    match maps.create(&PostParams::default(), &map).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(source) => Err(Error::request("create", format!("ConfigMap {name}"), source)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn of_a_log_the_end_is_kept_however_long_its_lines_are() {
        let service = tower::service_fn(|_: Request<Body>| async {
            let text = "x".repeat(8 << 20) + "\nthe end\n";
            Ok::<_, Infallible>(Response::new(Body::from(text.into_bytes())))
        });
        let pods: Api<Pod> = Api::namespaced(Client::new(service, "marsh"), "marsh");
        let end = end_of_log(&pods, "heron", &LogParams::default()).await.unwrap();
        assert!(end.ends_with("x\nthe end\n"), "{}", &end[end.len() - 20..]);
        assert!((MAX_LOG..=2 * MAX_LOG).contains(&end.len()), "{}", end.len());
    }
}
