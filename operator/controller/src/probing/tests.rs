use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use provisioning_extensions::{Manifest, ParameterSchema, ProbeKind};
use provisioning_plan::conditions::{Standing, State};
use serde_json::{Value, json};

use super::ask::Trouble;
use super::*;
use crate::bundles::{Contents, Offered};
use crate::metrics::Metrics;
use crate::queue::{Queue, queue};

fn offered(name: &str, probes: &str, schema: Option<&Value>) -> Offered {
    let manifest = format!(
        "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: {name}\nversion: 0.1.0\nprobes: {probes}\n"
    );
    let manifest = Manifest::from_yaml(&manifest).unwrap();
    let schema = schema.map(|schema| ParameterSchema::new(&schema.to_string(), &manifest).unwrap());
    let contents = Arc::new(Contents { manifest: Some(manifest), schema, ..Contents::default() });
    Offered { name: name.to_owned(), version: "0.1.0".to_owned(), digest: format!("#{name}"), contents }
}

fn server(address: &str, ready: &str) -> Server {
    let conditions = json!([{"type": "Ready", "status": ready, "reason": "Succeeded", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = json!({"addresses": [{"type": "Internal", "address": address}], "conditions": conditions});
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": "heron"}, "status": status,
        "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small",
            "image": {"os": "debian", "version": "12"}}}))
    .unwrap()
}

fn taskserv(parameters: &Value, phases: &[(&str, &str, &str)]) -> Taskserv {
    let step = |(id, action, phase): &(&str, &str, &str)| json!({"id": id, "action": action, "undo": "None", "phase": phase, "run": 4, "inputHash": "v1:0"});
    let steps: Vec<Value> = phases.iter().map(step).collect();
    let resolved =
        |name: &str| json!({"name": name, "version": "0.1.0", "digest": format!("#{name}"), "generation": 1});
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv",
        "metadata": {"name": "answer", "namespace": "marsh", "uid": "uid-answer", "generation": 1},
        "spec": {"extension": {"name": "answer"}, "servers": ["heron"], "parameters": parameters},
        "status": {"steps": steps, "resolved": resolved("answer"), "dependencies": [resolved("quill")]}}))
    .unwrap()
}

const INSTALLED: [(&str, &str, &str); 2] =
    [("install/heron", "Install", "Succeeded"), ("check/heron", "Check", "Succeeded")];

fn asked(taskserv: &Taskserv, probes: &str, address: &str) -> Vec<String> {
    let find = |name: &str| (name == "heron").then(|| server(address, "True"));
    let questions = questions(taskserv, &[offered("answer", probes, None)], find);
    questions.iter().map(|question| format!("{} {} run {}", question.probe, question.address, question.run)).collect()
}

const PROBES: &str = "[{name: tcp, type: Tcp, portParameter: port}, {name: http, type: Http, port: 80, path: /health}]";

#[test]
fn each_probe_is_asked_at_each_server_on_which_the_extension_is_installed() {
    let installed = taskserv(&json!({"port": 7077}), &INSTALLED);
    assert_eq!(asked(&installed, PROBES, "10.0.0.5"), ["http 10.0.0.5:80 run 4", "tcp 10.0.0.5:7077 run 4"]);
    let without_port = taskserv(&json!({}), &INSTALLED);
    assert_eq!(asked(&without_port, PROBES, "fd00::5"), ["http [fd00::5]:80 run 4"]);
    let checked_again = taskserv(&json!({"port": 7077}), &[INSTALLED[0], ("check/heron", "Check", "Running")]);
    assert_eq!(asked(&checked_again, PROBES, "10.0.0.5").len(), 2);
}

#[test]
fn nothing_is_asked_where_nothing_is_installed_or_its_server_is_gone() {
    let parameters = json!({"port": 7077});
    let mut installing = taskserv(&parameters, &[("install/heron", "Install", "Running")]);
    assert_eq!(asked(&installing, PROBES, "10.0.0.5"), [""; 0]);
    let elsewhere = taskserv(&parameters, &[("install/curlew", "Install", "Succeeded")]);
    assert_eq!(asked(&elsewhere, PROBES, "10.0.0.5"), [""; 0]);
    installing = taskserv(&parameters, &INSTALLED);
    installing.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(asked(&installing, PROBES, "10.0.0.5"), [""; 0]);
}

#[test]
fn addresses_of_the_operators_own_machine_are_never_asked() {
    let installed = taskserv(&json!({"port": 7077}), &INSTALLED);
    for address in
        ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1", "224.0.0.1", "heron"]
    {
        assert_eq!(asked(&installed, PROBES, address), [""; 0], "{address}");
    }
}

#[test]
fn what_is_required_is_asked_with_its_own_defaults_where_this_taskserv_has_installed_it() {
    let phases =
        [INSTALLED[0], ("install/heron/quill", "Install", "Succeeded"), ("install/heron/reed", "Install", "Running")];
    let installed = taskserv(&json!({"port": 7077}), &phases);
    let probes = "[{name: tcp, type: Tcp, portParameter: port}]";
    let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"port": {"type": "integer", "default": 9100}}});
    let shelf =
        [offered("answer", probes, None), offered("quill", probes, Some(&schema)), offered("reed", probes, None)];
    let told = |server: &Server| {
        let questions = questions(&installed, &shelf, |name| (name == "heron").then(|| server.clone()));
        let told = |question: &Question| format!("{:?} {}", question.required, question.address);
        questions.iter().map(told).collect::<Vec<_>>()
    };
    let mut heron = server("10.0.0.5", "True");
    assert_eq!(told(&heron), ["None 10.0.0.5:7077", "Some(\"quill\") 10.0.0.5:9100"]);
    // Another one looks after it now, whose parameters are not known here.
    let by = json!({"name": "scribe", "uid": "uid-scribe"});
    let entry = json!({"extension": "quill", "version": "0.1.0", "digest": "#quill", "state": "Installed",
        "by": by, "requiredBy": [by]});
    heron.status.as_mut().unwrap().installed = serde_json::from_value(json!([entry])).unwrap();
    assert_eq!(told(&heron), ["None 10.0.0.5:7077"]);
}

fn question(server: &str, probe: &str, kind: ProbeKind, port: u16) -> Question {
    let address = format!("10.0.0.5:{port}").parse().unwrap();
    Question { server: server.to_owned(), required: None, probe: probe.to_owned(), kind, address, run: 1 }
}

fn tcp(server: &str) -> Question {
    question(server, "tcp", ProbeKind::Tcp, 6379)
}

fn unhealthy(words: &str) -> Opinion {
    Opinion::Unhealthy(words.to_owned())
}

fn said(reason: &str, message: &str) -> Condition {
    serde_json::from_value(json!({"type": "Ready", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z"}))
    .unwrap()
}

#[test]
fn a_message_names_server_probe_port_and_words() {
    let http = ProbeKind::Http { path: "/health".to_owned(), status: Some(200) };
    let of = |asked: &[(Question, Opinion)]| {
        let Standing { state, reason, message } = standing(None, asked).unwrap();
        assert_eq!((state, reason), (State::Reconciling, "Unhealthy"));
        message
    };
    let failing = [
        (question("curlew", "health", http, 8081), unhealthy("HTTP 503 instead of 200")),
        (tcp("curlew"), Opinion::Healthy),
        (tcp("heron"), unhealthy("connection refused")),
    ];
    assert_eq!(
        of(&failing),
        "Server 'curlew': probe 'health' (GET /health on port 8081): HTTP 503 instead of 200; Server 'heron': probe \
         'tcp' (TCP port 6379): connection refused"
    );
    let many: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| (tcp(name), unhealthy("connection refused"))).into();
    assert!(of(&many).ends_with("Server 'c': probe 'tcp' (TCP port 6379): connection refused; and 2 more"));
    let required = Question { required: Some("quill".to_owned()), ..tcp("heron") };
    assert_eq!(
        of(&[(required, unhealthy("connection refused"))]),
        "Server 'heron': probe 'tcp' of extension 'quill' (TCP port 6379): connection refused"
    );
    assert_eq!(standing(None, &failing[1..2]), None);
    assert_eq!(standing(None, &[]), None);
}

#[test]
fn a_new_process_keeps_what_was_said_until_it_knows_better() {
    let before = said("Unhealthy", "Server 'heron': probe 'tcp' (TCP port 6379): connection refused");
    let unknown = [(tcp("curlew"), Opinion::Healthy), (tcp("heron"), Opinion::Unknown)];
    assert_eq!(standing(Some(&before), &unknown).unwrap().message, before.message);
    for opinion in [Opinion::Healthy, Opinion::Unproven] {
        let known = [(tcp("curlew"), opinion), (tcp("heron"), Opinion::Healthy)];
        assert_eq!(standing(Some(&before), &known), None);
    }
    let other = [(tcp("curlew"), unhealthy("no answer within 3 s")), (tcp("heron"), Opinion::Unproven)];
    assert!(standing(Some(&before), &other).unwrap().message.starts_with("Server 'curlew'"));
    let installed = said("Running", "running check/heron");
    assert_eq!(standing(Some(&installed), &unknown), None, "what was just checked is Ready without a probe");
}

/// A prober that was told of one service on `heron`, with the ends of its queue.
struct Bench {
    probing: Probing,
    woken: Queue,
    metrics: Metrics,
    taskserv: Taskserv,
}

impl Bench {
    fn new() -> Self {
        let (waker, woken) = queue();
        let metrics = Metrics::new().unwrap();
        let bench = Bench { probing: Probing::new(waker), woken, metrics, taskserv: taskserv(&json!({}), &[]) };
        bench.told(tcp("heron"));
        bench
    }

    fn told(&self, question: Question) {
        let found = Found { namespace: "marsh".to_owned(), taskserv: "answer".to_owned(), question };
        self.probing.take_over(vec![(key("uid-answer", &found.question), found)], Instant::now(), &self.metrics.probes);
    }

    fn hears(&mut self, answer: Result<(), Failure>, is_itself: bool) -> bool {
        let heard = Heard { key: key("uid-answer", &tcp("heron")), question: tcp("heron"), answer };
        self.probing.hear(&heard, |_, _| is_itself, &self.metrics.probes);
        self.woken.next().now_or_never().is_some()
    }

    fn opinion(&self, question: Question) -> Opinion {
        self.probing.opinions(&self.taskserv, vec![question]).remove(0).1
    }

    fn metric(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.text()).unwrap().contains(line)
    }
}

fn refused() -> Result<(), Failure> {
    Err(Failure { trouble: Trouble::Refused, words: "connection refused".to_owned() })
}

#[tokio::test(start_paused = true)]
async fn a_taskserv_is_looked_at_only_when_the_opinion_of_its_service_changes() {
    let mut bench = Bench::new();
    assert_eq!(bench.opinion(tcp("heron")), Opinion::Unknown);
    assert!(bench.hears(Ok(()), true));
    assert!(!bench.hears(Ok(()), true) && !bench.hears(refused(), true) && !bench.hears(refused(), true));
    assert!(bench.hears(refused(), true) && !bench.hears(refused(), true));
    assert_eq!(bench.opinion(tcp("heron")), unhealthy("connection refused"));
    assert!(bench.metric("provisioning_probe_failing 1\n"));
    assert!(bench.metric("provisioning_probe_answers_total{outcome=\"refused\"} 4\n"));
    assert!(bench.hears(Ok(()), true));
    assert!(bench.metric("provisioning_probe_failing 0\n") && bench.metric("provisioning_probe_known 1\n"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_server_that_is_not_ready_proves_nothing_and_its_silence_does() {
    let mut bench = Bench::new();
    assert!(!bench.hears(Ok(()), false));
    assert!(!bench.hears(refused(), false) && !bench.hears(refused(), false) && bench.hears(refused(), false));
    assert!(!bench.hears(Ok(()), false));
    assert_eq!(bench.opinion(tcp("heron")), unhealthy("connection refused"));
    let mut anew = Bench::new();
    assert!(!anew.hears(Ok(()), false) && !anew.hears(Ok(()), false) && anew.hears(Ok(()), false));
    assert_eq!(anew.opinion(tcp("heron")), Opinion::Unproven, "what was said before is not kept for it");
    assert!(anew.hears(Ok(()), true));
    let seen = |ready: &str| question::is_itself(Some(&server("10.0.0.5", ready)));
    assert_eq!((seen("True"), seen("Unknown"), question::is_itself(None)), (true, false, false));
}

#[tokio::test(start_paused = true)]
async fn after_a_new_installation_or_at_a_new_address_nothing_is_known() {
    let mut bench = Bench::new();
    assert!(bench.hears(Ok(()), true));
    let again = Question { run: 2, ..tcp("heron") };
    assert_eq!(bench.opinion(again.clone()), Opinion::Unknown, "although nobody has looked what there is to ask");
    bench.told(again.clone());
    assert!(!bench.hears(Ok(()), true), "an answer to what was asked before");
    assert_eq!(bench.opinion(again), Opinion::Unknown);
    bench.probing.take_over(Vec::new(), Instant::now(), &bench.metrics.probes);
    assert!(!bench.hears(Ok(()), true), "of what is gone nothing is remembered");
    assert!(bench.metric("provisioning_probe_known 0\n"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_asked_every_ten_seconds_give_or_take_one() {
    let bench = Bench::new();
    let mut places = Places::default();
    let mut last = Instant::now();
    let mut waits = Vec::new();
    while waits.len() < 20 {
        tokio::time::sleep(BEAT).await;
        if !bench.probing.due(Instant::now(), &mut places).is_empty() {
            waits.push(last.elapsed());
            last = Instant::now();
        }
    }
    assert!(waits[0] <= PERIOD + BEAT, "first after {:?}", waits[0]);
    let (least, most) = (PERIOD - JITTER, PERIOD + JITTER + BEAT);
    assert!(waits[1..].iter().all(|wait| (least..=most).contains(wait)), "{waits:?}");
    assert!(waits[1..].iter().any(|wait| *wait != waits[1]), "there is no jitter: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_workspaces_cannot_take_all_places() {
    let bench = Bench::new();
    let found = |namespace: &str, count: usize| {
        let each = (0..count).map(|number| {
            let found = Found {
                namespace: namespace.to_owned(),
                taskserv: "answer".to_owned(),
                question: tcp(&format!("heron-{number}")),
            };
            (key(namespace, &found.question), found)
        });
        each.collect::<Vec<_>>()
    };
    let slow = ["fen", "marsh", "moor", "bog"];
    let all: Vec<_> = slow.iter().flat_map(|name| found(name, 100)).collect();
    bench.probing.take_over(all.clone(), Instant::now(), &bench.metrics.probes);
    tokio::time::advance(PERIOD).await;
    let mut places = Places::default();
    let mut taken = bench.probing.due(Instant::now(), &mut places);
    let of = |name: &str, taken: &[(Key, Question, Place)]| taken.iter().filter(|(key, ..)| key.0 == name).count();
    assert!((PLACES - PLACES_FOR_FIRSTS..=PLACES).contains(&taken.len()), "{}", taken.len());
    for name in slow {
        assert!((1..=PLACES_OF_ONE).contains(&of(name, &taken)), "{name}");
    }
    assert!(bench.probing.due(Instant::now(), &mut places).is_empty(), "the rest is not for these");

    // None of theirs has ended yet: one that comes now is asked all the same, though not all of it at once.
    let all = [all, found("mere", 100)].concat();
    bench.probing.take_over(all, Instant::now(), &bench.metrics.probes);
    tokio::time::advance(PERIOD).await;
    let first = bench.probing.due(Instant::now(), &mut places);
    assert_eq!((first.len(), of("mere", &first)), (1, 1));

    let most = taken.len();
    drop(first);
    taken.clear();
    places.forget_idle();
    assert!(places.by_workspace.is_empty());
    assert!(bench.probing.due(Instant::now(), &mut places).len() >= most, "places are free again");
}
