//! Labels, annotations, finalizers and fixed object names.

/// API group of all kinds.
pub const GROUP: &str = "provisioning.dev";
/// The one served API version.
pub const VERSION: &str = "v1alpha1";
/// `managedBy` of our Jobs: the built-in Job controller leaves them alone (Kubernetes ≥ 1.33).
pub const JOB_MANAGER: &str = "provisioning.dev/operator";
/// Field manager of the operator's server-side applies, and value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "provisioning";

/// Recommended label that marks everything the operator makes.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// uid of the object that this one was made for. Links children, Jobs, Leases and site resources to their owner.
pub const LABEL_OWNER_UID: &str = "provisioning.dev/owner-uid";
/// Kind of the owner, for people and selectors.
pub const LABEL_OWNER_KIND: &str = "provisioning.dev/owner-kind";
/// Name of the owner.
pub const LABEL_OWNER_NAME: &str = "provisioning.dev/owner-name";
/// Namespace of the owner, on resources that live in a site.
pub const LABEL_OWNER_NAMESPACE: &str = "provisioning.dev/owner-namespace";
/// uid of the namespace `kube-system`: tells installations that share a provider apart.
pub const LABEL_INSTALLATION: &str = "provisioning.dev/installation";
/// First 16 hex digits of the hash of a step id (ids may be longer than a label allows).
pub const LABEL_STEP: &str = "provisioning.dev/step";
/// Number of the run of a step.
pub const LABEL_RUN: &str = "provisioning.dev/run";
/// Creation token of a site resource: equal over all runs of one incarnation.
pub const LABEL_TOKEN: &str = "provisioning.dev/token";
/// What a site resource is: `server` or `wipe`.
pub const LABEL_ROLE: &str = "provisioning.dev/role";
/// On a ConfigMap: it holds an extension bundle; value is the extension's name.
pub const LABEL_EXTENSION: &str = "provisioning.dev/extension";
/// On a ConfigMap: version of the bundle.
pub const LABEL_EXTENSION_VERSION: &str = "provisioning.dev/extension-version";
/// On a ConfigMap: it holds the last log lines of a failed run.
pub const LABEL_LOG_OF: &str = "provisioning.dev/log-of";
/// On a namespace: it holds a live Workspace; an admission policy then refuses its deletion.
pub const LABEL_LIVE: &str = "provisioning.dev/live";

/// Asks for a new look: retries what failed, observes what is Ready. The value is free; a change of it counts.
pub const ANNOTATION_RECONCILE: &str = "provisioning.dev/reconcile-requested-at";
/// On a BatchWorkflow: names of steps, separated by commas, that are passed over instead of tried (again).
pub const ANNOTATION_SKIP_STEPS: &str = "provisioning.dev/skip-steps";
/// On an object that a workflow made: the step that applied it last, and its run (`STEP/RUN`).
pub const ANNOTATION_APPLIED: &str = "provisioning.dev/applied-by";
/// On a ConfigMap with a bundle: `sha256:…` over the bundle.
pub const ANNOTATION_DIGEST: &str = "provisioning.dev/digest";
/// Full step id, on Jobs and Pods.
pub const ANNOTATION_STEP_ID: &str = "provisioning.dev/step-id";
/// Input hash of the step, on Jobs and Pods.
pub const ANNOTATION_INPUT_HASH: &str = "provisioning.dev/input-hash";
/// Public host key of a server that the Local provider made.
pub const ANNOTATION_HOST_KEY: &str = "provisioning.dev/host-key";
/// Gives up a deletion that cannot finish: the finalizer goes and an Event lists what is left behind.
pub const ANNOTATION_ABANDON: &str = "provisioning.dev/abandon-deletion";

/// The one name a Workspace may have.
pub const WORKSPACE_NAME: &str = "workspace";
/// ServiceAccount, per workspace, of executors that need our API only (the runner).
pub const EXECUTOR_ACCOUNT: &str = "provisioning-executor";
/// ServiceAccount, per workspace, of the Local provider's executors.
pub const LOCAL_PROVIDER_ACCOUNT: &str = "provisioning-local-provider";
/// ClusterRole of executors: reads our kinds, creates and reads Leases.
pub const EXECUTOR_ROLE: &str = "provisioning-executor";
/// ClusterRole of the Local provider in its site.
pub const LOCAL_PROVIDER_SITE_ROLE: &str = "provisioning-local-provider-site";
/// Secret, per workspace, that holds the SSH key pair (`id_ed25519`, `id_ed25519.pub`).
pub const SSH_SECRET: &str = "provisioning-ssh";
/// ConfigMap in a site that lists what the Local provider offers (key `catalog.json`).
pub const SITE_CATALOG: &str = "provisioning-catalog";
/// Default site of the Local provider.
pub const DEFAULT_SITE: &str = "provisioning-local";

/// Finalizer of a kind, `provisioning.dev/NAME`.
pub const FINALIZER: &str = "provisioning.dev/operator";

/// Longest condition (`when`, `for`), characters.
pub const MAX_CONDITION: usize = 1024;
/// Most extensions on a Server, and most Taskservs that need one of them.
pub const MAX_INSTALLED: usize = 32;
/// Largest number of steps in one object; a larger graph is refused when it is planned.
pub const MAX_STEPS: usize = 256;
/// Most steps of one Taskserv, those of servers that leave included: with long names its status is full then.
pub const MAX_TASKSERV_STEPS: usize = 128;
/// Most dependencies between the steps of one Taskserv.
pub const MAX_TASKSERV_EDGES: usize = 144;
/// Longest id of a step, bytes.
pub const MAX_STEP_ID: usize = 253;
/// Most dependencies of one step.
pub const MAX_DEPENDENCIES: usize = 64;
/// Longest `why` of a step, bytes.
pub const MAX_WHY: usize = 128;
/// Longest `reason` of a step, bytes.
pub const MAX_REASON: usize = 64;
/// Longest external id of a step, bytes.
pub const MAX_EXTERNAL_ID: usize = 256;
/// Most outputs of one step.
pub const MAX_OUTPUT_COUNT: usize = 64;
/// Longest single output, bytes.
pub const MAX_OUTPUT: usize = 2048;
/// Largest `message` of a step, bytes.
pub const MAX_STEP_MESSAGE: usize = 256;
/// Largest sum of all outputs in one object, bytes.
pub const MAX_OUTPUTS: usize = 16 * 1024;
/// Largest `message` of a condition, bytes.
pub const MAX_CONDITION_MESSAGE: usize = 4096;
/// Largest status of one object, bytes of JSON.
pub const MAX_STATUS: usize = 256 * 1024;
/// Largest termination message, bytes (the kubelet's own limit).
pub const MAX_RESULT: usize = 4096;
/// Largest stored log of a failed run, bytes.
pub const MAX_LOG: usize = 64 * 1024;
