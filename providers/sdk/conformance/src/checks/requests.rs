//! Requests that nobody should send, requests of a later release, and an end from outside.

use provisioning_api::steps::FailureClass;
use provisioning_sdk::request::ProviderRequest;
use serde_json::{Value, json};

use crate::scene::{Ask, POD, Scene, Stage, Subject, Verdict, failed, words};
use crate::server::Plan;

/// Linux keeps a variable of the environment below 128 KiB.
const LARGEST: usize = 120 * 1024;

pub(super) async fn hostile(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let mut rows = 0;
    for (what, request) in unreadable(&mut scene, &subject)? {
        let envelope = scene.envelope(&subject, subject.create(), 20);
        let run = scene.ask_raw(&envelope, request, Some(POD)).await?;
        failed(&run, FailureClass::Invalid, &what)?;
        if let Some(call) = scene.calls().await.first() {
            return Err(format!("{what}: the call {} was made", call.line));
        }
        rows += 1;
    }
    let envelope = scene.envelope(&subject, subject.create(), 20);
    let text = serde_json::to_vec(&envelope).map_err(|error| error.to_string())?;
    let run = scene.ask_raw(&envelope, Some(text), None).await?;
    failed(&run, FailureClass::Invalid, "a Pod that does not know its uid")?;
    for (what, subject) in impossible(&subject) {
        let run = scene.ask(&subject, subject.create()).await?;
        failed(&run, FailureClass::Invalid, what)?;
        if let Some(call) = scene.calls().await.iter().find(|call| call.mutates) {
            return Err(format!("{what}: the call {} was made", call.line));
        }
        rows += 1;
    }
    let forever = Ask { timeout_seconds: Some(i64::MAX), ..Ask::default() };
    let run = scene.ask_with(&subject, subject.observe(), forever).await?;
    if run.result.is_none() {
        return Err(format!("a deadline in 292 billion years: {}", words(&run)));
    }
    Ok(format!("{} requests", rows + 2))
}

type Raw = (String, Option<Vec<u8>>);

fn unreadable(scene: &mut Scene, subject: &Subject) -> Result<Vec<Raw>, String> {
    let good =
        serde_json::to_value(scene.envelope(subject, subject.create(), 20)).map_err(|error| error.to_string())?;
    let text = |value: &Value| Some(value.to_string().into_bytes());
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        if let Some(place) = changed.pointer_mut(pointer) {
            *place = value;
        }
        text(&changed)
    };
    let mut half = text(&good).unwrap_or_default();
    half.truncate(half.len() / 2);
    let mut missing = good.clone();
    missing.as_object_mut().map(|object| object.remove("owner"));
    let rows = [
        ("no request", None),
        ("an empty request", Some(Vec::new())),
        ("null", Some(b"null".to_vec())),
        ("a list", Some(b"[]".to_vec())),
        ("bytes that are no text", Some(vec![0xff, 0xfe, b'{', 0xc3])),
        ("half a request", Some(half)),
        ("brackets, nested 100000 deep", Some(vec![b'['; 100_000])),
        ("120 KiB of nothing", Some(vec![b' '; LARGEST])),
        ("a string of 120 KiB", text(&json!("x".repeat(LARGEST)))),
        ("a request without owner", text(&missing)),
        ("an unknown call", with("/payload/call", json!("launch"))),
        ("a number that does not fit", with("/run", json!(1e300))),
        ("text for a number", with("/payload/creation/cores", json!("two"))),
        ("an unknown direction", with("/direction", json!("Sideways"))),
    ];
    Ok(rows.into_iter().map(|(what, request)| (what.to_owned(), request)).collect())
}

/// Values that would leave a name, a tag or a pattern.
fn impossible(subject: &Subject) -> Vec<(&'static str, Subject)> {
    let with = |change: fn(&mut Subject)| {
        let mut changed = subject.clone();
        change(&mut changed);
        changed
    };
    vec![
        ("a uid that is a pattern", with(|subject| subject.owner.uid = "*".into())),
        ("a uid that is a query", with(|subject| subject.owner.uid = "a,b!=c&d=e".into())),
        ("a token with separators", with(|subject| subject.creation.token = "a,b=c".into())),
        ("an empty token", with(|subject| subject.creation.token = String::new())),
        ("a host name that is a path", with(|subject| subject.hostname = "../etc".into())),
        ("a host name of 64 letters", with(|subject| subject.hostname = "h".repeat(64))),
        ("a negative incarnation", with(|subject| subject.incarnation = -1)),
    ]
}

pub(super) async fn grow(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    for request in [subject.create(), subject.observe(), subject.delete(), list(&scene)] {
        let envelope = scene.envelope(&subject, request, 60);
        let mut value = serde_json::to_value(&envelope).map_err(|error| error.to_string())?;
        for pointer in ["", "/owner", "/payload", "/payload/creation"] {
            if let Some(object) = value.pointer_mut(pointer).and_then(Value::as_object_mut) {
                object.insert("sinceNextRelease".into(), json!({"deep": [1, 2]}));
            }
        }
        let call = value["payload"]["call"].clone();
        let run = scene.ask_raw(&envelope, Some(value.to_string().into_bytes()), Some(POD)).await?;
        if run.result.as_ref().is_none_or(|result| result.class.is_some()) {
            return Err(format!("{call} with a field of a later release: {}", words(&run)));
        }
    }
    Ok(String::new())
}

fn list(scene: &Scene) -> ProviderRequest {
    ProviderRequest::List { site: scene.offer.site.clone() }
}

pub(super) async fn sigterm(stage: &Stage) -> Verdict {
    let calls = {
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        scene.created(&subject).await?;
        scene.calls().await
    };
    let last = calls.iter().rposition(|call| call.mutates).unwrap_or_default();
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let ask = Ask { plan: Plan::Hang(last), terminate: true, ..Ask::default() };
    let run = scene.ask_with(&subject, subject.create(), ask).await?;
    if run.result.as_ref().is_some_and(|result| result.class.is_none()) {
        return Err(format!("SIGTERM before the machine was made, and yet: {}", words(&run)));
    }
    scene.created(&subject).await.map_err(|seen| format!("after SIGTERM: {seen}"))?;
    Ok(words(&run))
}
