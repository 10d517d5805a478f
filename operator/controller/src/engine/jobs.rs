//! A run becomes a Job and its one Pod (architecture §5).

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, KeyToPath, ObjectFieldSelector, Pod,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use provisioning_api::names::{
    ANNOTATION_INPUT_HASH, ANNOTATION_STEP_ID, EXECUTOR_ACCOUNT, JOB_MANAGER, LABEL_MANAGED_BY, LABEL_OWNER_KIND,
    LABEL_OWNER_NAME, LABEL_OWNER_UID, LABEL_RUN, LABEL_STEP, LOCAL_PROVIDER_ACCOUNT, MANAGER, SSH_SECRET,
};
use provisioning_api::steps::{Direction, StepStatus};
use provisioning_api::taskserv::SecretReference;
use provisioning_plan::ids::{job_name, step_label};
use provisioning_sdk::request::{
    BUNDLE_FOLDER, ENV_JOB_NAME, ENV_POD_UID, ENV_REQUEST, Envelope, Owner, RunnerRequest, SECRET_VALUE,
    SECRETS_FOLDER, SSH_FOLDER,
};

use super::kind::Task;
use super::observe::EXECUTOR;

/// What a Pod may take to start before its own deadline ends it, seconds on top of the step's.
const START_BUDGET_SECONDS: i64 = 120;
/// Numeric user of every executor.
const USER: i64 = 65532;

/// One run, ready to be made.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The object whose step it is.
    pub owner: Owner,
    /// The open entry.
    pub step: &'a StepStatus,
    /// Forward or undo.
    pub direction: Direction,
    /// What it does.
    pub task: &'a Task,
    /// uid of the namespace `kube-system`.
    pub installation: &'a str,
    /// Image with the executors.
    pub image: &'a str,
}

struct Executor {
    command: &'static str,
    account: &'static str,
    request: String,
    timeout_seconds: i64,
    bundle: Option<String>,
    secrets: BTreeMap<String, SecretReference>,
    ssh: bool,
}

impl Run<'_> {
    /// Name of Job, Pod and Lease.
    pub fn name(&self) -> String {
        job_name(&self.owner.uid, &self.step.id, self.step.run)
    }

    /// The Job.
    ///
    /// # Errors
    /// Where the request cannot be written as JSON.
    pub fn job(&self) -> Result<Job, serde_json::Error> {
        let template = PodTemplateSpec { metadata: Some(self.metadata(None)), spec: Some(self.pod_spec()?) };
        Ok(Job {
            metadata: self.metadata(Some(self.name())),
            spec: Some(JobSpec {
                backoff_limit: Some(0),
                managed_by: Some(JOB_MANAGER.to_owned()),
                template,
                ..JobSpec::default()
            }),
            status: None,
        })
    }

    /// The Job's one Pod.
    ///
    /// # Errors
    /// Where the request cannot be written as JSON.
    pub fn pod(&self, job_uid: &str) -> Result<Pod, serde_json::Error> {
        let mut metadata = self.metadata(Some(self.name()));
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: "batch/v1".to_owned(),
            kind: "Job".to_owned(),
            name: self.name(),
            uid: job_uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        Ok(Pod { metadata, spec: Some(self.pod_spec()?), status: None })
    }

    fn metadata(&self, name: Option<String>) -> ObjectMeta {
        let labels = [
            (LABEL_MANAGED_BY, MANAGER.to_owned()),
            (LABEL_OWNER_UID, self.owner.uid.clone()),
            (LABEL_OWNER_KIND, self.owner.kind.clone()),
            (LABEL_OWNER_NAME, self.owner.name.clone()),
            (LABEL_STEP, step_label(&self.step.id)),
            (LABEL_RUN, self.step.run.to_string()),
        ];
        let annotations =
            [(ANNOTATION_STEP_ID, self.step.id.clone()), (ANNOTATION_INPUT_HASH, self.step.input_hash.clone())];
        ObjectMeta {
            namespace: name.is_some().then(|| self.owner.namespace.clone()),
            name,
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        }
    }

    fn envelope<P: serde::Serialize>(&self, payload: P, timeout_seconds: i64) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Envelope {
            owner: self.owner.clone(),
            step: self.step.id.clone(),
            run: self.step.run,
            epoch: self.step.epoch,
            direction: self.direction,
            input_hash: self.step.input_hash.clone(),
            timeout_seconds,
            installation: self.installation.to_owned(),
            payload,
        })
    }

    fn executor(&self) -> Result<Executor, serde_json::Error> {
        match self.task {
            Task::Provider { request, timeout_seconds } => Ok(Executor {
                command: "/provider-local",
                account: LOCAL_PROVIDER_ACCOUNT,
                request: self.envelope(request, *timeout_seconds)?,
                timeout_seconds: *timeout_seconds,
                bundle: None,
                secrets: BTreeMap::new(),
                ssh: false,
            }),
            Task::Runner { request, bundle, timeout_seconds } => Ok(Executor {
                command: "/provisioning-runner",
                account: EXECUTOR_ACCOUNT,
                request: self.envelope(request, *timeout_seconds)?,
                timeout_seconds: *timeout_seconds,
                bundle: bundle.clone(),
                secrets: match request {
                    RunnerRequest::Script(script) => script.secrets.clone(),
                    RunnerRequest::Reach { .. } => BTreeMap::new(),
                },
                ssh: true,
            }),
            Task::Apply(_) | Task::Delete(_) | Task::DeleteNamed(_) | Task::Watch => {
                Err(serde::ser::Error::custom("a step of a workflow has no executor"))
            }
        }
    }

    fn pod_spec(&self) -> Result<PodSpec, serde_json::Error> {
        let executor = self.executor()?;
        let mut volumes = Vec::new();
        let mut mounts = Vec::new();
        if executor.ssh {
            let secret = SecretVolumeSource {
                secret_name: Some(SSH_SECRET.to_owned()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            };
            volumes.push(Volume { name: "ssh".to_owned(), secret: Some(secret), ..Volume::default() });
            mounts.push(mount("ssh", SSH_FOLDER));
        }
        for (parameter, SecretReference { secret_name, key }) in &executor.secrets {
            // A name may hold capitals, which a volume's may not.
            let volume = format!("secret-{}", volumes.len());
            let item = KeyToPath { key: key.clone(), path: SECRET_VALUE.to_owned(), mode: None };
            let secret = SecretVolumeSource {
                secret_name: Some(secret_name.clone()),
                items: Some(vec![item]),
                default_mode: Some(0o440),
                // One that is not there is the runner's to tell, in words; the kubelet would only wait.
                optional: Some(true),
            };
            volumes.push(Volume { name: volume.clone(), secret: Some(secret), ..Volume::default() });
            mounts.push(mount(&volume, &format!("{SECRETS_FOLDER}/{parameter}")));
        }
        if let Some(bundle) = &executor.bundle {
            let map = ConfigMapVolumeSource { name: bundle.clone(), ..ConfigMapVolumeSource::default() };
            volumes.push(Volume { name: "bundle".to_owned(), config_map: Some(map), ..Volume::default() });
            mounts.push(mount("bundle", BUNDLE_FOLDER));
        }
        let container = Container {
            name: EXECUTOR.to_owned(),
            image: Some(self.image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec![executor.command.to_owned()]),
            env: Some(environment(&self.name(), executor.request)),
            volume_mounts: Some(mounts),
            resources: Some(resources()),
            security_context: Some(restricted()),
            ..Container::default()
        };
        Ok(PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some(executor.account.to_owned()),
            enable_service_links: Some(false),
            active_deadline_seconds: Some(executor.timeout_seconds + START_BUDGET_SECONDS),
            // An executor has nothing to say goodbye to: what it did is found again by the next run.
            termination_grace_period_seconds: Some(2),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        })
    }
}

fn environment(job_name: &str, request: String) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let own_uid = EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.uid".to_owned(), api_version: None }),
        ..EnvVarSource::default()
    };
    vec![
        // The kubelet expands `$(NAME)` and makes one `$` of two: what a user writes must arrive as it is.
        value(ENV_REQUEST, request.replace('$', "$$")),
        value(ENV_JOB_NAME, job_name.to_owned()),
        EnvVar { name: ENV_POD_UID.to_owned(), value: None, value_from: Some(own_uid) },
    ]
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: Some(true), ..VolumeMount::default() }
}

fn resources() -> ResourceRequirements {
    let quantities = |cpu: &str, memory: &str| -> BTreeMap<String, Quantity> {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    ResourceRequirements {
        requests: Some(quantities("10m", "32Mi")),
        limits: Some(quantities("1", "256Mi")),
        claims: None,
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use provisioning_api::steps::{StepAction, UndoAction};
    use provisioning_sdk::request::ProviderRequest;

    use super::*;

    fn step() -> StepStatus {
        serde_json::from_value(serde_json::json!({
            "id": "create", "action": StepAction::Create, "undo": UndoAction::DeleteServer, "run": 3,
            "inputHash": "v1:abc", "phase": "Running", "epoch": 2,
        }))
        .unwrap()
    }

    fn run<'a>(step: &'a StepStatus, task: &'a Task) -> Run<'a> {
        Run {
            owner: Owner {
                kind: "Server".into(),
                namespace: "meadow".into(),
                name: "blue-heron".into(),
                uid: "0000-1111".into(),
            },
            step,
            direction: Direction::Forward,
            task,
            installation: "cluster-7",
            image: "localhost/runner:7",
        }
    }

    #[test]
    fn a_job_and_its_pod_have_one_name_and_the_job_owns_the_pod() {
        let (step, task) =
            (step(), Task::Provider { request: ProviderRequest::Describe { site: "s".into() }, timeout_seconds: 60 });
        let run = run(&step, &task);
        let job = run.job().unwrap();
        let pod = run.pod("job-uid").unwrap();
        assert_eq!(job.metadata.name, pod.metadata.name);
        assert_eq!(job.spec.as_ref().unwrap().managed_by.as_deref(), Some(JOB_MANAGER));
        assert_eq!(pod.metadata.owner_references.unwrap()[0].uid, "job-uid");
        assert_eq!(pod.spec.unwrap().active_deadline_seconds, Some(180));
    }

    /// The kubelet's rule (`third_party/forked/golang/expansion`), with no variable defined but HOME.
    fn expanded(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(end) = rest.strip_prefix('(').and_then(|inner| inner.find(')')) {
                let name = &rest[1..=end];
                out.push_str(&if name == "HOME" { "/root".to_owned() } else { format!("$({name})") });
                rest = &rest[end + 2..];
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
        out
    }

    #[test]
    fn what_a_user_writes_arrives_as_it_is() {
        for text in ["$(HOME)", "pa$$word", "$$(HOME)", "$", "$$$", "a$(b", "$(HOME)$$(HOME)"] {
            let sent = environment("j", text.into())[0].value.clone().unwrap();
            assert_eq!(expanded(&sent), text);
        }
    }
}
