//! Two processes that both work: correctness does not come from the lease.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, owned};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::{ApiCall, ApiFault, OperatorProcess};
use http::Method;
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Of rotations in which two processes may meet.
const MOST_ROUNDS: usize = 10;

#[tokio::test]
async fn two_without_an_election_cost_at_most_a_key_more_for_each_issuance() {
    let env = TestEnv::new().await;
    let _second = env.another(&[]).await;
    let names: Vec<String> = (0..6).map(|number| format!("contested-{number}")).collect();
    for name in &names {
        env.create(name, json!({"rotation": {"overlap": "1s"}})).await;
    }
    let mut ids = Vec::new();
    for name in &names {
        ids.push(env.ready(name).await.status.unwrap().key_id.unwrap());
    }
    // Until they have met: one was later than the other with a write, or both have asked for a key.
    let (mut issued, mut have_met) = (names.len(), false);
    for round in 1..=MOST_ROUNDS {
        for name in &names {
            env.annotate(name, "boltz.bio/rotate", &round.to_string()).await;
        }
        for (name, id) in names.iter().zip(&mut ids) {
            let object = env.until(name, "rotated", |object| {
                object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(id))
            });
            *id = object.await.status.unwrap().key_id.unwrap();
        }
        issued += names.len();
        have_met = env.writes().iter().any(|write| write.ends_with("409"))
            || env.emulator.count(Operation::Create) > issued;
        if have_met {
            break;
        }
    }
    assert!(have_met, "the two never met");
    // Lost ones are revoked, and old ones after their overlap.
    env.until_active(names.len()).await;
    for name in &names {
        let record = env.record(name).await;
        let value = env.value(name).await;
        assert_eq!(env.emulator.authenticate(&value), Some(record.key_id), "{name}");
    }
    let posts = env.emulator.count(Operation::Create);
    assert!(posts <= 2 * issued, "{posts} POSTs for {issued} keys");
}

/// Half of the settle time that all operators have here.
const WINDOW: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_process_that_slept_past_its_window_does_no_harm_when_it_wakes() {
    let env = TestEnv::new().await;
    // Its POST takes effect; the answer is there only when it wakes.
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
    env.create("slept", json!({})).await;
    post_is_held(&env).await;
    let window_is_over = tokio::time::Instant::now() + WINDOW;
    env.operator.process().signal("STOP");
    let second = env.another(&[]).await;
    env.ready("slept").await;
    tokio::time::sleep_until(window_is_over).await;
    env.emulator.release();
    env.operator.process().signal("CONT");
    env.until_active(1).await;
    env.passes(2).await;
    env.judge("slept").await;
    assert_eq!(env.emulator.count(Operation::Create), 2, "{}", second.log());
}

async fn post_is_held(env: &TestEnv) {
    env.wait("the POST is held", || if env.emulator.held() > 0 { Ok(()) } else { Err("not yet".to_owned()) })
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
        "20m",
        "--request-timeout",
        "5m",
    ]);
    let mut env = TestEnv::with_options(EnvOptions {
        own_control_plane: true,
        proxy: true,
        arguments,
        ..EnvOptions::default()
    })
    .await;
    let proxy = env.proxy.as_ref().unwrap();
    let spec = || json!({"rotation": {"overlap": "1s"}});
    env.create("rests", spec()).await;
    env.ready("rests").await;

    let within_the_window = |since: Instant| {
        assert!(since.elapsed() < Duration::from_secs(600), "it did not wake within its window");
    };
    // Before the POST: the answer to its C1 lies ready for it when it wakes.
    let begun = Instant::now();
    proxy.arm(ApiCall::new(Method::PATCH, "boltzapikeys/*"), ApiFault::HoldAnswer);
    env.create("before", spec()).await;
    tokio::time::timeout(PATIENCE, proxy.wait_fired()).await.unwrap();
    env.operator.process().signal("STOP");
    proxy.release();
    let mut second = env.another(&[]).await;
    let first_key = env.ready("before").await.status.unwrap().key_id.unwrap();
    wakes(&env.operator).await;
    within_the_window(begun);

    // After the POST: its answer lies ready.
    let begun = Instant::now();
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
    env.create("after", spec()).await;
    post_is_held(&env).await;
    second.process().signal("STOP");
    env.ready("after").await;
    env.emulator.release();
    wakes(&second).await;
    within_the_window(begun);
    assert_eq!(env.id_of("before").await, first_key);

    // What either has lost is a stray, and is revoked when it is settled. A process that thinks so soon is as good as a
    // long wait.
    env.operator.kill();
    second.kill();
    env.operator = env.another(&["--leader-elect", "false", "--settle-time", "2s"]).await;
    let names = ["rests", "before", "after"];
    env.judge_all(&names, &[]).await;
    env.passes(2).await;
    env.judge_all(&names, &[]).await;
    let posts = env.emulator.count(Operation::Create);
    assert!(posts <= 5, "{posts} POSTs for 3 keys");
    let mut delivered = BTreeSet::new();
    for name in names {
        delivered.insert(env.id_of(name).await);
    }
    assert!(env.revoked_ids().is_disjoint(&delivered));
}
