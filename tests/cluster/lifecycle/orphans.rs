//! Keys of this cluster that nothing accounts for.

use crate::test_env::{EnvOptions, TestEnv, owned, record_of};
use boltz_emulator::{Operation, StandingFault};
use boltz_harness::WatchFault;
use boltz_operator::protocol::record::Record;
use kube::api::PostParams;
use serde_json::json;

#[tokio::test]
async fn orphans_are_revoked_on_request_and_nothing_else_is() {
    let arguments = ["--orphan-policy", "revoke", "--orphan-grace", "1s"];
    let env = TestEnv::with_options(EnvOptions {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        own_control_plane: true,
        all_namespaces: true,
        ..EnvOptions::default()
    })
    .await;
    env.create("kept", json!({"deletionPolicy": "Retain"})).await;
    let kept = env.ready("kept").await.status.unwrap().key_id.unwrap();
    env.delete("kept").await;
    env.gone("kept").await;
    env.create("mine", json!({})).await;
    let mine = env.ready("mine").await.status.unwrap().key_id.unwrap();
    let marker = "550e8400e29b41d4.0123456789ab";
    let make = |name: String| env.emulator.create_foreign(&name).unwrap();
    let person = make("a person's key".to_owned());
    let other = make(format!("other bo.other-cluster.{marker}"));
    let orphan = make(format!("orphan bo.{}.{marker}", env.namespace));
    env.wait("the orphan is revoked", || {
        if env.active_ids().contains(&orphan) { Err("it lives".to_owned()) } else { Ok(()) }
    })
    .await;
    env.passes(4).await;
    assert_eq!(env.active_ids(), [kept, mine, person, other].into());
}

/// A Secret that accounts for the key is there, and the watch has not shown it yet.
#[tokio::test]
async fn an_orphan_is_looked_for_again_before_it_is_revoked() {
    let arguments = ["--orphan-policy", "revoke", "--orphan-grace", "1s"];
    let env = TestEnv::with_options(EnvOptions {
        arguments: owned(&arguments),
        own_control_plane: true,
        all_namespaces: true,
        proxy: true,
        ..EnvOptions::default()
    })
    .await;
    env.create("mine", json!({})).await;
    env.ready("mine").await;
    env.proxy.as_ref().unwrap().break_watches(WatchFault::Freeze, &["secrets"]);
    // No pass shows the key before its Secret is there.
    env.emulator.stand("no list", StandingFault::status(Operation::List, 503));
    let name = format!("restored bo.{}.550e8400e29b41d4.0123456789ab", env.namespace);
    let key = env.emulator.create_foreign(&name).unwrap();
    let template = env.secret("mine").await;
    let record = Record { key_id: key.clone(), ..record_of(&template) };
    let secret = serde_json::from_value(json!({
        "metadata": {
            "name": "restored",
            "labels": template.metadata.labels,
            "annotations": {"boltz.bio/record": record.to_annotation()},
        },
    }))
    .unwrap();
    env.secrets().create(&PostParams::default(), &secret).await.unwrap();
    env.emulator.lift("no list");
    env.until_orphaned(1).await;
    env.passes(4).await;
    assert!(env.active_ids().contains(&key), "a Secret accounts for it");
}
