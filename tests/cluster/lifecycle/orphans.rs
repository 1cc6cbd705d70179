//! Keys of this cluster that nothing accounts for.

use crate::test_env::{Bed, Make};
use serde_json::json;

#[tokio::test]
async fn orphans_are_revoked_on_request_and_nothing_else_is() {
    let arguments = ["--orphan-policy", "revoke", "--orphan-grace", "1s"];
    let bed = Bed::make(Make {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        own_control_plane: true,
        all_namespaces: true,
        ..Make::default()
    })
    .await;
    bed.create("kept", json!({"deletionPolicy": "Retain"})).await;
    let kept = bed.ready("kept").await.status.unwrap().key_id.unwrap();
    bed.delete("kept").await;
    bed.gone("kept").await;
    bed.create("mine", json!({})).await;
    let mine = bed.ready("mine").await.status.unwrap().key_id.unwrap();
    let marker = "550e8400e29b41d4.0123456789ab";
    let make = |name: String| bed.emulator.create_foreign(&name).unwrap();
    let person = make("a person's key".to_owned());
    let other = make(format!("other bo.other-cluster.{marker}"));
    let orphan = make(format!("orphan bo.{}.{marker}", bed.namespace));
    bed.wait("the orphan is revoked", || {
        if bed.active_ids().contains(&orphan) { Err("it lives".to_owned()) } else { Ok(()) }
    })
    .await;
    bed.passes(4).await;
    assert_eq!(bed.active_ids(), [kept, mine, person, other].into());
}
