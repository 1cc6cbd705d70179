//! Backups that come back.

use crate::test_env::{Bed, Make, condition, owned};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::{ApiCall, ApiFault};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

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
    boltz_harness::eventually(crate::test_env::PATIENCE, "the Secret is back", async || {
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

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_from_before_a_rotation_ends_with_a_working_key_and_says_what_it_cannot_account_for() {
    let mut bed = Bed::make(Make { own_control_plane: true, ..Make::default() }).await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("etcd");
    bed.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    let first = bed.ready("key").await.status.unwrap().key_id.unwrap();
    bed.control_plane.back_up(&backup).unwrap();
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
    bed.control_plane.restore(&backup).await.unwrap();
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
    bed.until_orphaned(1).await;
    assert!(bed.emulator.key(&second).unwrap().revoked_at.is_none());
    assert_eq!(bed.emulator.count(Operation::Create), 3);
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
    let arguments = owned(&["--settle-time", "40s", "--request-timeout", "15s"]);
    let mut bed =
        Bed::make(Make { own_control_plane: true, proxy: true, arguments, ..Make::default() }).await;
    let names: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
    let spec = || json!({"rotation": {"overlap": "1h"}});
    for (name, rotates, ..) in STEPS {
        if rotates {
            bed.create(name, spec()).await;
        }
    }
    let mut first = Vec::new();
    for (name, rotates, ..) in STEPS {
        if rotates {
            first.push(bed.id_of(name).await);
        }
    }
    for (name, rotates, hold, _) in STEPS {
        let held = bed.emulator.held();
        match hold {
            Hold::Rest => {}
            Hold::Answer(method, resource, dry_run) => {
                let call = ApiCall { dry_run, ..ApiCall::new(method.parse().unwrap(), resource) };
                bed.proxy.as_ref().unwrap().arm(call, ApiFault::HoldAnswer);
            }
            Hold::Post => {
                bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
            }
        }
        if rotates {
            bed.annotate(name, "boltz.bio/rotate", "1").await;
        } else {
            bed.create(name, spec()).await;
        }
        match hold {
            Hold::Rest => at_rest(&bed, name, rotates).await,
            Hold::Answer(..) => {
                tokio::time::timeout(crate::test_env::PATIENCE, bed.proxy.as_ref().unwrap().fired())
                    .await
                    .unwrap();
            }
            Hold::Post => {
                bed.wait("the POST is held", || {
                    if bed.emulator.held() > held { Ok(()) } else { Err("not yet".to_owned()) }
                })
                .await;
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("etcd");
    bed.control_plane.back_up(&backup).unwrap();
    bed.proxy.as_ref().unwrap().release();
    bed.emulator.release();
    let mut delivered = Vec::new();
    for (name, rotates, ..) in STEPS {
        at_rest(&bed, name, rotates).await;
        delivered.push(bed.record(name).await.key_id);
    }
    bed.judge_all(&names, &[]).await;
    assert_eq!(bed.emulator.count(Operation::Create), 15, "no step was made twice");

    bed.operator.kill();
    bed.control_plane.restore(&backup).await.unwrap();
    // As good as a long wait: no call is on its way any more.
    bed.operator = bed.another(&["--settle-time", "2s"]).await;
    let with = |fate: Fate| -> Vec<&str> {
        let fates = STEPS.iter().zip(&delivered).filter(|((.., known), _)| *known == fate);
        fates.map(|(_, id)| id.as_str()).collect()
    };
    let (strays, orphans) = (with(Fate::Stray), with(Fate::Orphan));
    bed.judge_all(&names, &orphans).await;
    bed.until_orphaned(orphans.len()).await;
    bed.passes(3).await;
    bed.judge_all(&names, &orphans).await;
    assert_eq!(bed.revoked_ids(), strays.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(bed.emulator.count(Operation::Create), 15 + strays.len() + orphans.len());
    for id in with(Fate::Held).into_iter().chain(first.iter().map(String::as_str)) {
        assert!(bed.active_ids().contains(id), "a Secret holds it");
    }
}

async fn at_rest(bed: &Bed, name: &str, rotated: bool) {
    bed.until(name, "at rest", |object| {
        let rotations = object.status.as_ref().and_then(|status| status.rotations).unwrap_or_default();
        crate::test_env::is(object, "Ready") && rotations == i64::from(rotated)
    })
    .await;
}
