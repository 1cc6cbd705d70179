//! Random users.

use crate::{
    SoakError,
    stage::{FOREIGN_SECRET, Slot, Stage, Tally},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// Values that users put into Secrets begin with this.
pub const EDITED: &str = "edited-by-a-user-";
const ADDRESSES: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
const OVERLAPS: [&str; 5] = ["0s", "1s", "3s", "8s", "1h"];

/// Users come all the time, each to a random object.
pub async fn act(stage: &Stage, mut random: StdRng, until: Instant) -> Result<(), SoakError> {
    // All at once, as after an installation.
    for slot in &stage.slots {
        create(stage, slot, &mut random).await?;
    }
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        let slot = &stage.slots[random.random_range(0..stage.slots.len())];
        match act_once(stage, slot, &mut random).await {
            Ok(()) => Tally::add(&stage.tally.actions, 1),
            // Somebody was faster: the object or the Secret has changed or gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(SoakError::Stage(format!("a user cannot act: {error}"))),
        }
    }
    Ok(())
}

async fn create(stage: &Stage, slot: &Slot, random: &mut StdRng) -> Result<(), SoakError> {
    let manifest = json!({
        "apiVersion": "boltz.bio/v1alpha1",
        "kind": "BoltzApiKey",
        "metadata": {"name": slot.name},
        "spec": random_spec(random),
    });
    let stage_error = |error: &dyn std::fmt::Display| SoakError::Stage(format!("create an object: {error}"));
    let object: DynamicObject = serde_json::from_value(manifest).map_err(|error| stage_error(&error))?;
    asks(stage);
    match stage.objects(&slot.namespace).create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        // The one before is still going.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(stage_error(&error)),
    }
}

fn random_spec(random: &mut StdRng) -> Json {
    let mut spec = json!({
        "rotation": {
            "overlap": pick(random, &OVERLAPS),
            "overlapPolicy": pick(random, &["Strict", "Strict", "UntilIdle"]),
        },
    });
    match random.random_range(0..4) {
        0 => {}
        days => spec["expiresInDays"] = json!(days),
    }
    if random.random_bool(0.3) {
        spec["rotation"]["renewBeforePercentage"] = json!(random.random_range(20..=40));
    }
    spec
}

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

fn asks(stage: &Stage) {
    Tally::add(&stage.tally.asked, 1);
}

async fn act_once(stage: &Stage, slot: &Slot, random: &mut StdRng) -> Result<(), kube::Error> {
    let objects = stage.objects(&slot.namespace);
    // Drawn before anything is looked at, so that the choices of a seed do not depend on what is seen.
    let action = random.random_range(0..100);
    let choice = random.random::<u32>();
    let Some(object) = objects.get_opt(&slot.name).await? else {
        return match create(stage, slot, random).await {
            Ok(()) => Ok(()),
            Err(error) => Err(kube::Error::Service(error.to_string().into())),
        };
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let patch = |change: Json| {
        let objects = objects.clone();
        async move { objects.patch(&slot.name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop) }
    };
    let annotate = |name: &str, value: Json| patch(json!({"metadata": {"annotations": {name: value}}}));
    let of = |count: u32| choice % count;
    match action {
        0..=15 => {
            asks(stage);
            annotate("boltz.bio/rotate", json!(choice.to_string())).await
        }
        16..=23 => {
            asks(stage);
            annotate("boltz.bio/rotate-now", json!(choice.to_string())).await
        }
        24..=31 => {
            asks(stage);
            let addresses: Vec<&str> = ADDRESSES.into_iter().take(of(4) as usize).collect();
            patch(json!({"spec": {"allowedIPs": addresses}})).await
        }
        32..=40 => patch(json!({"spec": {"rotation": {"overlap": OVERLAPS[of(5) as usize]}}})).await,
        41..=45 => {
            asks(stage);
            let days = [None, Some(1), Some(2), Some(3)][of(4) as usize];
            patch(json!({"spec": {"expiresInDays": days}})).await
        }
        46..=52 => rename_secret(stage, &object, slot, choice, patch).await,
        53..=62 => {
            let is_suspended = object.data["spec"]["suspend"] == true;
            patch(json!({"spec": {"suspend": !is_suspended}})).await
        }
        63..=70 => objects.delete(&slot.name, &DeleteParams::default()).await.map(drop),
        71..=78 => {
            asks(stage);
            let secret = secret_of(stage, &object, slot).await?;
            let secrets = stage.secrets(&slot.namespace);
            secrets.delete(&secret.name_any(), &DeleteParams::default()).await.map(drop)
        }
        79..=84 => {
            asks(stage);
            let value = format!("{EDITED}{choice}");
            patch_secret(stage, &object, slot, json!({"stringData": {"BOLTZ_API_KEY": value}})).await
        }
        85..=95 => {
            asks(stage);
            stage.forged().insert(object.uid().unwrap_or_default());
            forge(stage, &object, slot, action, choice).await
        }
        // What concerns nobody must cost nothing.
        _ => annotate("example.org/note", json!(choice.to_string())).await,
    }
}

/// To one of two names of one's own, back, or to a name that is taken.
async fn rename_secret<F: Future<Output = Result<(), kube::Error>>>(
    stage: &Stage,
    object: &DynamicObject,
    slot: &Slot,
    choice: u32,
    patch: impl Fn(Json) -> F,
) -> Result<(), kube::Error> {
    // A user who goes back before the move is over finds a Secret that is about to go: not what is judged here.
    let is_settled = object.data["status"]["observedGeneration"] == json!(object.metadata.generation)
        && object.data["status"]["secretName"] == json!(wanted_secret(object));
    if !is_settled && wanted_secret(object) != FOREIGN_SECRET {
        return Ok(());
    }
    asks(stage);
    let name = match choice % 8 {
        0 => Some(FOREIGN_SECRET.to_owned()),
        1..=3 => Some(format!("{}-a", slot.name)),
        4..=5 => Some(format!("{}-b", slot.name)),
        _ => None,
    };
    patch(json!({"spec": {"secret": {"name": name}}})).await
}

/// Annotations, labels and status that say what is not so.
async fn forge(
    stage: &Stage,
    object: &DynamicObject,
    slot: &Slot,
    action: u32,
    choice: u32,
) -> Result<(), kube::Error> {
    let objects = stage.objects(&slot.namespace);
    let merge = PatchParams::default();
    // Somebody's key: a person's, or another object's.
    let keys = stage.emulator.keys();
    let victim = &keys[choice as usize % keys.len()].id;
    match action {
        85..=86 => {
            let ledgers = [json!("no ledger"), json!(null), json!("[]")];
            let ledger = &ledgers[choice as usize % ledgers.len()];
            let change = json!({"metadata": {"annotations": {"boltz.bio/attempts": ledger}}});
            objects.patch(&slot.name, &merge, &Patch::Merge(change)).await.map(drop)
        }
        87..=88 => {
            let change = json!({"status": {"keyID": victim}});
            objects.patch_status(&slot.name, &merge, &Patch::Merge(change)).await.map(drop)
        }
        89 => {
            let previous = json!([{"keyID": victim, "revokeAfter": "2020-01-01T00:00:00Z"}]);
            let change = json!({"status": {"previousKeys": previous}});
            objects.patch_status(&slot.name, &merge, &Patch::Merge(change)).await.map(drop)
        }
        90 => {
            let change = json!({"metadata": {"labels": {"boltz.bio/owner-uid": "nobody"}}});
            patch_secret(stage, object, slot, change).await
        }
        _ => {
            let secret = secret_of(stage, object, slot).await?;
            let Some(mut record) = record_of(&secret) else { return Ok(()) };
            let forged = match action {
                91 => json!("no record"),
                92 => json!(null),
                93 => {
                    record["keyID"] = json!(victim);
                    json!(record.to_string())
                }
                _ => {
                    record["previous"] = json!([{"keyID": victim, "revokeAfter": "2020-01-01T00:00:00Z"}]);
                    json!(record.to_string())
                }
            };
            let change = json!({"metadata": {"annotations": {"boltz.bio/record": forged}}});
            patch_secret(stage, object, slot, change).await
        }
    }
}

/// The name of the Secret that the object's spec asks for.
pub fn wanted_secret(object: &DynamicObject) -> String {
    match object.data["spec"]["secret"]["name"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => object.name_any(),
    }
}

/// The record that a Secret carries.
pub fn record_of(secret: &Secret) -> Option<Json> {
    serde_json::from_str(secret.annotations().get("boltz.bio/record")?).ok()
}

/// The Secret that status names. Nobody edits what is somebody else's.
async fn secret_of(stage: &Stage, object: &DynamicObject, slot: &Slot) -> Result<Secret, kube::Error> {
    let name = object.data["status"]["secretName"].as_str().unwrap_or(&slot.name);
    let name = if name == FOREIGN_SECRET { &slot.name } else { name };
    stage.secrets(&slot.namespace).get(name).await
}

async fn patch_secret(
    stage: &Stage,
    object: &DynamicObject,
    slot: &Slot,
    change: Json,
) -> Result<(), kube::Error> {
    let name = secret_of(stage, object, slot).await?.name_any();
    let secrets = stage.secrets(&slot.namespace);
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
}

/// In the end nobody is suspended, and nobody wants a name that is taken.
pub async fn clean_up(stage: &Stage) -> Result<(), SoakError> {
    let failed = |error: kube::Error| SoakError::Stage(format!("clean_up up: {error}"));
    let objects = stage.all_objects().list(&ListParams::default()).await.map_err(failed)?;
    for object in objects {
        let mut spec = json!({"suspend": false});
        if wanted_secret(&object) == FOREIGN_SECRET {
            spec["secret"] = json!({"name": null});
        }
        let api = stage.objects(&object.namespace().unwrap_or_default());
        let change = Patch::Merge(json!({"spec": spec}));
        match api.patch(&object.name_any(), &PatchParams::default(), &change).await {
            Ok(_) => {}
            // It was on its way out.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
