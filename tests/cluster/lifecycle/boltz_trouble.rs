//! Boltz refuses, limits, breaks off, or does not know the admin key.

use crate::test_env::{TestEnv, condition, is, run_rows};
use boltz_emulator::{AdminKey, Effect, Fault, Operation, Outcome};
use serde_json::json;

/// Outages side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 7;

#[tokio::test]
async fn a_refused_admin_key_stops_all_calls_and_a_good_one_is_taken_within_seconds() {
    let env = TestEnv::new().await;
    env.create("first", json!({})).await;
    env.ready("first").await;
    env.until_metric(r#"boltz_admin_key_state{state="valid"} 1"#).await;
    env.emulator.set_admin_keys(vec![AdminKey::new("a new one")]);
    env.create("second", json!({})).await;
    let object = env.not_ready("second", "BoltzUnauthorized").await;
    assert!(is(&object, "Stalled"));
    env.until_metric(r#"boltz_admin_key_state{state="refused"} 1"#).await;
    assert!(is(&env.get("first").await, "Ready"), "a working key stays Ready");
    // Two more probes: so much later there has still been no other call.
    let others = || env.emulator.requests().iter().filter(|call| call.operation != Operation::AuthMe).count();
    let before = others();
    let probes = env.emulator.count(Operation::AuthMe);
    env.wait("two more probes", || {
        let now = env.emulator.count(Operation::AuthMe);
        if now >= probes + 2 { Ok(()) } else { Err(format!("{} probes", now - probes)) }
    })
    .await;
    assert_eq!(others(), before, "no other call: {:?}", env.emulator.requests());
    env.set_admin_key("a new one\n");
    // By itself, without a restart.
    env.ready("second").await;
    env.until_metric(r#"boltz_admin_key_state{state="valid"} 1"#).await;
}

#[tokio::test]
async fn a_workspace_key_in_place_of_an_admin_key_is_named() {
    let env = TestEnv::new().await;
    env.emulator
        .set_admin_keys(vec![AdminKey { key_type: "workspace".to_owned(), ..AdminKey::new("sk_bc_ws") }]);
    env.set_admin_key("sk_bc_ws");
    env.create("waiting", json!({})).await;
    let object = env
        .until("waiting", "it names the kind of key", |object| {
            condition(object, "Ready").is_some_and(|condition| condition.message.contains("type workspace"))
        })
        .await;
    assert_eq!(condition(&object, "Ready").unwrap().reason, "BoltzUnauthorized");
    assert!(env.operator.get("/healthz").await.is_ok(), "the process stays up");
}

#[tokio::test]
async fn a_test_mode_admin_key_is_enough_for_test_keys_only() {
    let env = TestEnv::new().await;
    env.emulator
        .set_admin_keys(vec![AdminKey { mode: "test".to_owned(), ..AdminKey::new("sk_bc_admin_test") }]);
    env.set_admin_key("sk_bc_admin_test");
    env.until_metric(r#"boltz_admin_key_state{state="test_mode"} 1"#).await;
    env.wait("the key is known", || {
        if env.operator.log().contains("test-mode") { Ok(()) } else { Err("not logged".to_owned()) }
    })
    .await;
    env.create("live", json!({})).await;
    let object = env.not_ready("live", "BoltzUnauthorized").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("test-mode"));
    env.create("tested", json!({"mode": "test"})).await;
    env.ready("tested").await;
}

#[tokio::test]
async fn a_server_without_auth_me_will_do() {
    let env = TestEnv::new().await;
    env.emulator.change(|settings| settings.has_auth_me = false);
    env.create("plain", json!({})).await;
    env.judge("plain").await;
    env.until_metric(r#"boltz_admin_key_state{state="valid"} 1"#).await;
}

#[tokio::test]
async fn refused_parameters_are_tried_again_when_the_spec_changes_and_once_after_a_restart() {
    let mut env = TestEnv::new().await;
    let outcome = Outcome::Status {
        status: 422,
        headers: Default::default(),
        body: Some(r#"{"code":"VALIDATION_ERROR","message":"no such workspace"}"#.to_owned()),
    };
    env.emulator.inject(Fault { times: 2, ..Fault::once(Operation::Create, Effect::None, outcome) });
    env.create("refused", json!({"workspaceID": "ws_wrong"})).await;
    let object = env.not_ready("refused", "BoltzRejected").await;
    assert!(is(&object, "Stalled"));
    assert!(condition(&object, "Ready").unwrap().message.contains("no such workspace"));
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 1, "the next try comes after a minute");
    env.operator.terminate();
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    env.wait("a restart forgets the wait", || match env.emulator.count(Operation::Create) {
        2 => Ok(()),
        count => Err(format!("{count} tries")),
    })
    .await;
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 2, "it tries once");
    env.patch("refused", json!({"spec": {"workspaceID": "ws_right"}})).await;
    env.judge("refused").await;
}

#[tokio::test]
async fn outages_are_ridden_out_and_a_working_key_stays_ready() {
    let outcomes = [
        ("503", Outcome::status(503)),
        ("500", Outcome::status(500)),
        ("cut", Outcome::Cut),
        ("no answer", Outcome::Hang),
        (
            "429",
            Outcome::Status {
                status: 429,
                headers: [("retry-after".to_owned(), "1".to_owned())].into(),
                body: None,
            },
        ),
        ("half an answer", Outcome::Truncated(20)),
        ("a foreign answer", Outcome::Foreign("<html>".to_owned())),
    ];
    let rows = outcomes.into_iter().map(|(name, outcome)| (name, outage(outcome)));
    run_rows(SIDE_BY_SIDE, rows).await;
}

async fn outage(outcome: Outcome) {
    let env = TestEnv::new().await;
    env.create("steady", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.ready("steady").await.status.unwrap().key_id.unwrap();
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, outcome.clone()));
    env.annotate("steady", "boltz.bio/rotate", "1").await;
    env.wait("the POST meets the outage", || {
        let posts = env.emulator.count(Operation::Create);
        if posts >= 2 { Ok(()) } else { Err(format!("{posts} POSTs")) }
    })
    .await;
    env.until("steady", "rotated in spite of it", |object| {
        assert!(is(object, "Ready"), "Ready is unaffected by {outcome:?}");
        object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&old))
    })
    .await;
    // The key of the lost answer is a stray; it and the old one are revoked.
    env.until_active(1).await;
    env.judge("steady").await;
    assert_eq!(env.emulator.count(Operation::Create), 3, "one POST per attempt: {outcome:?}");
}

#[tokio::test]
async fn a_post_that_takes_effect_after_its_timeout_leaves_no_key() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::After(3000), Outcome::Hang));
    env.create("late", json!({})).await;
    env.ready("late").await;
    env.wait("the late key was made", || {
        if env.emulator.keys().len() == 2 { Ok(()) } else { Err(format!("{}", env.emulator.keys().len())) }
    })
    .await;
    env.until_active(1).await;
    env.judge("late").await;
}

#[tokio::test]
async fn nothing_without_our_marker_is_touched() {
    let env = TestEnv::new().await;
    let object = env.create("mine", json!({})).await;
    let mark =
        boltz_operator::protocol::marker::ObjectMark::from_uid(object.metadata.uid.as_deref().unwrap());
    let theirs = [
        "a person's key".to_owned(),
        format!("looks alike bo.other-cluster.{mark}.0123456789ab"),
        format!("looks alike bo.{}.{mark}.0123456789ab edited", env.namespace),
    ];
    let ids: Vec<String> = theirs.iter().map(|name| env.emulator.create_foreign(name).unwrap()).collect();
    // An orphan: our cluster's marker, but no attempt that anybody wrote. It is reported, not revoked.
    let orphan =
        env.emulator.create_foreign(&format!("orphan bo.{}.{mark}.0123456789ab", env.namespace)).unwrap();
    env.ready("mine").await;
    env.until_orphaned(1).await;
    env.delete("mine").await;
    env.gone("mine").await;
    let mut left: Vec<String> = env.active_ids().into_iter().collect();
    let mut expected = ids;
    expected.push(orphan);
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
}
