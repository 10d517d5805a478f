//! Each way to be wrong of the end-to-end suite `bad_input`, in words like the operator's: what `why` says names the planted
//! cause, and its last object is the one to be corrected. The suite asks the same of the real cluster; objects that the
//! operator's own code wrote are in `recorded`.

use super::*;

/// One way to be wrong.
struct Case {
    about: &'static str,
    /// What is asked about.
    object: &'static str,
    objects: Vec<Item>,
    /// Words that are the cause.
    cause: Vec<&'static str>,
    /// The last object of the chain.
    last: &'static str,
}

fn stalled_server(reason: &str, words: &str) -> Item {
    server("heron", ("False", reason, words), json!([]))
}

fn stalled_taskserv(reason: &str, words: &str) -> Item {
    taskserv(("False", reason, words), json!([]))
}

/// A workflow whose step failed by its child.
fn above(kind: &str, name: &str, class: &str, words: &str) -> Item {
    let child = format!("{kind} '{name}': {words}");
    let why = format!("{kind} {name}");
    let failed = failed("nest", "Apply", class, "ChildFailed", &child);
    workflow(("False", "StepFailed", &format!("step 'nest' failed ({class}): {child}")), failed, &why)
}

fn own_fault(about: &'static str, item: Item, cause: Vec<&'static str>, last: &'static str) -> Case {
    Case { about, object: last, objects: vec![item], cause, last }
}

/// Cases in the object itself: the plan could not be made.
fn unplanned() -> Vec<Case> {
    let bare = |reason: &str, words: &str| {
        object(Kind::BatchWorkflow, "first", ("False", reason, words), json!({"steps": []}), json!([]))
    };
    vec![
        own_fault(
            "a cycle",
            bare("Cycle", "spec.steps: the steps depend on each other in a circle: reed -> sedge -> rush -> reed"),
            vec!["spec.steps", "reed -> sedge -> rush -> reed"],
            "batchworkflow/first",
        ),
        own_fault(
            "an unknown step",
            bare(
                "UnknownReference",
                "spec.steps: step 'cache' depends on 'herno', which does not exist (did you mean 'heron'?)",
            ),
            vec!["step 'cache'", "'herno'", "did you mean 'heron'?"],
            "batchworkflow/first",
        ),
        own_fault(
            "an unknown server",
            stalled_taskserv(
                "UnknownReference",
                "spec.servers: there is no Server 'herno' in this namespace (did you mean 'heron'?)",
            ),
            vec!["spec.servers", "'herno'", "did you mean 'heron'?"],
            "taskserv/redis",
        ),
        own_fault(
            "an unknown extension",
            stalled_taskserv(
                "UnknownReference",
                "spec.extension: there is no extension \"reddis\"; did you mean \"redis\"?",
            ),
            vec!["spec.extension", "reddis", "did you mean"],
            "taskserv/redis",
        ),
        own_fault(
            "an unknown provider",
            stalled_server(
                "UnknownReference",
                "spec.providerConfigRef.name: there is no ProviderConfig 'lokal' in this namespace (did you mean 'local'?)",
            ),
            vec!["spec.providerConfigRef.name", "'lokal'", "did you mean 'local'?"],
            "server/heron",
        ),
        own_fault(
            "an unknown zone",
            stalled_server(
                "Invalid",
                "spec.zone: the provider has no zone 'lokal-a' (did you mean 'local-a'?); it has local-a",
            ),
            vec!["spec.zone", "'lokal-a'", "it has local-a"],
            "server/heron",
        ),
        own_fault(
            "a wrong parameter",
            stalled_taskserv("Invalid", "spec.parameters.port: 70000 is greater than the maximum of 65535"),
            vec!["spec.parameters.port", "70000"],
            "taskserv/redis",
        ),
        own_fault(
            "a missing secret",
            stalled_taskserv(
                "Invalid",
                "spec.secretParameters.password: missing (the password); write {secretName: taskserv-NAME, key: KEY}",
            ),
            vec!["spec.secretParameters.password", "missing", "secretName: taskserv-NAME"],
            "taskserv/redis",
        ),
    ]
}

/// Cases whose cause is in another object.
fn below() -> Vec<Case> {
    let size =
        "spec.providerSize: the provider has no size 'smal' (did you mean 'small'?); it has small, medium, large";
    let unknown = "spec.servers: there is no Server 'herno' in this namespace (did you mean 'heron'?)";
    let mut waiting = step("install/heron", "Install", "Pending");
    waiting["run"] = json!(0);
    let words = format!("Server 'heron' is Stalled: {size}");
    vec![
        Case {
            about: "an unknown server, in a workflow",
            object: "bwf/first",
            objects: vec![
                above("Taskserv", "redis", "Invalid", unknown),
                stalled_taskserv("UnknownReference", unknown),
            ],
            cause: vec!["step nest", "spec.servers", "'herno'", "did you mean 'heron'?"],
            last: "taskserv/redis",
        },
        Case {
            about: "an unknown size, in a workflow",
            object: "bwf/first",
            objects: vec![above("Server", "heron", "Invalid", size), stalled_server("Invalid", size)],
            cause: vec!["step nest", "spec.providerSize", "'smal'", "small, medium, large"],
            last: "server/heron",
        },
        Case {
            about: "a service on a server that is stalled",
            object: "tsv/redis",
            objects: vec![
                taskserv(("False", "DependencyStalled", &words), json!([waiting])),
                stalled_server("Invalid", size),
            ],
            cause: vec!["Server 'heron' is Stalled", "spec.providerSize", "'smal'"],
            last: "server/heron",
        },
        Case {
            about: "no Workspace",
            object: "srv/heron",
            objects: vec![stalled_server(
                "NoWorkspace",
                "there is no Workspace in this namespace: create one named 'workspace'",
            )],
            cause: vec!["create one named 'workspace'", "workspace/workspace: missing"],
            last: "workspace/workspace",
        },
        Case {
            about: "a name that is taken",
            object: "bwf/first",
            objects: {
                let words = "Server 'heron' exists and was made by somebody else: BatchWorkflow 'first' does not take it over; choose another name";
                let failed = failed("nest", "Apply", "Invalid", "NameConflict", words);
                let above =
                    workflow(("False", "NameConflict", &format!("step 'nest': {words}")), failed, "Server heron");
                vec![above, server("heron", ("True", "Succeeded", "all steps succeeded"), json!([]))]
            },
            cause: vec!["step nest", "Server 'heron'", "choose another name"],
            last: "batchworkflow/first",
        },
    ]
}

/// A script that failed on a server, in a workflow.
fn script(about: &'static str, reason: &str, words: &str, cause: Vec<&'static str>) -> Case {
    let failed = failed("install/heron", "Install", "ScriptFailed", reason, words);
    let told = format!("step 'install/heron' failed (ScriptFailed): {words}");
    Case {
        about,
        object: "bwf/first",
        objects: vec![
            above("Taskserv", "redis", "ScriptFailed", &told),
            taskserv(("False", "StepFailed", &told), json!([failed])),
        ],
        cause,
        last: "extension/redis 0.1.0",
    }
}

/// Cases that show when something runs.
fn executed() -> Vec<Case> {
    let words = "failed to connect to 10.7.0.9:22: timed out";
    let reach = failed("reach", "Reach", "Transient", "Unreachable", words);
    let told = format!("step 'reach' failed (Transient): {words}");
    let mut undecodable = server("heron", ("False", "Undecodable", "x"), json!([])).json;
    undecodable["spec"]["deletionPolicy"] = json!("Sometimes");
    vec![
        script(
            "a script that exits 3",
            "ScriptFailed",
            "exit code 3: the marsh is dry: no place for a nest",
            vec!["exit code 3", "the marsh is dry", "scripts/install.nu on heron"],
        ),
        script(
            "a package that does not exist",
            "ScriptFailed",
            "exit code 100: E: Unable to locate package redis-nosuch",
            vec!["exit code 100", "Unable to locate package redis-nosuch"],
        ),
        script(
            "a full disk",
            "NoSpace",
            "exit code 1: No space left on device",
            vec!["NoSpace", "No space left on device", "install/heron"],
        ),
        Case {
            about: "SSH never comes up",
            object: "bwf/first",
            objects: vec![
                above("Server", "heron", "Transient", &told),
                server("heron", ("False", "StepFailed", &told), json!([reach])),
            ],
            cause: vec!["Transient Unreachable", "failed to connect to", ":22", "step reach"],
            last: "server/heron",
        },
        own_fault(
            "an undecodable object",
            item(Kind::Server, undecodable),
            vec!["spec.deletionPolicy", "Sometimes", "Delete, Orphan"],
            "server/heron",
        ),
    ]
}

#[tokio::test]
async fn the_planted_cause_of_every_case_is_named() {
    for case in unplanned().into_iter().chain(below()).chain(executed()) {
        let Case { about, object, objects, cause, last } = case;
        let (text, json, _) = why(object, &objects).await;
        for words in cause {
            assert!(text.contains(words), "{about}: {words:?} is not in\n{text}");
        }
        // A full disk is the server's; all other failures of scripts have what they were given as the last word.
        let last = if about == "a full disk" { "server/heron" } else { last };
        let links = json.as_array().unwrap();
        assert_eq!(links.last().unwrap()["object"], last, "{about}:\n{text}");
        assert!(text.contains("What to do:"), "{about}:\n{text}");
    }
}
