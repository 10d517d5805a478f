//! Golden logs of whole runs. `GOLDEN=write` writes them; without, they are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed
#![allow(clippy::disallowed_methods)] // the planner does no I/O; its golden files need it

mod support;

use std::path::Path;

use jiff::SignedDuration;
use provisioning_api::shared::OnFailure;
use provisioning_api::steps::{FailureClass, StepPhase};
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::Gate;
use support::world::{Crash, Script, World};

fn tell(name: &str, world: &mut World) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    let story = world.story();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, story).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(story, golden, "{name} differs; GOLDEN=write writes {}", path.display());
}

const FIRST: &str = "heron apply
                     curlew apply
                     redis apply after=heron";

#[test]
fn three_steps_in_the_order_of_their_dependencies() {
    let mut world = World::new(FIRST);
    world.rest();
    tell("happy-path", &mut world);
}

#[test]
fn a_passing_failure_is_tried_again_after_a_growing_wait() {
    let mut world = World::new("heron create");
    for run in 1..=3 {
        world.script("heron", run, Script::fails(2, FailureClass::Transient, "connection reset by peer"));
    }
    world.rest();
    tell("retry-with-backoff", &mut world);
}

#[test]
fn a_retry_without_end_ends() {
    let mut world = World::new("heron create limit=1");
    for run in 1..=9 {
        world.script("heron", run, Script::fails(2, FailureClass::Transient, "connection reset by peer"));
    }
    world.rest();
    world.ask_again();
    world.rest();
    tell("retry-limit", &mut world);
}

#[test]
fn each_class_of_failure_has_its_own_consequence() {
    let classes = [
        FailureClass::Infrastructure,
        FailureClass::Refused,
        FailureClass::Transient,
        FailureClass::Throttled,
        FailureClass::Timeout,
        FailureClass::Invalid,
        FailureClass::Unauthorized,
        FailureClass::ScriptFailed,
    ];
    let names: Vec<String> = classes.iter().map(|class| format!("{class:?}").to_lowercase()).collect();
    let mut world = World::new(&names.iter().map(|name| format!("{name} install\n")).collect::<String>());
    world.policy.parallelism = 8;
    for (name, class) in names.iter().zip(classes) {
        world.script(name, 1, Script::fails(5, class, "the words of the cause"));
    }
    world.rest();
    tell("failure-classes", &mut world);
}

#[test]
fn a_failure_omits_what_depends_on_it_and_nothing_else() {
    let mut world = World::new(
        "heron create
         curlew create
         redis install after=heron
         check-redis check after=redis
         nginx install after=curlew",
    );
    world.script("heron", 1, Script::fails(5, FailureClass::Invalid, "size 'tiny' is unknown (did you mean 'small'?)"));
    world.rest();
    world.edit(
        "the size of heron is corrected",
        "heron create input=2
         curlew create
         redis install after=heron
         check-redis check after=redis
         nginx install after=curlew",
    );
    world.rest();
    tell("failure-omits-dependents", &mut world);
}

#[test]
fn a_soft_dependency_orders_and_never_blocks() {
    let mut world = World::new(
        "backup install
         redis install after=backup?",
    );
    world.script("backup", 1, Script::fails(30, FailureClass::ScriptFailed, "no space left on device"));
    world.rest();
    tell("soft-dependency", &mut world);
}

#[test]
fn a_changed_input_runs_again_with_what_depends_on_it() {
    let mut world = World::new(FIRST);
    world.rest();
    world.edit(
        "the spec of heron changes",
        "heron apply input=2
         curlew apply
         redis apply after=heron",
    );
    world.rest();
    tell("changed-input", &mut world);
}

#[test]
fn an_edit_in_mid_run_awaits_what_is_open() {
    let mut world = World::new(FIRST);
    world.run_for(5);
    world.edit(
        "heron and redis change while heron is running",
        "heron apply input=2
         curlew apply
         redis apply after=heron input=2",
    );
    world.rest();
    tell("edit-in-mid-run", &mut world);
}

#[test]
fn what_was_open_while_its_dependency_changed_runs_again() {
    let mut world = World::new(FIRST);
    world.script("redis", 1, Script::succeeds(60));
    world.run_for(15);
    world.edit(
        "heron changes while redis is being installed on it",
        "heron apply input=2
         curlew apply
         redis apply after=heron",
    );
    world.rest();
    tell("edit-under-an-open-step", &mut world);
}

#[test]
fn a_deletion_in_mid_run_awaits_then_goes_backward() {
    let mut world = World::new(
        "heron create
         reach reach after=heron
         redis install after=reach
         check check after=redis",
    );
    world.run_for(25);
    world.script("redis", 2, Script::fails(3, FailureClass::Transient, "connection reset by peer"));
    world.delete();
    world.rest();
    tell("deletion-in-mid-run", &mut world);
}

#[test]
fn a_blocked_deletion_names_what_remains_and_goes_on_when_asked() {
    let mut world = World::new(
        "heron create
         redis install after=heron",
    );
    world.rest();
    world.script("redis", 2, Script::fails(3, FailureClass::Invalid, "uninstall.nu: unit redis is masked"));
    world.delete();
    world.rest();
    world.run_for(3600);
    world.ask_again();
    world.rest();
    tell("deletion-blocked", &mut world);
}

#[test]
fn a_suspended_object_starts_nothing_until_it_is_resumed() {
    let mut world = World::new(FIRST);
    world.run_for(5);
    world.suspend(Some("BatchWorkflow first is suspended: set spec.suspend to false to go on"));
    world.run_for(600);
    world.suspend(None);
    world.rest();
    tell("suspend-and-resume", &mut world);
}

#[test]
fn a_suspended_object_can_be_deleted() {
    let mut world = World::new(FIRST);
    world.run_for(15);
    world.suspend(Some("Workspace workspace is suspended: set spec.suspend to false to go on"));
    world.delete();
    world.rest();
    tell("deletion-while-suspended", &mut world);
}

#[test]
fn a_crash_between_intent_and_job_charges_no_attempt() {
    let mut world = World::new(FIRST);
    world.crash = Some(Crash::BeforeAct);
    world.rest();
    tell("crash-before-job", &mut world);
}

#[test]
fn a_crash_after_the_job_changes_nothing() {
    let mut world = World::new(FIRST);
    world.crash = Some(Crash::AfterAct);
    world.rest();
    tell("crash-after-job", &mut world);
}

#[test]
fn a_new_leader_gives_up_what_it_did_not_take_over() {
    let mut world = World::new(FIRST);
    world.run_for(5);
    world.new_leader(false);
    world.pass();
    world.rest();
    tell("new-epoch", &mut world);
}

#[test]
fn a_new_leader_goes_on_with_what_it_took_over() {
    let mut world = World::new(FIRST);
    world.run_for(5);
    world.new_leader(true);
    world.pass();
    world.rest();
    tell("new-epoch-taken-over", &mut world);
}

#[test]
fn a_closed_gate_is_waited_for() {
    let mut world = World::new("redis install waits=Server_heron_is_not_Ready unknown");
    world.rest();
    world.edit("heron is Ready", "redis install");
    world.rest();
    tell("gate-opens", &mut world);
}

#[test]
fn a_gate_that_is_gone_omits_forward() {
    let mut world = World::new(
        "redis install gone=Server_heron_is_gone
         check check after=redis",
    );
    world.rest();
    tell("gate-gone-forward", &mut world);
}

#[test]
fn a_gate_that_is_gone_leaves_nothing_to_undo() {
    let mut world = World::new(
        "redis install
         nginx install",
    );
    world.rest();
    world.edit(
        "heron is gone",
        "redis install gone=Server_heron_is_gone
         nginx install",
    );
    world.effects.remove("redis");
    world.delete();
    world.rest();
    tell("gate-gone-backward", &mut world);
}

#[test]
fn a_removed_step_is_undone_then_forgotten() {
    let mut world = World::new(FIRST);
    world.rest();
    world.edit("redis and heron are taken out", "curlew apply");
    world.rest();
    tell("removed-undone", &mut world);
}

#[test]
fn a_removed_step_is_forgotten_where_the_policy_says_so() {
    let mut world = World::new(FIRST);
    world.policy.removed = RemovedSteps::Forget;
    world.rest();
    world.edit("redis is taken out", "heron apply\ncurlew apply");
    world.rest();
    tell("removed-forgotten", &mut world);
}

#[test]
fn a_removed_step_comes_back_while_its_undo_fails() {
    let mut world = World::new("heron apply\ncurlew apply");
    world.rest();
    world.script("heron", 2, Script::fails(5, FailureClass::Transient, "connection reset by peer"));
    world.edit("heron is taken out", "curlew apply");
    world.run_for(7);
    world.edit("heron is wanted again", "heron apply\ncurlew apply");
    world.rest();
    tell("removed-and-back", &mut world);
}

#[test]
fn no_more_steps_are_open_than_there_are_places() {
    let mut world = World::new("a create\nb create\nc create\nd create\ne create");
    world.policy.parallelism = 2;
    world.policy.available = 1;
    world.pass();
    world.policy.available = 100;
    world.pass();
    world.rest();
    tell("parallelism", &mut world);
}

#[test]
fn without_a_free_place_it_says_so() {
    let mut world = World::new("a create");
    world.policy.available = 0;
    world.run_for(5);
    world.say("a place is free");
    world.policy.available = 1;
    world.pass();
    world.rest();
    tell("no-free-place", &mut world);
}

#[test]
fn a_pause_that_a_clock_a_day_ahead_began_is_not_waited_for_once_the_clock_is_right() {
    let mut world = World::new("heron create");
    world.script("heron", 1, Script::fails(1, FailureClass::Transient, "no route"));
    world.run_for(2);
    world.pass();
    assert_eq!(world.phase("heron"), Some(StepPhase::Pending), "{}", world.story());
    world.now -= SignedDuration::from_mins(30);
    world.pass();
    assert_eq!(world.phase("heron"), Some(StepPhase::Pending), "clocks differ a little: {}", world.story());
    world.now -= SignedDuration::from_hours(24);
    world.pass();
    assert_eq!(world.phase("heron"), Some(StepPhase::Running), "{}", world.story());
}

#[test]
fn losses_are_charged_to_no_attempt_but_bounded() {
    let mut world = World::new("heron create");
    for run in 1..=12 {
        world.script("heron", run, Script::lost(1));
    }
    world.rest();
    tell("too-many-losses", &mut world);
}

#[test]
fn refused_credentials_are_tried_every_fifteen_minutes_or_when_asked() {
    let mut world = World::new("heron create");
    for run in 1..=3 {
        world.script("heron", run, Script::fails(1, FailureClass::Unauthorized, "token expired"));
    }
    world.run_for(20 * 60);
    world.ask_again();
    world.rest();
    tell("unauthorized", &mut world);
}

#[test]
fn what_failed_and_waits_for_something_else_since_tells_what() {
    let mut world = World::new("redis install");
    world.script("redis", 1, Script::fails(2, FailureClass::Transient, "connection reset by peer"));
    world.run_for(3);
    world.edit("its bundle goes", "redis install waits=Its_bundle_is_not_on_offer_any_more unknown");
    world.run_for(60);
    world.edit("its bundle is loaded again", "redis install");
    world.rest();
    tell("failed-behind-a-gate", &mut world);
}

#[test]
fn a_step_whose_cause_is_mended_goes_on_by_itself() {
    let mut world = World::new("heron apply\nredis apply after=heron");
    world.script(
        "heron",
        1,
        Script::fails(5, FailureClass::Invalid, "Server 'heron' is Stalled: zone 'mars' is unknown"),
    );
    world.rest();
    world.say("Server heron is Ready after all");
    world.policy.revive.insert("heron".to_owned());
    world.pass();
    world.policy.revive.clear();
    world.rest();
    tell("cause-is-mended", &mut world);
}

#[test]
fn an_undo_waits_for_the_gate_of_a_removed_step() {
    let mut world = World::new("heron create\nredis install after=heron");
    world.rest();
    world.policy.gates.insert("redis".to_owned(), Gate::Waiting("Server heron is not Ready".to_owned()));
    world.edit("redis is taken out while heron is away", "heron create");
    world.run_for(60);
    world.say("heron is back");
    world.policy.gates.clear();
    world.pass();
    world.rest();
    world.edit("redis is wanted again", "heron create\nredis install after=heron");
    world.rest();
    tell("removed-behind-a-gate", &mut world);
}

#[test]
fn a_step_whose_condition_is_false_is_passed_over_and_holds_nobody_up() {
    let mut world = World::new(
        "heron create
         proxy install after=heron when=steps.heron.outputs.zone=='far'
         redis install after=heron,proxy",
    );
    world.script("heron", 1, Script::leaves(10, &[("zone", "near")]));
    world.script("heron", 2, Script::leaves(10, &[("zone", "far")]));
    world.rest();
    world.edit(
        "heron moves",
        "heron create input=2
         proxy install after=heron when=steps.heron.outputs.zone=='far'
         redis install after=heron,proxy",
    );
    world.rest();
    tell("condition-false", &mut world);
}

#[test]
fn a_step_that_runs_after_all_plans_again_what_was_done_without_it() {
    let mut world = World::new(
        "heron create
         proxy install after=heron when=steps.heron.phase!='Succeeded'
         redis install after=proxy",
    );
    world.rest();
    world.edit(
        "the condition of proxy is turned around",
        "heron create
         proxy install after=heron when=steps.heron.phase=='Succeeded'
         redis install after=proxy",
    );
    world.rest();
    world.edit(
        "and back: what proxy made stays until the deletion",
        "heron create
         proxy install after=heron when=steps.heron.phase!='Succeeded'
         redis install after=proxy",
    );
    world.rest();
    world.delete();
    world.rest();
    tell("condition-changed", &mut world);
}

#[test]
fn a_condition_can_ask_for_a_failure() {
    let mut world = World::new(
        "heron create
         curlew create after=heron? when=steps.heron.phase=='Failed'
         redis install after=heron",
    );
    world.script("heron", 1, Script::fails(5, FailureClass::Invalid, "zone 'mars' is unknown"));
    world.rest();
    world.ask_again();
    world.rest();
    tell("condition-on-failure", &mut world);
}

#[test]
fn a_condition_that_cannot_be_decided_fails_the_step_with_its_words() {
    let mut world = World::new(
        "heron create
         proxy install after=heron when=steps.heron.outputs.zone=='far'
         redis install after=proxy",
    );
    world.script("heron", 2, Script::leaves(10, &[("zone", "far")]));
    world.rest();
    world.ask_again();
    world.rest();
    world.edit(
        "heron is made anew and tells its zone",
        "heron create input=2
         proxy install after=heron when=steps.heron.outputs.zone=='far'
         redis install after=proxy",
    );
    world.rest();
    tell("condition-undecided", &mut world);
}

#[test]
fn a_paused_plan_awaits_what_runs_and_starts_nothing_until_it_is_asked() {
    let mut world = World::new(
        "heron create
         curlew create
         proxy install after=curlew
         redis install after=heron
         nginx install after=curlew",
    );
    world.policy.on_failure = OnFailure::Pause;
    world.script("heron", 1, Script::fails(5, FailureClass::Invalid, "zone 'mars' is unknown"));
    world.rest();
    world.run_for(3600);
    world.ask_again();
    world.rest();
    tell("paused", &mut world);
}

#[test]
fn a_retry_to_come_does_not_come_while_the_plan_is_paused() {
    let mut world = World::new("heron create\ncurlew create");
    world.policy.on_failure = OnFailure::Pause;
    world.script("heron", 1, Script::fails(3, FailureClass::Transient, "connection reset by peer"));
    world.script("curlew", 1, Script::fails(4, FailureClass::Invalid, "zone 'mars' is unknown"));
    world.rest();
    world.edit("the zone of curlew is corrected", "heron create\ncurlew create input=2");
    world.rest();
    tell("paused-retry", &mut world);
}

#[test]
fn a_failed_step_is_passed_over_when_a_person_says_so_and_stays_so() {
    let text = "heron create
         proxy install after=heron
         redis install after=proxy
         nginx install after=heron";
    let mut world = World::new(text);
    world.policy.on_failure = OnFailure::Pause;
    world.script("proxy", 1, Script::fails(5, FailureClass::Invalid, "port 80 is taken"));
    world.rest();
    world.say("the annotation names proxy");
    world.policy.waived.insert("proxy".to_owned());
    world.pass();
    world.rest();
    world.say("the annotation is taken away");
    world.policy.waived.clear();
    world.pass();
    world.ask_again();
    world.rest();
    world.edit("heron runs again: proxy stays waived", &text.replace("heron create", "heron create input=2"));
    world.rest();
    let corrected =
        text.replace("heron create", "heron create input=2").replace("proxy install", "proxy install input=2");
    world.edit("the port of proxy is corrected", &corrected);
    world.rest();
    tell("waived", &mut world);
}

#[test]
fn a_step_that_is_waived_before_its_turn_keeps_its_place_in_the_order() {
    let mut world = World::new("heron create\nproxy install after=heron\nredis install after=proxy");
    world.policy.waived.insert("proxy".to_owned());
    world.rest();
    tell("waived-early", &mut world);
}

#[test]
fn what_deletes_or_waits_leaves_nothing_to_undo() {
    let mut world = World::new(
        "heron apply
         ready wait after=heron
         curlew delete after=ready",
    );
    world.rest();
    world.delete();
    world.rest();
    tell("delete-and-wait", &mut world);
}
