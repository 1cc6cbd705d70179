//! A control plane that was started from a copy of another one's etcd, with the same Boltz.

use crate::test_env::{EnvOptions, TestEnv};
use boltz_emulator::Operation;
use boltz_harness::{ControlPlane, ControlPlaneOptions};
use kube::api::DeleteParams;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

const NAMES: [&str; 4] = ["rests", "rotates", "loses", "ends"];

async fn source() -> TestEnv {
    let env = TestEnv::with_options(EnvOptions {
        own_control_plane: true,
        all_namespaces: true,
        ..EnvOptions::default()
    })
    .await;
    for name in NAMES {
        env.create(name, json!({"rotation": {"overlap": "1s"}})).await;
    }
    for name in NAMES {
        env.ready(name).await;
    }
    env
}

async fn clone_of(source: &TestEnv, changes: &[&str]) -> TestEnv {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("etcd");
    source.control_plane.back_up(&data).unwrap();
    let options = ControlPlaneOptions { etcd_data: Some(data), ..Default::default() };
    let clone = ControlPlane::start(options).await.unwrap();
    source.beside(Arc::new(clone), changes).await
}

fn texts(ids: &BTreeSet<String>) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

async fn ids_of(env: &TestEnv, names: &[&str]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for name in names {
        ids.insert(env.id_of(name).await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_another_cluster_name_makes_keys_of_its_own_and_touches_none_of_its_source() {
    let source = source().await;
    let keys = ids_of(&source, &NAMES).await;
    // It even may revoke orphans: the source's keys are none of its.
    let changes = ["--cluster-name", "clone", "--orphan-policy", "revoke", "--orphan-grace", "1s"];
    let clone = clone_of(&source, &changes).await;
    for name in NAMES {
        clone
            .until(name, "a key of its own", |object| {
                let id = object.status.as_ref().and_then(|status| status.key_id.as_ref());
                id.is_some_and(|id| !keys.contains(id))
            })
            .await;
    }
    let own = clone.id_of("rotates").await;
    clone.annotate("rotates", "boltz.bio/rotate", "1").await;
    clone.secrets().delete("loses", &DeleteParams::default()).await.unwrap();
    clone.delete("ends").await;
    clone.gone("ends").await;
    clone
        .wait("the overlap is over", || {
            if clone.active_ids().contains(&own) { Err("the old key lives".to_owned()) } else { Ok(()) }
        })
        .await;
    clone.judge_all(&["rests", "rotates", "loses"], &texts(&keys)).await;
    clone.passes(4).await;
    clone.judge_all(&["rests", "rotates", "loses"], &texts(&keys)).await;
    let of_clone = ids_of(&clone, &["rests", "rotates", "loses"]).await;
    source.judge_all(&NAMES, &texts(&of_clone)).await;
    assert!(source.revoked_ids().is_disjoint(&keys), "a key of the source was revoked");
    // Four of the source, four of the clone, a rotation and a new Secret.
    let unanswered = source.unanswered() + clone.unanswered();
    assert_eq!(source.emulator.count(Operation::Create), 10 + unanswered);
}

/// Documented in `docs/protocol.md` as what remains possible: such a clone acts on what its Secrets say, and these say
/// the same as the source's.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_the_same_cluster_name_revokes_only_what_its_own_secrets_account_for() {
    let source = source().await;
    let keys = ids_of(&source, &NAMES).await;
    let clone = clone_of(&source, &[]).await;
    // At rest they do not disturb each other.
    clone.judge_all(&NAMES, &[]).await;
    clone.passes(4).await;
    assert_eq!(source.emulator.count(Operation::Create), 4 + source.unanswered());
    assert!(source.revoked_ids().is_disjoint(&keys));

    // The source gets keys that the clone knows nothing of: orphans there, and left alone.
    let replaced = source.id_of("rests").await;
    source.annotate("rests", "boltz.bio/rotate", "1").await;
    source
        .wait("the overlap is over", || {
            if source.active_ids().contains(&replaced) { Err("the old key lives".to_owned()) } else { Ok(()) }
        })
        .await;
    let new = source.id_of("rests").await;
    clone
        .until("rests", "a key of its own, in place of the one that the source has revoked", |object| {
            let status = object.status.as_ref();
            status.and_then(|status| status.last_rotation_reason.as_deref()) == Some("KeyInactive")
        })
        .await;

    // The clone revokes what it replaces and what its objects take along: the source's Secrets hold these too.
    let accounted: BTreeSet<String> = ids_of(&clone, &["rotates", "ends"]).await;
    clone.annotate("rotates", "boltz.bio/rotate", "1").await;
    clone.delete("ends").await;
    clone.gone("ends").await;
    for name in ["rotates", "ends"] {
        source
            .until(name, "a new key, in place of the one that the clone has revoked", |object| {
                let status = object.status.as_ref();
                status.and_then(|status| status.last_rotation_reason.as_deref()) == Some("KeyInactive")
            })
            .await;
    }
    let of_source = ids_of(&source, &NAMES).await;
    let mut expected = accounted;
    expected.insert(replaced);
    // What each has alone; `loses` still is the same key in both.
    let of_clone = ids_of(&clone, &["rests", "rotates", "loses"]).await;
    clone.judge_all(&["rests", "rotates", "loses"], &texts(&of_source)).await;
    clone.passes(4).await;
    source.judge_all(&NAMES, &texts(&of_clone)).await;
    let revoked = &source.revoked_ids() & &(&(&keys | &of_source) | &of_clone);
    assert_eq!(revoked, expected, "the clone leaves alone what it does not know");
    assert!(source.active_ids().contains(&new));
    clone.until_orphaned(3).await;
}
