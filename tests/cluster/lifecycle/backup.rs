//! Backups that come back.

use crate::test_env::{EnvOptions, TestEnv, condition, owned};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::{ApiCall, ApiFault};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

/// What a restore by Velero makes: annotations and labels stay; status, UIDs and ownerReferences do not.
#[tokio::test]
async fn an_object_that_is_restored_with_a_new_uid_mints_nothing_over_its_old_secret() {
    let mut env = TestEnv::new().await;
    env.create("restored", json!({})).await;
    env.ready("restored").await;
    let (mut object, mut secret) = (env.get("restored").await, env.secret("restored").await);
    env.operator.kill();
    env.patch("restored", json!({"metadata": {"finalizers": null}})).await;
    env.delete("restored").await;
    let _ = env.secrets().delete("restored", &DeleteParams::default()).await;
    env.gone("restored").await;
    for metadata in [&mut object.metadata, &mut secret.metadata] {
        metadata.uid = None;
        metadata.resource_version = None;
        metadata.owner_references = None;
    }
    object.status = None;
    boltz_harness::eventually(crate::test_env::PATIENCE, "the Secret is back", async || {
        env.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    env.objects().create(&PostParams::default(), &object).await.unwrap();
    env.operator.restart().unwrap();
    let object = env.not_ready("restored", "SecretConflict").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("restored"));
    env.passes(4).await;
    assert_eq!(env.emulator.count(Operation::Create), 1, "no key that could not be stored");
    assert_eq!(env.emulator.active_keys().len(), 1, "the one in the Secret works");
    assert!(env.emulator.authenticate(&env.value("restored").await).is_some());
    assert!(
        env.operator.get("/metrics").await.unwrap().contains("boltz_orphaned_keys 0"),
        "the Secret accounts for it"
    );
    // The way out.
    env.secrets().delete("restored", &DeleteParams::default()).await.unwrap();
    env.ready("restored").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_from_before_a_rotation_ends_with_a_working_key_and_says_what_it_cannot_account_for() {
    let mut env =
        TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("etcd");
    env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    let first = env.ready("key").await.status.unwrap().key_id.unwrap();
    env.control_plane.back_up(&backup).unwrap();
    env.annotate("key", "boltz.bio/rotate", "1").await;
    let second = env
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
    assert!(env.emulator.key(&first).unwrap().revoked_at.is_some());
    env.operator.kill();
    env.control_plane.restore(&backup).await.unwrap();
    env.operator.restart().unwrap();
    // The Secret holds the first key again, which Boltz calls inactive.
    env.until("key", "a third key", |object| {
        object.status.as_ref().is_some_and(|status| {
            status.last_rotation_reason.as_deref() == Some("KeyInactive")
                && status.key_id.as_ref() != Some(&second)
        })
    })
    .await;
    let value = env.value("key").await;
    assert_eq!(env.emulator.authenticate(&value), env.ready("key").await.status.unwrap().key_id);
    // The second key is of an attempt that nothing knows any more: reported, and left alone.
    env.until_orphaned(1).await;
    assert!(env.emulator.key(&second).unwrap().revoked_at.is_none());
    assert_eq!(env.emulator.count(Operation::Create), 3);
}

/// The caches have higher versions than what is restored, and the watches cannot tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_restored_under_a_running_operator_wins_over_its_caches() {
    let env = TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("etcd");
    env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    let first = env.ready("key").await.status.unwrap().key_id.unwrap();
    env.control_plane.back_up(&backup).unwrap();
    env.annotate("key", "boltz.bio/rotate", "1").await;
    env.until("key", "rotated, and the first key revoked", |object| {
        object
            .status
            .as_ref()
            .is_some_and(|status| status.rotations == Some(1) && status.previous_keys.is_empty())
    })
    .await;
    assert!(env.emulator.key(&first).unwrap().revoked_at.is_some());
    let second = env.id_of("key").await;
    env.control_plane.restore(&backup).await.unwrap();
    // The Secret holds the first key again, which Boltz calls inactive.
    env.until("key", "a third key", |object| {
        object.status.as_ref().is_some_and(|status| {
            status.last_rotation_reason.as_deref() == Some("KeyInactive")
                && status.key_id.as_ref() != Some(&second)
        })
    })
    .await;
    let value = env.value("key").await;
    assert_eq!(env.emulator.authenticate(&value), env.ready("key").await.status.unwrap().key_id);
    // And from here on all is as ever.
    env.annotate("key", "boltz.bio/rotate", "2").await;
    env.until("key", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(2))
    })
    .await;
    assert!(env.emulator.authenticate(&env.value("key").await).is_some());
    assert_eq!(env.emulator.count(Operation::Create), 4);
}

/// Where a step of the protocol stands when the backup is taken.
#[derive(Clone, Copy)]
enum Hold {
    /// Nothing is under way.
    Rest,
    /// A call to the API server has taken effect, and its answer is not there: method, resource, dry run.
    Answer(&'static str, &'static str, bool),
    /// The POST has taken effect, and its answer is not there.
    Post,
}

/// What becomes of the key that was delivered after the backup, once that is restored.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// The Secret of the backup holds it.
    Held,
    /// The ledger of the backup has its attempt, and nothing names it.
    Stray,
    /// Nothing of the backup knows of it.
    Orphan,
}

/// The steps of the first key and of a rotation: in `docs/protocol.md`, C0 to C4 and R0 to R4.
const STEPS: [(&str, bool, Hold, Fate); 10] = [
    ("after-c4", false, Hold::Rest, Fate::Held),
    ("c3-c4", false, Hold::Answer("POST", "secrets", false), Fate::Held),
    ("c2-c3", false, Hold::Post, Fate::Stray),
    ("c1-c2", false, Hold::Answer("PATCH", "boltzapikeys/*", false), Fate::Stray),
    ("before-c1", false, Hold::Answer("POST", "secrets", true), Fate::Orphan),
    ("after-r4", true, Hold::Rest, Fate::Held),
    ("r3-r4", true, Hold::Answer("PATCH", "secrets/*", false), Fate::Held),
    ("r2-r3", true, Hold::Post, Fate::Stray),
    ("r1-r2", true, Hold::Answer("PATCH", "boltzapikeys/*", false), Fate::Stray),
    ("before-r1", true, Hold::Answer("PATCH", "secrets/*", true), Fate::Orphan),
];

/// One backup shows every step, each by an object of its own. Afterwards all of them go on to the end, and only then is
/// the backup restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_from_between_any_two_steps_ends_with_working_keys_and_revokes_none_but_strays() {
    // A window that outlasts the making of the backup.
    let arguments = owned(&["--settle-time", "400s", "--request-timeout", "190s"]);
    let mut env = TestEnv::with_options(EnvOptions {
        own_control_plane: true,
        proxy: true,
        arguments,
        ..EnvOptions::default()
    })
    .await;
    let names: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
    let spec = || json!({"rotation": {"overlap": "1h"}});
    for (name, rotates, ..) in STEPS {
        if rotates {
            env.create(name, spec()).await;
        }
    }
    let mut first = Vec::new();
    for (name, rotates, ..) in STEPS {
        if rotates {
            first.push(env.id_of(name).await);
        }
    }
    for (name, rotates, hold, _) in STEPS {
        let held = env.emulator.held();
        match hold {
            Hold::Rest => {}
            Hold::Answer(method, resource, dry_run) => {
                let call = ApiCall { dry_run, ..ApiCall::new(method.parse().unwrap(), resource) };
                env.proxy.as_ref().unwrap().arm(call, ApiFault::HoldAnswer);
            }
            Hold::Post => {
                env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
            }
        }
        if rotates {
            env.annotate(name, "boltz.bio/rotate", "1").await;
        } else {
            env.create(name, spec()).await;
        }
        match hold {
            Hold::Rest => at_rest(&env, name, rotates).await,
            Hold::Answer(..) => {
                tokio::time::timeout(crate::test_env::PATIENCE, env.proxy.as_ref().unwrap().wait_fired())
                    .await
                    .unwrap();
            }
            Hold::Post => {
                env.wait("the POST is held", || {
                    if env.emulator.held() > held { Ok(()) } else { Err("not yet".to_owned()) }
                })
                .await;
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("etcd");
    env.control_plane.back_up(&backup).unwrap();
    env.proxy.as_ref().unwrap().release();
    env.emulator.release();
    let mut delivered = Vec::new();
    for (name, rotates, ..) in STEPS {
        at_rest(&env, name, rotates).await;
        delivered.push(env.record(name).await.key_id);
    }
    env.judge_all(&names, &[]).await;
    assert_eq!(env.emulator.count(Operation::Create), 15, "no step was made twice");

    env.operator.kill();
    env.control_plane.restore(&backup).await.unwrap();
    // As good as a long wait: no call is on its way any more.
    env.operator = env.another(&["--settle-time", "2s"]).await;
    let with = |fate: Fate| -> Vec<&str> {
        let fates = STEPS.iter().zip(&delivered).filter(|((.., known), _)| *known == fate);
        fates.map(|(_, id)| id.as_str()).collect()
    };
    let (strays, orphans) = (with(Fate::Stray), with(Fate::Orphan));
    env.judge_all(&names, &orphans).await;
    env.until_orphaned(orphans.len()).await;
    env.passes(3).await;
    env.judge_all(&names, &orphans).await;
    assert_eq!(env.revoked_ids(), strays.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(env.emulator.count(Operation::Create), 15 + strays.len() + orphans.len());
    for id in with(Fate::Held).into_iter().chain(first.iter().map(String::as_str)) {
        assert!(env.active_ids().contains(id), "a Secret holds it");
    }
}

async fn at_rest(env: &TestEnv, name: &str, rotated: bool) {
    env.until(name, "at rest", |object| {
        let rotations = object.status.as_ref().and_then(|status| status.rotations).unwrap_or_default();
        crate::test_env::is(object, "Ready") && rotations == i64::from(rotated)
    })
    .await;
}
