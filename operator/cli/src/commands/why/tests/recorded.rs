//! What `why` says about objects as the operator's own code writes them: those that the judges of GitOps tools are held
//! against (`operator/controller/src/recorded`). Its words are read here, not guessed.

use std::path::{Path, PathBuf};

use provisioning_api::conditions::types;

use super::*;
use crate::chain::culprit;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/gitops/testdata/objects")
}

fn recorded(kind: Kind, phase: &str) -> Item {
    let file = folder().join(kind.singular()).join(format!("{phase}.yaml"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    item(kind, serde_saphyr::from_str(&text).unwrap())
}

/// The phases that are recorded of a kind.
fn phases(kind: Kind) -> Vec<String> {
    let files = std::fs::read_dir(folder().join(kind.singular())).unwrap();
    files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn what_keeps_an_object_is_said_in_the_operators_words_and_what_to_do_about_it() {
    let mut told = 0;
    for kind in Kind::ALL {
        for phase in phases(kind) {
            let item = recorded(kind, &phase);
            let (text, json, _) = why(&item.target().to_string(), std::slice::from_ref(&item)).await;
            if item.is_ready() && !holds_others(&item) {
                assert!(text.starts_with(&format!("{}: Ready", item.target())), "{kind}, {phase}:\n{text}");
                continue;
            }
            // Of what is not seen yet, or can't be read, the words are about something else.
            let is_told = json[0]["state"] != "NotSeen" && item.typed.is_ok();
            let Some(ready) = item.condition(types::READY).filter(|ready| is_told && ready.status != "True") else {
                continue;
            };
            let step = culprit(&item).map(|step| step.message.as_str()).filter(|message| !message.is_empty());
            let words = [Some(ready.message.as_str()), step];
            let said = words.into_iter().flatten().any(|words| text.contains(words));
            assert!(said, "{kind}, {phase}: neither of {words:?} is in\n{text}");
            assert!(text.contains("What to do:\n"), "{kind}, {phase}:\n{text}");
            told += 1;
        }
    }
    assert!(told > 40, "{told}");
}

#[tokio::test]
async fn from_object_to_object_the_operators_words_lead_to_the_cause() {
    use Kind::{ProviderConfig, Server, Taskserv};
    let table: [(&[(Kind, &str)], &str); 7] = [
        (&[(Taskserv, "dependency-stalled"), (Server, "step-failed")], "server/blue-server"),
        (&[(Server, "dependency-stalled"), (ProviderConfig, "step-failed")], "providerconfig/blue-providerconfig"),
        (&[(Server, "waiting"), (ProviderConfig, "running")], "providerconfig/blue-providerconfig"),
        (&[(Taskserv, "waiting"), (Server, "running")], "server/blue-server"),
        (&[(Taskserv, "script-failed")], "extension/redis 0.2.0"),
        (&[(Server, "unknown-reference")], "server/blue-server"),
        (&[(Server, "no-workspace")], "workspace/workspace"),
    ];
    for (objects, cause) in table {
        let items: Vec<Item> = objects.iter().map(|(kind, phase)| recorded(*kind, phase)).collect();
        let (text, json, _) = why(&items[0].target().to_string(), &items).await;
        assert_eq!(json.as_array().unwrap().last().unwrap()["object"], cause, "{objects:?}:\n{text}");
    }
}
