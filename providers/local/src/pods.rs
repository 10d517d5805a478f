//! What a pod of the site says about itself. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use provisioning_api::names::ANNOTATION_HOST_KEY;

/// Reasons for which a container waits, that pass only when somebody does something.
const STUCK: [&str; 4] =
    ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"];
/// Those of them that another image would cure.
const NO_IMAGE: [&str; 4] = ["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"];

/// Value of a label, empty where there is none.
pub fn label<'a>(pod: &'a Pod, key: &str) -> &'a str {
    pod.labels().get(key).map_or("", String::as_str)
}

/// Public host key that the pod was created with.
pub fn host_key(pod: &Pod) -> Option<&str> {
    pod.annotations().get(ANNOTATION_HOST_KEY).map(String::as_str)
}

/// Whether the pod is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether all of its containers ended for good (evicted, or done). Such a pod never runs again.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Phase, empty where the kubelet has said nothing.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The address, once the machine runs and its sshd answers.
pub fn ready_address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if phase(pod) == "Running" && ready && !is_terminating(pod) { status.pod_ip.as_deref() } else { None }
}

/// Node it was bound to.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty())
}

/// Why a pod is not running, in the words of scheduler or kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Their reason, for example `ErrImageNeverPull`.
    pub reason: String,
    /// Their words.
    pub message: String,
    /// Whether it passes only when somebody does something.
    pub stuck: bool,
}

/// What the scheduler or the kubelet has against this pod, if anything. The last container's end is in it too: the
/// script's own words, which say more than `CrashLoopBackOff`.
pub fn complaint(pod: &Pod) -> Option<Complaint> {
    let status = pod.status.as_ref()?;
    if has_ended(pod) {
        return Some(Complaint {
            reason: status.reason.clone().unwrap_or_else(|| phase(pod).to_owned()),
            message: status.message.clone().or_else(|| last_words(pod)).unwrap_or_default(),
            stuck: true,
        });
    }
    for condition in status.conditions.iter().flatten() {
        if condition.type_ == "PodScheduled" && condition.status == "False" {
            return Some(Complaint {
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
                stuck: true,
            });
        }
    }
    containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().unwrap_or_default();
        let words = ended_with(container).or_else(|| waiting.message.clone());
        if reason == "PodInitializing" || (reason == "ContainerCreating" && words.is_none()) {
            return None;
        }
        let stuck = STUCK.contains(&reason.as_str()) || NO_IMAGE.contains(&reason.as_str());
        Some(Complaint { stuck, reason, message: words.unwrap_or_default() })
    })
}

/// Whether the node has no image for it and gets none.
pub fn lacks_image(pod: &Pod) -> bool {
    complaint(pod).is_some_and(|trouble| NO_IMAGE.contains(&trouble.reason.as_str()))
}

/// Image of the pod's main container.
pub fn image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// Last words of a container that ended badly.
pub fn last_words(pod: &Pod) -> Option<String> {
    containers(pod).find_map(ended_with)
}

fn ended_with(container: &ContainerStatus) -> Option<String> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.as_ref()?.terminated.clone()?;
        if terminated.exit_code == 0 {
            return None;
        }
        let words = terminated.message.or(terminated.reason).unwrap_or_default();
        Some(format!("container {} ended with code {}: {}", container.name, terminated.exit_code, words.trim()))
    };
    ended(&container.state).or_else(|| ended(&container.last_state))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let initial = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    initial.chain(status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[test]
    fn a_machine_has_an_address_only_when_it_is_ready() {
        let mut status =
            json!({"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(ready_address(&pod(status.clone())), Some("10.1.2.3"));
        status["conditions"][0]["status"] = json!("False");
        assert_eq!(ready_address(&pod(status)), None);
    }

    #[test]
    fn the_words_of_scheduler_kubelet_and_script_are_kept() {
        let table = [
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                       "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
                ("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.", true),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "fill", "image": "i", "imageID": "",
                       "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull",
                       "message": "failed to pull: not found"}}}]}),
                ("ErrImagePull", "failed to pull: not found", true),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "fill", "image": "i", "imageID": "",
                       "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff",
                       "message": "back-off 40s"}}, "lastState": {"terminated": {"exitCode": 1,
                       "message": "No space left on device\n"}}}]}),
                ("CrashLoopBackOff", "container fill ended with code 1: No space left on device", true),
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
                ("Evicted", "The node was low on resource: memory.", true),
            ),
        ];
        for (status, (reason, message, stuck)) in table {
            let expected = Complaint { reason: reason.into(), message: message.into(), stuck };
            assert_eq!(complaint(&pod(status)), Some(expected));
        }
    }

    #[test]
    fn a_pod_that_is_being_prepared_gets_no_complaint() {
        let waiting = |reason: &str| {
            pod(json!({"phase": "Pending", "containerStatuses": [{"name": "server", "image": "i", "imageID": "",
                "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}}]}))
        };
        assert_eq!(complaint(&waiting("PodInitializing")), None);
        assert_eq!(complaint(&waiting("ContainerCreating")), None);
    }
}
