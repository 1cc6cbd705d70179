//! Keys of this cluster that nothing accounts for.

use crate::test_env::{EnvOptions, TestEnv};
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
