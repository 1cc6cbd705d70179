//! What a user can write into its own object and Secret: it costs next to nothing, and no key is forgotten.

use crate::test_env::TestEnv;
use boltz_emulator::Operation;
use boltz_harness::OperatorProcess;
use boltz_operator::protocol::{
    ledger::{Ledger, LedgerEntry},
    marker::AttemptId,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const LEDGER: &str = "boltz.bio/attempts";

/// 4,000 entries: nearly all that fits into an annotation.
fn forged_ledger() -> String {
    let entry =
        |bits| LedgerEntry::new(AttemptId::from_random(bits), "2020-01-01T00:00:00Z".parse().unwrap(), None);
    Ledger::new((0..4000).map(entry).collect()).to_annotation()
}

/// 2,200 previous keys, as in a record or a status.
fn forged_keys() -> Json {
    let key = |index: u32| json!({"keyID": format!("forged-{index}"), "revokeAfter": "2020-01-01T00:00:00Z"});
    (0..2200).map(key).collect::<Vec<Json>>().into()
}

/// The processor time of the process so far.
fn processor_time(operator: &OperatorProcess) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", operator.process().pid())).unwrap();
    // The name, which comes before in parentheses, may have spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|index| fields[*index].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

async fn forge(env: &TestEnv, name: &str) {
    let mut record = serde_json::to_value(env.record(name).await).unwrap();
    record["previous"] = forged_keys();
    let annotations = json!({"boltz.bio/record": record.to_string()});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    env.secrets().patch(name, &PatchParams::default(), &patch).await.unwrap();
    env.patch(name, json!({"metadata": {"annotations": {LEDGER: forged_ledger()}}})).await;
    let status = json!({"status": {"previousKeys": forged_keys()}});
    let objects: Api<_> = env.objects();
    objects.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn thousands_of_forged_entries_cost_next_to_nothing_and_hide_no_key() {
    let mut env = TestEnv::new().await;
    for name in ["deleted", "kept"] {
        env.create(name, json!({})).await;
        env.ready(name).await;
    }
    env.operator.kill();
    for name in ["deleted", "kept"] {
        forge(&env, name).await;
    }
    env.delete("deleted").await;
    env.operator = env.another(&[]).await;
    // What the start costs does not count.
    env.passes(2).await;
    let (started, before) = (Instant::now(), processor_time(&env.operator));
    env.gone("deleted").await;
    let is_good = |ledger: &Ledger| ledger.forgery.is_none() && ledger.entries.len() <= 2;
    env.until("kept", "the ledger is written anew", |object| {
        let annotations = object.metadata.annotations.as_ref();
        is_good(&Ledger::parse(annotations.and_then(|all| all.get(LEDGER)).map(String::as_str)))
    })
    .await;
    env.passes(10).await;
    let (spent, took) = (processor_time(&env.operator) - before, started.elapsed());
    let share = spent.as_secs_f64() / took.as_secs_f64() * 100.0;
    eprintln!("{spent:?} of processor time in {took:?}: {share:.1} % of a core");
    assert!(share < 3.0, "{share:.1} % of a core");
    env.judge("kept").await;
    assert_eq!(env.emulator.count(Operation::Create), 2, "nothing is issued for it");
    assert_eq!(env.record("kept").await.previous, []);
    env.annotate("kept", "boltz.bio/rotate-now", "1").await;
    env.wait("a new key", || match env.emulator.count(Operation::Create) {
        3 => Ok(()),
        posts => Err(format!("{posts} POSTs")),
    })
    .await;
    env.judge("kept").await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_holds_back_the_next_key_and_says_so() {
    let env = TestEnv::new().await;
    env.create("ruined", json!({})).await;
    let first = env.id_of("ruined").await;
    env.patch(
        "ruined",
        json!({"metadata": {"annotations": {LEDGER: "no ledger", "boltz.bio/rotate-now": "1"}}}),
    )
    .await;
    env.until("ruined", "it says so", |object| {
        let conditions =
            object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let message = "boltz.bio/attempts cannot be read";
        conditions.iter().any(|condition| condition.message.contains(message))
    })
    .await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.until("ruined", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&first))
    })
    .await;
    env.judge("ruined").await;
    assert_eq!(env.emulator.count(Operation::Create), 2 + env.unanswered());
}

/// It fits into the annotations of the object, and not into those of the Secret with the rest of the record.
#[tokio::test]
async fn a_request_that_is_too_long_for_the_record_costs_no_key() {
    let env = TestEnv::new().await;
    env.create("long", json!({})).await;
    env.ready("long").await;
    env.annotate("long", "boltz.bio/rotate-now", &"x".repeat(261_900)).await;
    env.until("long", "it says so", |object| {
        let conditions =
            object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| condition.reason == "SecretWriteFailed")
    })
    .await;
    env.annotate("long", "boltz.bio/rotate-now", "1").await;
    env.wait("a new key", || match env.emulator.count(Operation::Create) {
        2 => Ok(()),
        posts => Err(format!("{posts} POSTs")),
    })
    .await;
    env.judge("long").await;
}
