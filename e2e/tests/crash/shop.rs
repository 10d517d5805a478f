//! examples/shop, several of them side by side, while their operator is killed (-9) at random moments: as they are made, and
//! as they are taken down. Each time the same end, with each machine, object and script once; and then nothing of it.
//!
//! Unlike those of the other faults the moments are drawn, and nothing is waited for: so they fall where nobody thought of.
//! The seed is told, and `make shop-kills RUNS=3 SHOP_SEED=N` draws the same moments again. What is open then depends on the
//! machine as well.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use futures::future::{join, join_all, try_join, try_join_all};
use provisioning_api::steps::Direction;
use provisioning_api::{BatchWorkflow, Cluster};
use provisioning_e2e::faults::{runs_on_disk, runs_until_wiped};
use provisioning_e2e::{Case, ServerRun, case, made, record};
use serde_json::{Value, json};

use crate::account::{
    Hits, creates_of_machines, differences, jobs_and_leases, never_falls, nothing_left, objects, one_machine_each,
    runs, undone,
};
use crate::{CLUSTER, at_rest, unready};

/// How many shops, where `SHOP_RUNS` says nothing.
const RUNS: usize = 3;
/// How many of them at a time: nine machines that install on two cores.
const SIDE_BY_SIDE: usize = 3;
/// How long a shop may take to be Ready, and to go: all of them at once, with an operator that is away again and again.
const PATIENCE: Duration = Duration::from_secs(600);
/// In which time from the beginning the kills fall. Shorter than it takes even one shop alone, so that all of them find
/// work that is under way.
const OPENING: Duration = Duration::from_secs(60);
/// The same for the deletion.
const CLOSING: Duration = Duration::from_secs(12);

const SERVERS: [&str; 3] = ["finch", "robin", "wren"];
/// What runs on which server, and the Taskserv that it is for.
const PLANNED: [(&str, &str, &str); 8] = [
    ("robin", "os", "base"),
    ("wren", "os", "base"),
    ("finch", "os", "base"),
    ("robin", "postgres", "store"),
    ("wren", "redis", "cache"),
    ("wren", "nginx", "web-pages"),
    ("finch", "nginx", "web-pages"),
    ("robin", "haproxy", "web-front"),
];
/// Of which extension all scripts have ended before the first one of which other begins; the way back is the reverse.
const BEFORE: [(&str, &str); 5] =
    [("os", "postgres"), ("os", "redis"), ("os", "nginx"), ("redis", "nginx"), ("nginx", "haproxy")];
/// What the operator makes, as the audit log spells it.
const MADE: [&str; 9] = [
    "clusters web",
    "servers finch",
    "servers robin",
    "servers wren",
    "taskservs base",
    "taskservs cache",
    "taskservs store",
    "taskservs web-front",
    "taskservs web-pages",
];

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn every_shop_comes_to_the_same_end_and_goes_without_a_trace() {
    let _held = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let runs = number("SHOP_RUNS").map_or(RUNS, |runs| usize::try_from(runs).expect("SHOP_RUNS is too large"));
    assert!(runs > 0, "SHOP_RUNS is 0");
    let seed = number("SHOP_SEED").unwrap_or(clock.as_secs() % 1_000_000);
    let (passed, first_end) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(None)));
    let mut failed = Vec::new();
    for (wave, first) in (1_u64..).zip((0..runs).step_by(SIDE_BY_SIDE)) {
        let wave = Wave {
            count: SIDE_BY_SIDE.min(runs - first),
            seed: seed.wrapping_add(wave - 1),
            passed: passed.clone(),
            first_end: first_end.clone(),
        };
        let before = *passed.lock().unwrap_or_else(PoisonError::into_inner);
        let again = format!("make shop-kills RUNS={} SHOP_SEED={}", wave.count, wave.seed);
        let test = || case(&format!("shop_from_{}_seed_{}", first + 1, wave.seed), |case: Case| wave.run(case));
        if catch_unwind(AssertUnwindSafe(test)).is_err() {
            // What failed is told already. A workspace that cannot be taken down fails its run, whichever it is.
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            *passed = (*passed).min(before + SIDE_BY_SIDE.min(runs - first) - 1);
            failed.push(again);
        }
    }
    let passed = *passed.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = began.elapsed().as_secs_f64();
    let verdict = if passed == runs { "holds " } else { "FAILED" };
    record(&format!("{seconds:7.1} s  {verdict}  {passed} of {runs} shops, operator killed at random, seed {seed}"));
    assert!(failed.is_empty() && passed == runs, "{passed} of {runs} shops; once more:\n{}", failed.join("\n"));
}

/// A number from the environment; none where it is empty or absent.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Shops that are opened and closed at the same time: a kill hits them all.
struct Wave {
    count: usize,
    seed: u64,
    /// Shops that came through, of all waves.
    passed: Arc<Mutex<usize>>,
    /// The end of the first shop of all: that of every other one is equal.
    first_end: Arc<Mutex<Option<Value>>>,
}

/// One of them.
struct Shop {
    case: Case,
    hits: Hits,
    /// Kills while it was made, and while it was taken down; how many of its steps were open then.
    kills: Vec<usize>,
    failed: Option<anyhow::Error>,
}

impl Wave {
    async fn run(self, case: Case) -> Result<()> {
        let mut shops = vec![Shop::new(case.clone())];
        for number in 2..=self.count {
            shops.push(Shop::new(case.sibling(&number.to_string()).await?));
        }
        let lived = self.live(&mut shops).await;
        let mut wrong: Vec<String> = lived.err().iter().map(|error| format!("{error:?}")).collect();
        for shop in &shops {
            wrong.extend(shop.failed.as_ref().map(|error| format!("{}: {error:?}", shop.case.name)));
            // The first one is taken down by its test. What failed stays where the test would let it stay.
            let first = shop.case.namespace == case.namespace;
            if !first && (wrong.is_empty() || std::env::var_os("KEEP").is_none()) {
                let torn = shop.case.teardown().await.with_context(|| format!("teardown of {}", shop.case.namespace));
                wrong.extend(torn.err().map(|error| format!("{error:?}")));
            }
        }
        ensure!(wrong.is_empty(), "seed {}:\n{}", self.seed, wrong.join("\n\n"));
        Ok(())
    }

    /// From nothing to nothing.
    async fn live(&self, shops: &mut [Shop]) -> Result<()> {
        let mut chance = Rng::with_seed(self.seed);
        let (opening, closing) = (2 + chance.usize(..2), 1 + chance.usize(..2));
        let (opening, closing) = (moments(&mut chance, opening, OPENING), moments(&mut chance, closing, CLOSING));
        stage(shops, &opening, Shop::open).await.context("opening")?;
        let ends = each(shops, |case, hits| async move { settle(&case, &hits).await }).await;
        self.compare(shops, ends).await;
        stage(shops, &closing, Shop::close).await.context("closing")?;
        self.tally(shops);
        Ok(())
    }

    /// All shops have one end, whatever hit them and when.
    async fn compare(&self, shops: &mut [Shop], ends: Vec<Option<Value>>) {
        for (shop, end) in shops.iter_mut().zip(ends) {
            let Some(end) = end else { continue };
            let differences = {
                let mut first = self.first_end.lock().unwrap_or_else(PoisonError::into_inner);
                differences("", &end, first.get_or_insert_with(|| end.clone()))
            };
            if !differences.is_empty() {
                shop.fail(anyhow::anyhow!("another end than the first shop:\n{}", differences.join("\n"))).await;
            }
        }
    }

    fn tally(&self, shops: &[Shop]) {
        for shop in shops.iter().filter(|shop| shop.failed.is_none()) {
            *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let (kills, open) = (shop.kills.len(), &shop.kills);
            shop.case.rule(&format!("{kills} kills with {open:?} open steps, one end, no trace"));
        }
    }
}

impl Shop {
    fn new(case: Case) -> Self {
        Shop { case, hits: Hits::default(), kills: Vec::new(), failed: None }
    }

    async fn fail(&mut self, error: anyhow::Error) {
        self.case.dump().await;
        self.failed = Some(error);
    }

    /// From nothing to Ready.
    async fn open(case: Case) -> Result<()> {
        case.open_shop().await?;
        let is_ready = |workflow: &BatchWorkflow| provisioning_e2e::is_ready(workflow);
        case.wait_for::<BatchWorkflow>("shop", "Ready", PATIENCE, is_ready).await?;
        Ok(())
    }

    /// From Ready to nothing: what ran on the servers is read until their disks are wiped.
    async fn close(case: Case) -> Result<()> {
        let mut disks = Vec::new();
        for server in SERVERS {
            disks.push(case.disk(server).await?);
        }
        let seen = try_join_all(disks.iter().map(|disk| runs_until_wiped(disk)));
        let deletion = async {
            case.delete::<BatchWorkflow>("shop").await?;
            case.gone::<BatchWorkflow>("shop", PATIENCE).await
        };
        let ((), seen) = try_join(deletion, seen).await?;
        nothing_left(&case).await?;
        taken_down(&SERVERS.into_iter().zip(seen).collect())?;
        made_once(&case).await
    }
}

/// Moments after a beginning: the gaps are those of events that know nothing of each other.
fn moments(chance: &mut Rng, count: usize, within: Duration) -> Vec<Duration> {
    let mean = within.as_secs_f64() / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    // All fall into the time: one that does not is drawn again, with the others.
    loop {
        let mut last = 0.0;
        let drawn = (0..count).map(|_| {
            last -= mean * (1.0 - chance.f64()).ln();
            last
        });
        let drawn: Vec<f64> = drawn.collect();
        if last < within.as_secs_f64() {
            return drawn.into_iter().map(Duration::from_secs_f64).collect();
        }
    }
}

/// A stage of all shops side by side, with the kills that fall into it.
async fn stage<F>(shops: &mut [Shop], moments: &[Duration], work: impl Fn(Case) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let cases: Vec<Case> = shops.iter().map(|shop| shop.case.clone()).collect();
    let (kills, _) = join(kill(&cases, moments), each(shops, |case, _| work(case))).await;
    let kills = kills?;
    let mut met = 0;
    for (shop, hits) in shops.iter_mut().zip(kills) {
        met += hits.iter().map(|hits| hits.steps.len()).sum::<usize>();
        for hits in hits {
            shop.kills.push(hits.steps.len());
            shop.hits.steps.extend(hits.steps);
            shop.hits.operators += 1;
        }
    }
    ensure!(met > 0, "no kill found a step open: {moments:?}");
    Ok(())
}

/// Something that is done with every shop that has not failed, side by side. One that fails keeps what may tell why.
async fn each<T, F>(shops: &mut [Shop], work: impl Fn(Case, Hits) -> F) -> Vec<Option<T>>
where
    F: Future<Output = Result<T>>,
{
    let well = |shop: &&Shop| shop.failed.is_none();
    let work = shops.iter().map(|shop| Some(shop).filter(well).map(|it| work(it.case.clone(), it.hits.clone())));
    let done = join_all(work.map(|work| async move { Some(work?.await) })).await;
    let mut results = Vec::new();
    for (shop, result) in shops.iter_mut().zip(done) {
        match result {
            Some(Err(error)) => {
                shop.fail(error).await;
                results.push(None);
            }
            Some(Ok(value)) => results.push(Some(value)),
            None => results.push(None),
        }
    }
    results
}

/// Kills the operator at these moments, and where it does not run then, as soon as it does. For each shop and kill: what
/// was open.
async fn kill(shops: &[Case], moments: &[Duration]) -> Result<Vec<Vec<Hits>>> {
    let mut found = vec![Vec::new(); shops.len()];
    let Some(any) = shops.first() else { return Ok(found) };
    let begin = tokio::time::Instant::now();
    for moment in moments {
        // The time itself is the fault's: it waits for nothing.
        tokio::time::sleep_until(begin + *moment).await;
        let operator = any.cluster.operator().await?;
        operator.kill().await?;
        let open = join_all(shops.iter().map(|case| async move {
            let mut hits = Hits::default();
            hits.note(case).await.map(|()| hits)
        }));
        for ((shop, hits), case) in found.iter_mut().zip(open.await).zip(shops) {
            let hits = hits?;
            eprintln!("{}: killed at {:.1?}, open: {:?}", case.namespace, begin.elapsed(), hits.steps);
            shop.push(hits);
        }
        any.cluster.replace_where_backed_off(&operator).await?;
    }
    any.cluster.operator().await?;
    Ok(found)
}

/// The account of a shop that is Ready: as planned, with another run only of what a kill found open.
async fn settle(case: &Case, hits: &Hits) -> Result<Value> {
    let end = at_rest(case, PATIENCE, || settled(case), || end(case), || account(case, hits)).await?;
    let words = case.prove_shop().await?.map_err(anyhow::Error::msg).context("the proof")?;
    ensure!(words.lines().count() == 3, "{words}");
    Ok(end)
}

/// As every case, and its Cluster is Ready too.
async fn settled(case: &Case) -> Result<Result<(), String>> {
    let clusters = unready::<Cluster>(case).await?;
    if clusters.is_empty() { crate::settled(case, &SERVERS).await } else { Ok(Err(clusters.join("\n"))) }
}

async fn end(case: &Case) -> Result<Value> {
    Ok(json!(objects(case).await?))
}

async fn account(case: &Case, hits: &Hits) -> Result<()> {
    phases(&objects(case).await?)?;
    one_machine_each(case, &SERVERS).await?;
    made_once(case).await?;
    let mut all = BTreeMap::new();
    for server in SERVERS {
        all.insert(server, runs_on_disk(&case.disk(server).await?)?);
    }
    scripts(&all, hits)?;
    runs(case, hits).await?;
    jobs_and_leases(case, hits).await
}

/// Every step succeeded, but the one whose condition is false.
fn phases(objects: &BTreeMap<String, Value>) -> Result<()> {
    for (name, object) in objects {
        let steps = object["steps"].as_object().with_context(|| format!("{name} has no steps"))?;
        for (id, step) in steps {
            let planned = if name == "BatchWorkflow shop" && id == "metrics" { "Skipped" } else { "Succeeded" };
            ensure!(step["phase"] == planned, "{name} {id} is not {planned}: {step}");
        }
    }
    Ok(())
}

/// As the API server counts: three machines, and every object that the operator makes, each created once.
async fn made_once(case: &Case) -> Result<()> {
    creates_of_machines(case, SERVERS.len()).await?;
    let creates = case.cluster.audit(&case.namespace, |event| {
        event.verb == "create"
            && event.namespace == case.namespace
            && event.subresource.is_empty()
            && ["clusters", "servers", "taskservs"].contains(&event.resource.as_str())
    });
    let mut made: Vec<String> =
        made(creates.await?).iter().map(|event| format!("{} {}", event.resource, event.name)).collect();
    made.sort();
    ensure!(made == MADE, "created: {made:#?}");
    Ok(())
}

/// What ran on the servers, by server.
type Runs = BTreeMap<&'static str, Vec<ServerRun>>;

/// One start and one completion of each install: scripts run on the servers, where the kill of an operator cuts nothing off.
/// Checks may have been repeated where a kill found them open.
fn scripts(all: &Runs, hits: &Hits) -> Result<()> {
    for (server, ran) in all {
        for run in ran {
            let planned = PLANNED.iter().any(|(on, extension, _)| on == server && *extension == run.extension);
            let script = ["install", "check"].contains(&run.script.as_str()) && run.direction == Direction::Forward;
            ensure!(planned && script, "not planned on {server}: {run:?}");
            ensure!(run.event == "start" || run.exit == Some(0), "a script failed on {server}: {run:?}");
        }
    }
    for (server, extension, taskserv) in PLANNED {
        let ran = of(&all[server], extension);
        let count = |script: &str, event: &str| {
            i64::try_from(ran.iter().filter(|run| run.script == script && run.event == event).count())
        };
        let (starts, ends) = (count("install", "start")?, count("install", "end")?);
        ensure!((starts, ends) == (1, 1), "{extension} on {server}: {starts} starts, {ends} ends: {ran:#?}");
        let again = hits.on(&format!("Taskserv {taskserv}"), &format!("check/{server}"));
        let (starts, ends) = (count("check", "start")?, count("check", "end")?);
        ensure!(starts == ends && (1..=1 + again).contains(&ends), "{extension} on {server}, {again}: {ran:#?}");
        never_falls(&ran)?;
    }
    in_order(all, Direction::Forward)
}

/// One uninstallation of each, in the reverse order, and nothing forward on a server once it began there.
fn taken_down(all: &Runs) -> Result<()> {
    for (server, extension, _) in PLANNED {
        undone(&of(&all[server], extension)).with_context(|| format!("{extension} on {server}"))?;
    }
    for (server, ran) in all {
        let undo = ran.iter().skip_while(|run| run.direction == Direction::Forward);
        for run in undo {
            ensure!(run.direction == Direction::Undo, "forward after an undo on {server}: {run:?}");
        }
    }
    in_order(all, Direction::Undo)
}

/// The runs of one extension.
fn of(ran: &[ServerRun], extension: &str) -> Vec<ServerRun> {
    ran.iter().filter(|run| run.extension == extension).cloned().collect()
}

/// By the clock of the one machine that all servers share.
fn in_order(all: &Runs, direction: Direction) -> Result<()> {
    let times = |extension: &str| -> Result<(jiff::Timestamp, jiff::Timestamp)> {
        let ran = all.values().flatten().filter(|run| run.extension == extension && run.direction == direction);
        let times: Result<Vec<jiff::Timestamp>, _> = ran.map(|run| run.time.parse()).collect();
        let times = times?;
        let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
        first.zip(last).with_context(|| format!("{extension} did not run"))
    };
    for (before, after) in BEFORE {
        let (one, other) = match direction {
            Direction::Forward => (before, after),
            Direction::Undo => (after, before),
        };
        let (ended, begun) = (times(one)?.1, times(other)?.0);
        if ended > begun {
            bail!("{direction:?}: {other} began at {begun}, {one} ended at {ended}");
        }
    }
    Ok(())
}
