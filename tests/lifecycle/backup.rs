//! Backups that come back.

use crate::bed::{Bed, Make, condition};
use boltz_emulator::Operation;
use boltz_harness::{Component, ControlPlane};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use std::{path::Path, process::Command};

/// What a restore by Velero makes: annotations and labels stay; status, UIDs and ownerReferences do not.
#[tokio::test]
async fn an_object_that_is_restored_with_a_new_uid_mints_nothing_over_its_old_secret() {
    let mut bed = Bed::new().await;
    bed.create("restored", json!({})).await;
    bed.ready("restored").await;
    let (mut object, mut secret) = (bed.get("restored").await, bed.secret("restored").await);
    bed.operator.kill();
    bed.patch("restored", json!({"metadata": {"finalizers": null}})).await;
    bed.delete("restored").await;
    let _ = bed.secrets().delete("restored", &DeleteParams::default()).await;
    bed.gone("restored").await;
    for metadata in [&mut object.metadata, &mut secret.metadata] {
        metadata.uid = None;
        metadata.resource_version = None;
        metadata.owner_references = None;
    }
    object.status = None;
    boltz_harness::eventually(crate::bed::PATIENCE, "the Secret is back", async || {
        bed.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    bed.objects().create(&PostParams::default(), &object).await.unwrap();
    bed.operator.restart().unwrap();
    let object = bed.not_ready("restored", "SecretConflict").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("restored"));
    bed.passes(4).await;
    assert_eq!(bed.emulator.count(Operation::Create), 1, "no key that could not be stored");
    assert_eq!(bed.emulator.active_keys().len(), 1, "the one in the Secret works");
    assert!(bed.emulator.authenticate(&bed.value("restored").await).is_some());
    assert!(
        bed.operator.get("/metrics").await.unwrap().contains("boltz_orphaned_keys 0"),
        "the Secret accounts for it"
    );
    // The way out.
    bed.secrets().delete("restored", &DeleteParams::default()).await.unwrap();
    bed.ready("restored").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2);
}

/// Copies etcd's data while nothing runs, or puts a copy back.
async fn with_etcd_stopped(control_plane: &ControlPlane, copy: impl FnOnce(&Path)) {
    control_plane.kill(Component::ApiServer);
    control_plane.kill(Component::Etcd);
    copy(&control_plane.folder().join("etcd"));
    control_plane.launch(Component::Etcd).unwrap();
    control_plane.restart(Component::ApiServer).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_from_before_a_rotation_ends_with_a_working_key_and_says_what_it_cannot_account_for() {
    let mut bed = Bed::make(Make { own_control_plane: true, ..Make::default() }).await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("etcd");
    bed.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    let first = bed.ready("key").await.status.unwrap().key_id.unwrap();
    with_etcd_stopped(bed.control_plane, |data| copy(data, &backup)).await;
    bed.annotate("key", "boltz.bio/rotate", "1").await;
    let second = bed
        .until("key", "rotated, and the first key revoked", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.rotations == Some(1) && status.previous_keys.is_empty())
        })
        .await
        .status
        .unwrap()
        .key_id
        .unwrap();
    assert!(bed.emulator.key(&first).unwrap().revoked_at.is_some());
    bed.operator.kill();
    with_etcd_stopped(bed.control_plane, |data| copy(&backup, data)).await;
    bed.operator.restart().unwrap();
    // The Secret holds the first key again, which Boltz calls inactive.
    bed.until("key", "a third key", |object| {
        object.status.as_ref().is_some_and(|status| {
            status.last_rotation_reason.as_deref() == Some("KeyInactive")
                && status.key_id.as_ref() != Some(&second)
        })
    })
    .await;
    let value = bed.value("key").await;
    assert_eq!(bed.emulator.authenticate(&value), bed.ready("key").await.status.unwrap().key_id);
    // The second key is of an attempt that nothing knows any more: reported, and left alone.
    boltz_harness::eventually(crate::bed::PATIENCE, "it is reported", async || {
        let metrics = bed.operator.get("/metrics").await.map_err(|error| error.to_string())?;
        if metrics.contains("boltz_orphaned_keys 1") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await
    .unwrap();
    assert!(bed.emulator.key(&second).unwrap().revoked_at.is_none());
    assert_eq!(bed.emulator.count(Operation::Create), 3);
}
