//! The defences of the shell, a story each: what is decided rightly has to be carried out under its guards.
//! `tests/negative_controls/` takes them out one by one, and the story has to turn red.

use crate::{
    api_server::Resource,
    fault_injection::{Fault, lock},
    process::Process,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::{
    Effect, Fault as Rejection, Lie, Operation, Outcome as Answer, Settings, StandingFault,
};
use boltz_operator::api::annotations::ROTATE_ANNOTATION;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::time::{Instant, sleep};

const C2: &str = "Boltz POST /compute/v1/admin/api-keys";
const C3: &str = "POST /api/v1/namespaces/team/secrets";
const C4: &str = "PATCH /apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key/status";
const R0: &str = "PATCH /api/v1/namespaces/team/secrets/key dry";
const R3: &str = "PATCH /api/v1/namespaces/team/secrets/key";
const DELETE: &str = "DELETE /api/v1/namespaces/team/secrets/key";

/// A world whose object has its key, and the process that made it so.
async fn ready(overlap: &str) -> (Arc<World>, Process) {
    let world = World::new(Settings::default());
    let process = Process::start(&world, 1);
    world.create(&json!({"rotation": {"overlap": overlap}}));
    world.good("ready").await;
    (world, process)
}

/// A world in which a process waits for an object.
fn empty() -> (Arc<World>, Process) {
    let world = World::new(Settings::default());
    let process = Process::start(&world, 1);
    (world, process)
}

fn posts(world: &World) -> usize {
    world.emulator.count(Operation::Create)
}

fn current(world: &World) -> String {
    world.record().unwrap().key_id
}

/// The object goes, whatever its finalizers.
fn remove(world: &Arc<World>) {
    world.edit(json!({"metadata": {"finalizers": null}}));
    world.delete();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_on_the_object_before_its_post() {
    let (world, _process) = empty();
    world.just_before(1, C2, |_| Some(Fault::CrashAfter));
    world.create(&json!({}));
    world.good("the key of a process that crashed").await;
    assert_eq!(posts(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_revocation_had_no_response_is_not_missed() {
    let (world, _process) = ready("10m").await;
    world.faults(|met| met.what.ends_with("/revoke").then_some(Fault::Lost));
    world.delete();
    sleep(10 * MINUTE).await;
    assert!(world.object().is_none() && world.emulator.active_keys().is_empty(), "{}", world.transcript());
}

/// A pass asks whose the admin key is. One odd answer must not stop the account until the next pass.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_admin_key_that_a_pass_met_is_checked_again() {
    let (world, _process) = ready("10m").await;
    let odd = Answer::Foreign(json!({"key_type": "workspace"}).to_string());
    world.emulator.inject(Rejection::once(Operation::AuthMe, Effect::None, odd));
    let asked = world.emulator.count(Operation::AuthMe);
    world.until("a pass asks", |world| world.emulator.count(Operation::AuthMe) > asked).await;
    sleep(MINUTE).await;
    world.create_in("team", "other", &json!({}));
    sleep(MINUTE).await;
    assert!(world.record_in("team", "other").is_some(), "{}", world.transcript());
}

/// A gateway does not know `auth/me` when the operator starts. Later the key itself can be asked, and the list is not believed.
#[tokio::test(start_paused = true)]
async fn an_auth_me_that_was_missing_is_asked_again() {
    let world = World::new(Settings { has_auth_me: false, ..Settings::default() });
    let _process = Process::start(&world, 1);
    world.create(&json!({}));
    world.good("ready").await;
    world.emulator.change(|settings| settings.has_auth_me = true);
    sleep(10 * MINUTE).await;
    world.emulator.stand("lie", StandingFault::lie(Operation::List, Lie::Inactive));
    sleep(150 * MINUTE).await;
    assert_eq!(posts(&world), 1, "{}", world.transcript());
}

/// A gateway answers 401 to creates only, for hours: the admin key is valid. Revocations go on, and each object that waits says
/// so once.
#[tokio::test(start_paused = true)]
async fn a_401_to_one_call_concerns_that_call() {
    let (world, _process) = ready("10m").await;
    let first = current(&world);
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(MINUTE).await;
    let waiting: Vec<String> = (0..30).map(|number| format!("waiting-{number}")).collect();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    world.faults(move |met| {
        let is_status = met.what.starts_with("PATCH") && met.what.ends_with("/status");
        counted.fetch_add(usize::from(is_status && met.what.contains("/waiting-")), Ordering::Relaxed);
        (met.what == C2).then_some(Fault::Status(401))
    });
    waiting.iter().for_each(|name| world.create_in("team", name, &json!({})));
    sleep(11 * MINUTE).await;
    assert!(world.emulator.key(&first).unwrap().revoked_at.is_some(), "{}", world.transcript());
    sleep(110 * MINUTE).await;
    let (writes, tries) = (writes.load(Ordering::Relaxed), world.struck());
    // One call a minute tries, for all of them. It costs its object two writes; before, each says once why it waits.
    assert!(tries <= 2 * 60 + 40, "{tries} requests for a key");
    let most = 2 * tries + 2 * waiting.len();
    assert!(writes <= most, "{writes} writes of the status, of at most {most}\n{}", world.transcript());
    world.faults(|_| None);
    sleep(15 * MINUTE).await;
    for name in &waiting {
        assert!(world.record_in("team", name).is_some(), "{name}\n{}", world.transcript());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_doubtful_answer_of_boltz_another_attempt_follows() {
    for status in [429, 503] {
        let (world, _process) = empty();
        world.just_before(1, C2, move |_| Some(Fault::RefusedThoughDone(status)));
        world.create(&json!({}));
        world.good("refused though done").await;
        assert_eq!(posts(&world), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_refused_and_done_all_the_same_is_waited_for() {
    for fault in [Fault::RefusedThoughDone(429), Fault::RefusedThenDone(30 * SECOND)] {
        let (world, _process) = empty();
        world.just_before(1, C3, move |_| Some(fault));
        world.create(&json!({}));
        world.good("refused, and done").await;
        assert_eq!(posts(&world), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_decided_again_on_a_live_read() {
    let (world, process) = ready("10m").await;
    let backup = world.secret("key").unwrap();
    let first = current(&world);
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(5 * MINUTE).await;
    assert_ne!(current(&world), first, "rotated");
    process.freeze_watches(Instant::now() + 60 * MINUTE);
    world.restore_secret(&backup);
    // By the caches, the overlap of the first key ends now. What is read asks for another rotation, and its overlap.
    sleep(6 * MINUTE).await;
    assert_eq!(world.judge().err(), None);
    assert!(world.emulator.key(&first).unwrap().revoked_at.is_none(), "the Secret held it again");
    world.good("rotated again").await;
}

#[tokio::test(start_paused = true)]
async fn an_object_is_written_only_as_it_was_read() {
    let (world, _one) = ready("1h").await;
    let two = Arc::new(Process::start(&world, 2));
    world.good("two").await;
    // The second is held up before its attempt, and does not see that the first has lost the answer of one meanwhile.
    let sleeper = Arc::clone(&two);
    let (mut is_held_up, mut is_lost) = (false, false);
    world.faults(move |met| match (met.process, met.what.as_str()) {
        (2, R0) if !is_held_up => {
            is_held_up = true;
            sleeper.freeze_watches(Instant::now() + 2 * MINUTE);
            Some(Fault::Silent)
        }
        (1, C2) if !is_lost => {
            is_lost = true;
            Some(Fault::Lost)
        }
        (1, C2) => Some(Fault::Unreachable),
        _ => None,
    });
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(MINUTE).await;
    world.faults(|_| None);
    world.good("the lost key").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_an_object_that_was_made_anew() {
    let (world, _process) = empty();
    world.just_before(1, C4, |world| {
        remove(world);
        world.create(&json!({}));
        None
    });
    world.create(&json!({}));
    world.good("made anew").await;
    assert_eq!(posts(&world), 2);
    let first = &world.emulator.keys()[0].id;
    let second = world.object().unwrap()["metadata"]["uid"].clone();
    let server = lock(&world.server);
    let mut states = server.history.iter().map(|change| &change.after);
    assert!(
        !states
            .any(|object| object["metadata"]["uid"] == second && object["status"]["keyID"] == json!(first)),
        "the status of the one that is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_written_only_as_it_was_read() {
    let (world, _one) = ready("1h").await;
    let first = current(&world);
    // The update comes when another process has stored a key of its own.
    world.just_before(1, R3, |_| Some(Fault::CrashLate(MINUTE)));
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(SECOND / 2).await;
    let _two = Process::start(&world, 2);
    sleep(30 * SECOND).await;
    let second = current(&world);
    assert_ne!(second, first, "the other process has rotated");
    sleep(MINUTE).await;
    assert_eq!(current(&world), second, "and the late update has no effect");
    world.good("rotated").await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_goes_just_before_its_update_is_made_anew() {
    let (world, _process) = ready("1h").await;
    let first = current(&world);
    world.just_before(1, R3, |world| {
        world.delete_secret();
        None
    });
    world.annotate(ROTATE_ANNOTATION, "1");
    world.good("rotated").await;
    assert_eq!(posts(&world), 2, "with the key in hand");
    assert_eq!(world.record().unwrap().previous[0].key_id, first, "whose predecessor has its overlap");
}

#[tokio::test(start_paused = true)]
async fn no_key_is_issued_for_a_name_that_is_taken() {
    let (world, _process) = empty();
    world.create_foreign_secret();
    let theirs = world.secret("key");
    world.create(&json!({}));
    sleep(30 * MINUTE).await;
    assert_eq!(world.secret("key"), theirs);
    assert_eq!(posts(&world), 0, "the dry run tells");
    world.delete_secret();
    world.good("the name is free").await;
}

#[tokio::test(start_paused = true)]
async fn only_the_secret_that_was_replaced_is_deleted() {
    let (world, _process) = ready("1h").await;
    world.just_before(1, DELETE, |world| {
        world.delete_secret();
        world.create_foreign_secret();
        None
    });
    world.edit(json!({"spec": {"secret": {"name": "moved"}}}));
    sleep(10 * MINUTE).await;
    assert!(world.secret("moved").is_some());
    assert!(world.secret("key").is_some(), "somebody else's");
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_object_is_gone_is_revoked_by_its_writer() {
    let (world, _process) = empty();
    world.just_before(1, C3, |world| {
        remove(world);
        None
    });
    world.create(&json!({}));
    world.good("gone").await;
    assert_eq!(posts(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_revocation_is_answered_with_404_is_revoked_all_the_same() {
    let (world, _process) = ready("10m").await;
    let first = current(&world);
    let mut is_denied = false;
    world.faults(move |met| {
        let is_first = met.what.starts_with("Boltz") && met.what.contains(&first) && !is_denied;
        is_denied |= is_first;
        is_first.then_some(Fault::Status(404))
    });
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(60 * MINUTE).await;
    assert_eq!(world.emulator.count(Operation::Revoke), 1, "the second, which arrives");
    world.good("rotated").await;
}

#[tokio::test(start_paused = true)]
async fn a_previous_key_is_revoked_without_the_right_to_read_the_secret() {
    let (world, _process) = ready("5m").await;
    let first = current(&world);
    let is_active = |world: &World| world.emulator.active_keys().iter().any(|key| key.id == first);
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(MINUTE).await;
    assert_ne!(current(&world), first);
    assert!(is_active(&world), "its overlap is not over");
    world.faults(|met| (met.what == "GET /api/v1/namespaces/team/secrets/key").then_some(Fault::Status(403)));
    sleep(10 * MINUTE).await;
    assert!(!is_active(&world), "{}", world.transcript());
}

/// A webhook that dry runs do not show: the Secret has the new key, and not its record. Workloads use that key.
#[tokio::test(start_paused = true)]
async fn a_key_whose_record_is_taken_away_lives_while_the_secret_holds_it() {
    let (world, _process) = ready("10m").await;
    {
        let mut server = lock(&world.server);
        (server.stripped, server.is_dry_run_exempt) = (Some(Resource::Secrets), true);
    }
    world.annotate(ROTATE_ANNOTATION, "1");
    let is_used = |world: &World| {
        let secret = world.secret("key").unwrap();
        let value: k8s_openapi::ByteString =
            serde_json::from_value(secret["data"]["BOLTZ_API_KEY"].clone()).unwrap();
        world.emulator.authenticate(std::str::from_utf8(&value.0).unwrap()).is_some()
    };
    for minute in 0..180 {
        assert!(is_used(&world), "minute {minute}\n{}", world.transcript());
        let active = world.emulator.active_keys().len();
        assert!(active <= 6, "{active} active keys after {minute} min");
        sleep(MINUTE).await;
    }
    assert!(posts(&world) <= 12, "{} keys in 3 h", posts(&world));
    lock(&world.server).stripped = None;
    sleep(62 * MINUTE).await;
    world.good("the webhook is gone").await;
}
