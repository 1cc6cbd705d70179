//! Boltz refuses, limits, breaks off, or does not know the admin key.

use crate::test_env::{Bed, condition, is};
use boltz_emulator::{AdminKey, Effect, Fault, Operation, Outcome};
use serde_json::json;

#[tokio::test]
async fn a_refused_admin_key_stops_all_calls_and_a_good_one_is_taken_within_seconds() {
    let bed = Bed::new().await;
    bed.create("first", json!({})).await;
    bed.ready("first").await;
    bed.until_metric("boltz_admin_key_valid 1").await;
    bed.emulator.set_admin_keys(vec![AdminKey {
        plaintext: "a new one".to_owned(),
        key_type: "admin".to_owned(),
        mode: "live".to_owned(),
    }]);
    bed.create("second", json!({})).await;
    let object = bed.not_ready("second", "BoltzUnauthorized").await;
    assert!(is(&object, "Stalled"));
    bed.until_metric("boltz_admin_key_valid 0").await;
    assert!(is(&bed.get("first").await, "Ready"), "a working key stays Ready");
    assert!(bed.emulator.count(Operation::Create) <= 2, "no hammering");
    bed.set_admin_key("a new one\n");
    let before = std::time::Instant::now();
    bed.ready("second").await;
    assert!(before.elapsed() < std::time::Duration::from_secs(15));
    bed.until_metric("boltz_admin_key_valid 1").await;
}

#[tokio::test]
async fn a_workspace_key_in_place_of_an_admin_key_is_named() {
    let bed = Bed::new().await;
    bed.emulator.set_admin_keys(vec![AdminKey {
        plaintext: "sk_bc_ws".to_owned(),
        key_type: "workspace".to_owned(),
        mode: "live".to_owned(),
    }]);
    bed.set_admin_key("sk_bc_ws");
    bed.create("waiting", json!({})).await;
    let object = bed
        .until("waiting", "it names the kind of key", |object| {
            condition(object, "Ready").is_some_and(|condition| condition.message.contains("type workspace"))
        })
        .await;
    assert_eq!(condition(&object, "Ready").unwrap().reason, "BoltzUnauthorized");
    assert!(bed.operator.get("/healthz").await.is_ok(), "the process stays up");
}

#[tokio::test]
async fn a_test_mode_admin_key_is_enough_for_test_keys_only() {
    let bed = Bed::new().await;
    bed.emulator.set_admin_keys(vec![AdminKey {
        plaintext: "sk_bc_admin_test".to_owned(),
        key_type: "admin".to_owned(),
        mode: "test".to_owned(),
    }]);
    bed.set_admin_key("sk_bc_admin_test");
    bed.until_metric("boltz_admin_key_valid 0").await;
    bed.wait("the key is known", || {
        if bed.operator.log().contains("test-mode") { Ok(()) } else { Err("not logged".to_owned()) }
    })
    .await;
    bed.create("live", json!({})).await;
    let object = bed.not_ready("live", "BoltzUnauthorized").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("test-mode"));
    bed.create("tested", json!({"mode": "test"})).await;
    bed.ready("tested").await;
}

#[tokio::test]
async fn a_server_without_auth_me_will_do() {
    let bed = Bed::new().await;
    bed.emulator.change(|settings| settings.has_auth_me = false);
    bed.create("plain", json!({})).await;
    bed.judge("plain").await;
    bed.until_metric("boltz_admin_key_valid 1").await;
}

#[tokio::test]
async fn refused_parameters_are_tried_again_when_the_spec_changes_and_once_after_a_restart() {
    let mut bed = Bed::new().await;
    let outcome = Outcome::Status {
        status: 422,
        headers: Default::default(),
        body: Some(r#"{"code":"VALIDATION_ERROR","message":"no such workspace"}"#.to_owned()),
    };
    bed.emulator.inject(Fault { times: 2, ..Fault::once(Operation::Create, Effect::None, outcome) });
    bed.create("refused", json!({"workspaceID": "ws_wrong"})).await;
    let object = bed.not_ready("refused", "BoltzRejected").await;
    assert!(is(&object, "Stalled"));
    assert!(condition(&object, "Ready").unwrap().message.contains("no such workspace"));
    bed.passes(2).await;
    assert_eq!(bed.emulator.count(Operation::Create), 1, "the next try comes after a minute");
    bed.operator.terminate();
    bed.operator.restart().unwrap();
    bed.operator.wait_ready().await.unwrap();
    bed.passes(2).await;
    assert_eq!(bed.emulator.count(Operation::Create), 2, "a restart forgets the wait, and tries once");
    bed.patch("refused", json!({"spec": {"workspaceID": "ws_right"}})).await;
    bed.judge("refused").await;
}

#[tokio::test]
async fn outages_are_ridden_out_and_a_working_key_stays_ready() {
    for outcome in [
        Outcome::status(503),
        Outcome::status(500),
        Outcome::Cut,
        Outcome::Hang,
        Outcome::Status {
            status: 429,
            headers: [("retry-after".to_owned(), "1".to_owned())].into(),
            body: None,
        },
        Outcome::Truncated(20),
        Outcome::Foreign("<html>".to_owned()),
    ] {
        let bed = Bed::new().await;
        bed.create("steady", json!({"rotation": {"overlap": "1s"}})).await;
        let old = bed.ready("steady").await.status.unwrap().key_id.unwrap();
        bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, outcome.clone()));
        bed.annotate("steady", "boltz.bio/rotate", "1").await;
        bed.until("steady", &format!("rotated in spite of {outcome:?}"), |object| {
            assert!(is(object, "Ready"), "Ready is unaffected by {outcome:?}");
            object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&old))
        })
        .await;
        // The key of the lost answer is a stray; it and the old one are revoked.
        bed.until_active(1).await;
        bed.judge("steady").await;
        assert_eq!(bed.emulator.count(Operation::Create), 3, "one POST per attempt: {outcome:?}");
    }
}

#[tokio::test]
async fn a_post_that_takes_effect_after_its_timeout_leaves_no_key() {
    let bed = Bed::new().await;
    bed.emulator.inject(Fault::once(Operation::Create, Effect::After(1500), Outcome::Hang));
    bed.create("late", json!({})).await;
    bed.ready("late").await;
    bed.wait("the late key was made", || {
        if bed.emulator.keys().len() == 2 { Ok(()) } else { Err(format!("{}", bed.emulator.keys().len())) }
    })
    .await;
    bed.until_active(1).await;
    bed.judge("late").await;
}

#[tokio::test]
async fn nothing_without_our_marker_is_touched() {
    let bed = Bed::new().await;
    let object = bed.create("mine", json!({})).await;
    let mark =
        boltz_operator::protocol::marker::ObjectMark::from_uid(object.metadata.uid.as_deref().unwrap());
    let theirs = [
        "a person's key".to_owned(),
        format!("looks alike bo.other-cluster.{mark}.0123456789ab"),
        format!("looks alike bo.{}.{mark}.0123456789ab edited", bed.namespace),
    ];
    let ids: Vec<String> = theirs.iter().map(|name| bed.emulator.create_foreign(name).unwrap()).collect();
    // An orphan: our cluster's marker, but no attempt that anybody wrote. It is reported, not revoked.
    let orphan =
        bed.emulator.create_foreign(&format!("orphan bo.{}.{mark}.0123456789ab", bed.namespace)).unwrap();
    bed.ready("mine").await;
    bed.until_orphaned(1).await;
    bed.delete("mine").await;
    bed.gone("mine").await;
    let mut left: Vec<String> = bed.active_ids().into_iter().collect();
    let mut expected = ids;
    expected.push(orphan);
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
}
