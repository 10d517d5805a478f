//! Traces, sent to an OpenTelemetry collector as OTLP over HTTP in its JSON form. Off unless an address is given.
//!
//! One trace per generation of what a person wrote. In it each attempt is a span, from where the object begins to be worked
//! on until it is Ready, Stalled or gone, and each run of a step is a span below. What a workflow or a cluster made has its
//! spans below the step that made it, in the trace of the topmost owner. All identifiers are hashes of what is traced, so
//! spans from before and after a restart of the operator, or from another leader, find together.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus::IntCounter;
use provisioning_api::steps::{StepPhase, StepStatus};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::metrics::{class_label, phase_label};

/// Most spans that wait to be sent; what comes on top is dropped and counted.
const WAITING: usize = 2048;
/// Most spans in one request.
const BATCH: usize = 256;
/// Longest wait for a batch to fill.
const LINGER: Duration = Duration::from_secs(2);
/// Longest time that a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where traces are sent: `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    host: String,
    port: u16,
    path: String,
}

impl std::str::FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not an address: {error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => Ok(Collector {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: uri.port_u16().unwrap_or(4318),
                path: if uri.path() == "/" { "/v1/traces" } else { uri.path() }.to_owned(),
            }),
            _ => {
                Err("only http://HOST:PORT is understood; a collector beside the operator speaks TLS onward".to_owned())
            }
        }
    }
}

/// Of which object a span is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Kind.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// Generation that the plan is for.
    pub generation: i64,
    /// Since when it is worked on: tells a new try of the same generation from the one before.
    pub attempt: Option<Timestamp>,
    /// The step of another object that made it.
    pub maker: Option<Maker>,
}

/// A run of the step of a workflow or cluster that made an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// uid of the workflow or cluster.
    pub uid: String,
    /// uid and generation of the topmost owner, whose trace it is.
    pub top: (String, i64),
    /// Id of the step.
    pub step: String,
    /// Number of its run.
    pub run: i64,
}

/// One span, as OTLP has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span(Value);

/// Takes spans and has them sent.
#[derive(Clone, Debug)]
pub struct Traces {
    sender: mpsc::Sender<Span>,
    dropped: IntCounter,
}

impl Traces {
    /// Starts to send to a collector.
    pub fn start(collector: Collector, dropped: IntCounter) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(send_all(collector, receiver, dropped.clone()));
        Traces { sender, dropped }
    }

    /// Hands a span over. Never waits: where the collector is slow or away, the span is lost.
    pub fn record(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// The span of a run of a step that has ended; `None` for one that goes on or never ran.
pub fn of_step(subject: &Subject, step: &StepStatus, now: Timestamp) -> Option<Span> {
    let failed = match step.phase {
        StepPhase::Succeeded | StepPhase::Undone => false,
        StepPhase::Failed | StepPhase::UndoFailed => true,
        StepPhase::Pending if step.class.is_some() => true,
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Undoing
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted => return None,
    };
    let start = step.started_at.as_ref().filter(|_| step.run > 0)?.0;
    // Times in status are cut to the second.
    let end = step.finished_at.as_ref().map_or(now, |time| time.0).max(start);
    let attributes = [
        ("step", json!({"stringValue": step.id})),
        ("run", json!({"intValue": step.run.to_string()})),
        ("outcome", json!({"stringValue": phase_label(step.phase)})),
        ("class", json!({"stringValue": if failed { class_label(step.class) } else { "" }})),
        ("reason", json!({"stringValue": step.reason})),
    ];
    let id = step_span(&subject.uid, &step.id, step.run);
    let parent = object_span(subject).or_else(|| maker_span(subject));
    Some(span(subject, id, parent, format!("{} {}", subject.kind, step.id), (start, end), failed, &attributes))
}

/// The span of an attempt that has come to its end; `None` where nothing has run in it: a service that answers again, for
/// example.
pub fn of_object(subject: &Subject, steps: &[StepStatus], failed: bool, now: Timestamp) -> Option<Span> {
    let start = subject.attempt?;
    let moved = |step: &StepStatus| {
        let times = [step.started_at.as_ref(), step.finished_at.as_ref()];
        // Times in status are cut to the second.
        step.run > 0 && times.into_iter().flatten().any(|time| time.0.as_second() >= start.as_second())
    };
    steps.iter().any(moved).then_some(())?;
    let name = format!("{} {}", subject.kind, subject.name);
    Some(span(subject, object_span(subject)?, maker_span(subject), name, (start, now.max(start)), failed, &[]))
}

fn span(
    subject: &Subject,
    id: String,
    parent: Option<String>,
    name: String,
    (start, end): (Timestamp, Timestamp),
    failed: bool,
    attributes: &[(&str, Value)],
) -> Span {
    let nanos = |time: Timestamp| time.as_nanosecond().max(0).to_string();
    let own = [
        ("kind", json!({"stringValue": subject.kind})),
        ("namespace", json!({"stringValue": subject.namespace})),
        ("object", json!({"stringValue": subject.name})),
    ];
    let attributes: Vec<Value> = own
        .iter()
        .chain(attributes)
        .map(|(key, value)| json!({"key": format!("provisioning.{key}"), "value": value}))
        .collect();
    let mut span = json!({
        "traceId": trace(subject), "spanId": id, "name": name, "kind": 1,
        "startTimeUnixNano": nanos(start), "endTimeUnixNano": nanos(end),
        "attributes": attributes, "status": {"code": if failed { 2 } else { 1 }},
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = json!(parent);
    }
    Span(span)
}

fn trace(subject: &Subject) -> String {
    let maker = subject.maker.as_ref();
    let (uid, generation) = maker.map_or((&subject.uid, subject.generation), |maker| (&maker.top.0, maker.top.1));
    hex(&["trace", uid, &generation.to_string()], 16)
}

fn object_span(subject: &Subject) -> Option<String> {
    let since = subject.attempt?.as_second().to_string();
    Some(hex(&["object", &subject.uid, &subject.generation.to_string(), &since], 8))
}

fn maker_span(subject: &Subject) -> Option<String> {
    subject.maker.as_ref().map(|maker| step_span(&maker.uid, &maker.step, maker.run))
}

fn step_span(uid: &str, step: &str, run: i64) -> String {
    hex(&["step", uid, step, &run.to_string()], 8)
}

fn hex(parts: &[&str], bytes: usize) -> String {
    Sha256::digest(parts.join("\n").as_bytes()).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

async fn send_all(collector: Collector, mut spans: mpsc::Receiver<Span>, dropped: IntCounter) {
    while let Some(first) = spans.recv().await {
        let mut batch = vec![first];
        let full = async {
            while batch.len() < BATCH {
                let Some(span) = spans.recv().await else { return };
                batch.push(span);
            }
        };
        // What has come by then goes; a batch that fills up goes at once.
        let _ = tokio::time::timeout(LINGER, full).await;
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = tokio::time::timeout(PATIENCE, send(&collector, batch)).await;
        let why = match sent {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        dropped.inc_by(count);
        tracing::debug!(why, count, "spans were not taken by the collector");
    }
}

/// One request. What the collector does not take is lost: traces are for looking, not for counting.
async fn send(collector: &Collector, batch: Vec<Span>) -> Result<(), String> {
    let service = json!({"key": "service.name", "value": {"stringValue": "provisioning-operator"}});
    let spans: Vec<Value> = batch.into_iter().map(|span| span.0).collect();
    let body = json!({"resourceSpans": [{"resource": {"attributes": [service]},
        "scopeSpans": [{"scope": {"name": "provisioning", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}]}]});
    let stream = TcpStream::connect((collector.host.as_str(), collector.port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::post(&collector.path)
        .header(HOST, format!("{}:{}", collector.host, collector.port))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| e.to_string())?;
    // The connection lives as long as the request: it is dropped with this future.
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(|e| e.to_string())?,
        ended = connection => return Err(ended.map_or_else(|e| e.to_string(), |()| "it hung up".to_owned())),
    };
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use provisioning_api::steps::FailureClass;
    use serde::Deserialize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What a collector reads: names and types of OTLP's JSON form, and nothing beside them.
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Export {
        resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct ResourceSpans {
        resource: Resource,
        scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Resource {
        attributes: Vec<Attribute>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct ScopeSpans {
        #[allow(dead_code)] // its shape is what is looked at
        scope: BTreeMap<String, String>,
        spans: Vec<Read>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Read {
        trace_id: String,
        span_id: String,
        parent_span_id: Option<String>,
        name: String,
        kind: u8,
        start_time_unix_nano: String,
        end_time_unix_nano: String,
        attributes: Vec<Attribute>,
        status: Status,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Status {
        code: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Attribute {
        key: String,
        value: BTreeMap<String, String>,
    }

    fn subject(kind: &'static str, name: &str, maker: Option<Maker>) -> Subject {
        let uid = format!("uid-{name}");
        let attempt = Some("2026-05-04T03:02:00.9Z".parse().unwrap());
        Subject { kind, namespace: "marsh".to_owned(), name: name.to_owned(), uid, generation: 3, attempt, maker }
    }

    fn step(id: &str, phase: StepPhase, run: i64) -> StepStatus {
        let mut step: StepStatus = serde_json::from_value(json!({
            "id": id, "action": "Create", "undo": "DeleteServer", "inputHash": "v1:0", "phase": "Pending", "run": run,
            "startedAt": "2026-05-04T03:02:01Z", "finishedAt": "2026-05-04T03:02:11Z", "reason": "QuotaExceeded",
            "message": "sedge-warbler",
        }))
        .unwrap();
        step.phase = phase;
        step.class = Some(FailureClass::Invalid);
        step
    }

    fn now() -> Timestamp {
        "2026-05-04T03:02:20Z".parse().unwrap()
    }

    /// Takes one request, answers it, and gives what it said.
    async fn collect(listener: TcpListener) -> (String, Export) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "the request is cut off: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&part[..read]);
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                return (head.to_owned(), serde_json::from_str(body).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn one_trace_holds_a_workflow_its_children_and_every_run_of_their_steps() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector: Collector = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let dropped = IntCounter::new("dropped", "spans").unwrap();
        let traces = Traces::start(collector, dropped.clone());
        let maker =
            Maker { uid: "uid-dawn".to_owned(), top: ("uid-dawn".to_owned(), 3), step: "heron".to_owned(), run: 1 };
        let (workflow, server) = (subject("BatchWorkflow", "dawn", None), subject("Server", "blue-heron", Some(maker)));
        let applied = step("heron", StepPhase::Succeeded, 1);
        let created = [step("create", StepPhase::Pending, 1), step("create", StepPhase::Succeeded, 2)];
        let spans = [
            of_step(&server, &created[0], now()),
            of_step(&server, &created[1], now()),
            of_object(&server, &created, false, now()),
            of_step(&workflow, &applied, now()),
            of_object(&workflow, &[applied], true, now()),
        ];
        spans.into_iter().for_each(|span| traces.record(span.unwrap()));
        let (head, export) = collect(listener).await;
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let [of_operator] = export.resource_spans.as_slice() else { panic!("{export:#?}") };
        assert_eq!(of_operator.resource.attributes[0].value["stringValue"], "provisioning-operator");
        let spans = &of_operator.scope_spans[0].spans;
        assert_eq!(spans.len(), 5);
        let hex = |text: &str, digits| text.len() == digits && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        assert!(spans.iter().all(|span| hex(&span.trace_id, 32) && hex(&span.span_id, 16) && span.kind == 1));
        assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id), "{spans:#?}");
        let [retried, made, server, heron, dawn] = spans.as_slice() else { panic!("{spans:#?}") };
        assert_ne!(retried.span_id, made.span_id, "a run is a span");
        assert_eq!(retried.parent_span_id.as_ref(), Some(&server.span_id));
        assert_eq!(made.parent_span_id.as_ref(), Some(&server.span_id));
        assert_eq!(server.parent_span_id.as_ref(), Some(&heron.span_id));
        assert_eq!(heron.parent_span_id.as_ref(), Some(&dawn.span_id));
        assert_eq!(dawn.parent_span_id, None);
        assert_eq!([&retried.status, &made.status, &dawn.status].map(|status| status.code), [2, 1, 2]);
        assert_eq!((made.name.as_str(), dawn.name.as_str()), ("Server create", "BatchWorkflow dawn"));
        assert_eq!(made.start_time_unix_nano, "1777863721000000000");
        assert_eq!(made.end_time_unix_nano, "1777863731000000000");
        let said: BTreeMap<_, _> = retried.attributes.iter().map(|pair| (pair.key.as_str(), &pair.value)).collect();
        assert_eq!(said["provisioning.run"]["intValue"], "1");
        assert_eq!(said["provisioning.class"]["stringValue"], "Invalid");
        assert_eq!(said["provisioning.outcome"]["stringValue"], "Retrying");
        // Words of a script or a provider are for the object's readers, not for everybody who sees traces.
        assert!(!format!("{spans:?}").contains("sedge-warbler"));
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn what_goes_on_or_never_ran_has_no_span() {
        let server = subject("Server", "blue-heron", None);
        for phase in [StepPhase::Running, StepPhase::Undoing, StepPhase::Skipped, StepPhase::Omitted] {
            assert_eq!(of_step(&server, &step("create", phase, 1), now()), None, "{phase:?}");
        }
        assert_eq!(of_step(&server, &step("create", StepPhase::Succeeded, 0), now()), None);
        assert_eq!(of_object(&server, &[], true, now()), None);
    }

    #[test]
    fn a_new_try_is_a_span_of_its_own_and_one_in_which_nothing_ran_is_none() {
        let first = subject("Server", "blue-heron", None);
        let at = |second: i32| Subject {
            attempt: Some(format!("2026-05-04T03:02:{second}Z").parse().unwrap()),
            ..first.clone()
        };
        let create = step("create", StepPhase::Failed, 1);
        let id = |subject: &Subject| {
            of_object(subject, std::slice::from_ref(&create), true, now()).unwrap().0["spanId"].clone()
        };
        assert_ne!(id(&first), id(&at(10)), "a retry");
        assert_eq!(id(&first), id(&first));
        let trace = |subject: &Subject| of_step(subject, &create, now()).unwrap().0["traceId"].clone();
        assert_eq!(trace(&first), trace(&at(10)));
        assert_eq!(of_step(&at(10), &create, now()).unwrap().0["parentSpanId"], id(&at(10)));
        // Unhealthy and Ready again: the step ended at 03:02:11, before it.
        assert_eq!(of_object(&at(12), &[create], false, now()), None);
    }

    #[tokio::test]
    async fn a_collector_that_is_away_holds_nothing_up_and_the_loss_is_counted() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dropped = IntCounter::new("dropped", "spans").unwrap();
        let collector = format!("http://{address}").parse().unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let traces = Traces { sender, dropped: dropped.clone() };
        let span =
            of_step(&subject("Server", "blue-heron", None), &step("create", StepPhase::Succeeded, 1), now()).unwrap();
        traces.record(span.clone());
        traces.record(span);
        assert_eq!(dropped.get(), 1, "there is no room for the second one");
        drop(traces);
        send_all(collector, receiver, dropped.clone()).await;
        assert_eq!(dropped.get(), 2, "nobody took the first one");
    }

    #[test]
    fn an_address_is_plain_http_with_the_usual_port_and_path() {
        let collector =
            |text: &str| text.parse::<Collector>().map(|found| format!("{} {} {}", found.host, found.port, found.path));
        assert_eq!(collector("http://collector"), Ok("collector 4318 /v1/traces".to_owned()));
        assert_eq!(collector("http://[::1]:4000/other"), Ok("::1 4000 /other".to_owned()));
        assert!(collector("https://collector:4318").unwrap_err().contains("http://"));
        assert!(collector("collector").is_err());
    }
}
