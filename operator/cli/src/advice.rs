//! (pure) What to do next, by how an object stands.

use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::{ANNOTATION_ABANDON, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_UID};
use provisioning_api::steps::{FailureClass, StepAction};

use crate::chain::has_failed;
use crate::item::Item;
use crate::kinds::{Kind, Target};

/// A sentence, with a command that can be pasted; nothing where nothing is to be done.
pub(crate) fn advice(item: &Item, program: &str) -> Option<String> {
    let (target, namespace) = (item.target(), item.namespace());
    if item.typed.is_err() {
        return Some(format!("use the version of {program} that fits the cluster's operator, or correct the field"));
    }
    let Some(ready) = item.condition(types::READY) else {
        return Some("the operator has not looked at it yet; if this lasts, see whether it runs".to_owned());
    };
    Some(match ready.reason.as_str() {
        reasons::SUCCEEDED => return None,
        reasons::SUSPENDED if item.kind == Kind::Workspace => {
            format!("let it go on: {program} -n {namespace} resume {target}")
        }
        // What keeps it, its words say.
        reasons::SUSPENDED => match ready.message.as_str() {
            words if words.starts_with("the Workspace is suspended") => {
                format!("let it go on: {program} -n {namespace} resume workspace")
            }
            words if words.contains(" is suspended") => {
                format!("let it go on: {program} -n {namespace} resume {target}")
            }
            words if words.ends_with(" is gone") => format!(
                "let it stand for itself: kubectl -n {namespace} label {target} {LABEL_OWNER_UID}-; or delete it"
            ),
            _ => "what its words name keeps it: it goes with that, or goes on once that does".to_owned(),
        },
        reasons::STEP_FAILED => {
            format!("remove the cause, then have it tried again: {program} -n {namespace} retry {target}")
        }
        reasons::PAUSED => format!(
            "remove the cause, then have it tried again: {program} -n {namespace} retry {target}; or pass the step over: \
             {program} -n {namespace} skip {} STEP",
            item.name()
        ),
        // A Job's name.
        reasons::NAME_CONFLICT if ready.message.contains("ask for a retry") => {
            format!("delete what holds the name, then have it tried again: {program} -n {namespace} retry {target}")
        }
        reasons::INVALID | reasons::CYCLE | reasons::UNKNOWN_REFERENCE | reasons::NAME_CONFLICT => {
            match owner(item) {
                // What somebody else writes into its spec, the owner's next run writes over.
                Some(owner) => format!(
                    "correct it in {owner}, which writes its spec, and apply that again; where the field is immutable, \
                     delete this one, too, and have it made again: {program} -n {namespace} delete {target} --wait && \
                     {program} -n {namespace} retry {owner}"
                ),
                None => format!(
                    "correct the manifest and apply it again, with the program that applied it: kubectl apply -f FILE, or \
                     {program} apply -f FILE; where the field is immutable, delete the object first: {program} -n \
                     {namespace} delete {target} --wait"
                ),
            }
        }
        reasons::DEPENDENCY_STALLED => "mend the object that the message names; this one then goes on".to_owned(),
        reasons::UNHEALTHY => {
            "look at the service on the server that the message names; it is asked again every ten seconds".to_owned()
        }
        reasons::NO_WORKSPACE if ready.message.contains("cannot be read") => "correct the Workspace".to_owned(),
        reasons::NO_WORKSPACE => format!("make this namespace a workspace: {program} workspace init {namespace}"),
        reasons::STATUS_TOO_NEW => "upgrade the operator to the version that wrote the object".to_owned(),
        reasons::UNDECODABLE => {
            "correct what the message names, or upgrade the operator to the version that wrote the object".to_owned()
        }
        reasons::DELETION_BLOCKED => format!(
            "remove the cause, then have it tried again: {program} -n {namespace} retry {target}; or take down by hand what \
             the message names, then let go of the object: kubectl -n {namespace} annotate --overwrite {target} \
             {ANNOTATION_ABANDON}=true"
        ),
        reasons::SERVER_GONE => {
            format!("delete the object and apply it again: {program} -n {namespace} delete {target} --wait")
        }
        reasons::API_ERROR => {
            "it is tried again; where the words name a field that is too long or wrong, correct the manifest and apply it again"
                .to_owned()
        }
        // One of several steps, where the others go on without it.
        reason if reason != reasons::DELETING && item.steps().iter().any(has_failed) => {
            format!(
                "its other steps go on; remove the cause of the one that failed, then have it tried again: \
                 {program} -n {namespace} retry {target}"
            )
        }
        _ => format!("it goes on by itself: {program} -n {namespace} watch {target}"),
    })
}

/// The object that wrote this one's spec, by its labels.
fn owner(item: &Item) -> Option<Target> {
    let labels = item.metadata.labels.as_ref().filter(|labels| labels.contains_key(LABEL_OWNER_UID))?;
    let kind = labels.get(LABEL_OWNER_KIND)?.to_lowercase().parse::<Kind>().ok()?;
    Target::named(kind, labels.get(LABEL_OWNER_NAME)?).ok()
}

/// What a class of failure asks of a person, by what its step does.
pub(crate) fn about_class(action: StepAction, class: FailureClass) -> &'static str {
    match class {
        FailureClass::Infrastructure => "the executor was lost: see that the cluster's nodes have room and are well",
        FailureClass::Refused => "the executor was not allowed to act and did nothing; another run follows",
        FailureClass::Transient => "see that the other side is up and answers",
        FailureClass::Throttled => "the other side asked to slow down: wait, or have fewer steps at the same time",
        // It has neither effect nor log.
        FailureClass::Timeout if action == StepAction::Wait => {
            "what it waits for did not come in time: see to that, or raise the step's timeoutSeconds"
        }
        FailureClass::Timeout => {
            "it took too long, and its effect is unknown: the log says where it was; the next run looks first"
        }
        FailureClass::Invalid => "the request itself is wrong: correct what its words name",
        FailureClass::Unauthorized => {
            "give the credentials, rights or Secret that its words name; it is tried again by itself"
        }
        FailureClass::ScriptFailed => {
            "read the log, and mend what the script names: the server, or the parameters; of a mended script load a new \
             version, and name it in spec.extension.version"
        }
    }
}

/// What the words of others ask of a person, where their class does not tell: those of the scheduler.
pub(crate) fn about_words(words: &str) -> Option<&'static str> {
    let is_full = words.contains("nodes are available") || words.contains("Insufficient ");
    is_full.then_some("no node has room for it: make room there, or make it of a smaller size")
}

/// What to do where an object refers to one that does not exist.
pub(crate) fn about_missing(missing: &Target, referring: &Target, program: &str, namespace: &str) -> String {
    format!("apply {missing}, or correct its name in {referring}: {program} -n {namespace} apply -f FILE")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::{server, step};

    #[test]
    fn whoever_reads_it_knows_what_to_do() {
        let about = |reason: &str| advice(&server("heron", ("False", reason, "x"), json!([])), "provisioning");
        assert_eq!(about("Succeeded"), None);
        assert_eq!(
            about("StepFailed").unwrap(),
            "remove the cause, then have it tried again: provisioning -n first retry server/heron"
        );
        let blocked = about("DeletionBlocked").unwrap();
        assert!(
            blocked.starts_with("remove the cause, then have it tried again: provisioning -n first retry"),
            "{blocked}"
        );
        assert!(
            about("Invalid")
                .unwrap()
                .ends_with("delete the object first: provisioning -n first delete server/heron --wait")
        );
        let mut child = server("heron", ("False", "Invalid", "x"), json!([]));
        let labels = [(LABEL_OWNER_KIND, "BatchWorkflow"), (LABEL_OWNER_NAME, "noon"), (LABEL_OWNER_UID, "u")];
        child.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let words = advice(&child, "provisioning").unwrap();
        assert!(
            words.starts_with("correct it in batchworkflow/noon, which writes its spec, and apply that again"),
            "{words}"
        );
        assert!(words.ends_with("retry batchworkflow/noon"), "{words}");
        for (message, end) in [
            ("the Workspace is suspended: set its spec.suspend to false to go on", "resume workspace"),
            ("Server 'heron' is suspended: set spec.suspend to false to go on", "resume server/heron"),
            ("the BatchWorkflow that made it (uid u) is gone", "provisioning.dev/owner-uid-; or delete it"),
            ("the Workspace is being deleted", "goes on once that does"),
            ("Cluster 'web', which made it, is being deleted", "goes on once that does"),
            ("step 'x' of BatchWorkflow 'noon', which made it, is Pending", "goes on once that does"),
        ] {
            let held = advice(&server("heron", ("Unknown", "Suspended", message), json!([])), "provisioning").unwrap();
            assert!(held.ends_with(end), "{message}: {held}");
        }
        let full = "Pod is Pending: 0/1 nodes are available: 1 Insufficient cpu.";
        assert!(about_words(full).unwrap().contains("smaller size"));
        assert_eq!(about_words("no route to host"), None);
        assert!(about("Unhealthy").unwrap().starts_with("look at the service on the server"));
        assert_eq!(about("Running").unwrap(), "it goes on by itself: provisioning -n first watch server/heron");
        let failed = json!([step("create", "Create", "Failed"), step("reach", "Reach", "Running")]);
        let heron = server("heron", ("False", "Running", "x"), failed);
        let words = advice(&heron, "provisioning").unwrap();
        assert!(words.starts_with("its other steps go on") && words.ends_with("retry server/heron"), "{words}");
    }
}
