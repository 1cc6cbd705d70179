//! Two processes that both work: correctness does not come from the lease.

use crate::test_env::{Bed, Make, PATIENCE, owned};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::{ApiCall, ApiFault, OperatorProcess};
use http::Method;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn two_without_an_election_cost_at_most_a_key_more_for_each_issuance() {
    let bed = Bed::new().await;
    let _second = bed.another(&[]).await;
    let names: Vec<String> = (0..6).map(|number| format!("contested-{number}")).collect();
    for name in &names {
        bed.create(name, json!({"rotation": {"overlap": "1s"}})).await;
    }
    let mut ids = Vec::new();
    for name in &names {
        ids.push(bed.ready(name).await.status.unwrap().key_id.unwrap());
    }
    for name in &names {
        bed.annotate(name, "boltz.bio/rotate", "1").await;
    }
    for (name, old) in names.iter().zip(&ids) {
        bed.until(name, "rotated", |object| {
            object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(old))
        })
        .await;
    }
    // Lost ones are revoked, and old ones after their overlap.
    bed.until_active(names.len()).await;
    for name in &names {
        let record = bed.record(name).await;
        let value = bed.value(name).await;
        assert_eq!(bed.emulator.authenticate(&value), Some(record.key_id), "{name}");
    }
    let posts = bed.emulator.count(Operation::Create);
    assert!(posts <= 4 * names.len(), "{posts} POSTs for {} keys", 2 * names.len());
}

#[tokio::test]
async fn a_process_that_slept_past_its_window_does_no_harm_when_it_wakes() {
    let bed = Bed::new().await;
    // Its POST takes effect; the answer is there only when it wakes.
    bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
    bed.create("slept", json!({})).await;
    post_is_held(&bed).await;
    bed.operator.process().signal("STOP");
    let second = bed.another(&[]).await;
    bed.ready("slept").await;
    bed.emulator.release();
    bed.operator.process().signal("CONT");
    bed.until_active(1).await;
    bed.passes(2).await;
    bed.judge("slept").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2, "{}", second.log());
}

async fn post_is_held(bed: &Bed) {
    bed.wait("the POST is held", || if bed.emulator.held() > 0 { Ok(()) } else { Err("not yet".to_owned()) })
        .await;
}

/// It goes on after the other has taken over, and notices.
async fn wakes(process: &OperatorProcess) {
    let before = process.log().matches("lost the lease").count();
    process.process().signal("CONT");
    boltz_harness::eventually(PATIENCE, "it notices that it does not lead any more", async || {
        let now = process.log().matches("lost the lease").count();
        if now > before { Ok(()) } else { Err(process.process().last_lines(20)) }
    })
    .await
    .unwrap();
}

/// Twice in one test, because a lease has to run out each time: the first is stopped before its POST, and the second,
/// which has taken over, after one. The windows of both attempts are still open when their writers wake.
#[tokio::test]
async fn a_leader_that_sleeps_past_its_lease_does_no_harm_when_it_wakes_in_its_window() {
    let arguments = owned(&[
        "--leader-elect",
        "true",
        "--lease-namespace",
        "boltz-system",
        "--settle-time",
        "100s",
        "--request-timeout",
        "50s",
    ]);
    let mut bed =
        Bed::make(Make { own_control_plane: true, proxy: true, arguments, ..Make::default() }).await;
    let proxy = bed.proxy.as_ref().unwrap();
    let spec = || json!({"rotation": {"overlap": "1s"}});
    bed.create("rests", spec()).await;
    bed.ready("rests").await;

    // Before the POST: the answer to its C1 lies ready for it when it wakes.
    proxy.arm(ApiCall::new(Method::PATCH, "boltzapikeys/*"), ApiFault::HoldAnswer);
    bed.create("before", spec()).await;
    tokio::time::timeout(PATIENCE, proxy.fired()).await.unwrap();
    bed.operator.process().signal("STOP");
    proxy.release();
    let mut second = bed.another(&[]).await;
    let first_key = bed.ready("before").await.status.unwrap().key_id.unwrap();
    wakes(&bed.operator).await;

    // After the POST: its answer lies ready.
    bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
    bed.create("after", spec()).await;
    post_is_held(&bed).await;
    second.process().signal("STOP");
    bed.ready("after").await;
    bed.emulator.release();
    wakes(&second).await;
    assert_eq!(bed.id_of("before").await, first_key);

    // What either has lost is a stray, and is revoked when it is settled. A process that thinks so soon is as good as a
    // long wait.
    bed.operator.kill();
    second.kill();
    bed.operator = bed.another(&["--leader-elect", "false", "--settle-time", "2s"]).await;
    let names = ["rests", "before", "after"];
    bed.judge_all(&names, &[]).await;
    bed.passes(2).await;
    bed.judge_all(&names, &[]).await;
    let posts = bed.emulator.count(Operation::Create);
    assert!(posts <= 5, "{posts} POSTs for 3 keys");
    let mut delivered = BTreeSet::new();
    for name in names {
        delivered.insert(bed.id_of(name).await);
    }
    assert!(bed.revoked_ids().is_disjoint(&delivered));
}
