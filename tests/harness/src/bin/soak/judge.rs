//! What must hold: at any time, and when idle.

use crate::{
    SoakError,
    stage::{CLUSTER, CONCURRENCY, DAY, Stage},
    users::{EDITED, record_of, wanted_secret},
};
use boltz_emulator::{Key, Operation};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::Ordering,
    time::Duration,
};

/// Between two looks.
const SPACING: Duration = Duration::from_secs(1);
/// Before a second look at what seems to be broken.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// No key is renewed before this share of its lifetime is over: users ask for 40 % before the end at most, and a tenth of
/// that is jitter.
const EARLIEST_RENEWAL: f64 = 0.5;

/// What one look showed: Secrets first, then objects, then Boltz.
#[derive(Default)]
struct Look {
    secrets: Vec<Secret>,
    objects: Vec<DynamicObject>,
    keys: HashMap<String, Key>,
    by_plaintext: HashMap<String, String>,
    now: Timestamp,
}

/// A Secret of a living object holds a key that was revoked. Twice the same is no race.
#[derive(PartialEq, Eq, Hash)]
struct Suspicion {
    secret_uid: String,
    object_uid: String,
    value: String,
}

pub struct Judge {
    look: Look,
    suspicions: HashSet<Suspicion>,
    /// The ids of the keys that were seen in Secrets, and how many of them were renewals.
    delivered: HashSet<String>,
    renewals: usize,
    /// The current key of each object, as last seen.
    current: HashMap<String, String>,
    orphans: usize,
    /// Whether the end was judged: before it, keys that are on their way are neither lost nor leaked.
    saw_the_end: bool,
}

/// The object that a key's name speaks of, if the name carries our marker: the 16 hexadecimal digits.
fn mark_of(name: &str) -> Option<&str> {
    let parts: Vec<&str> = name.rsplit(' ').next()?.split('.').collect();
    match parts.as_slice() {
        ["bo", CLUSTER, object, attempt] if object.len() == 16 && attempt.len() == 12 => Some(object),
        _ => None,
    }
}

/// What stands in the marker for an object.
fn mark(uid: &str) -> String {
    uid.chars().filter(|character| *character != '-').take(16).collect()
}

fn place(namespace: Option<String>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

fn place_of(object: &DynamicObject) -> String {
    place(object.namespace(), &object.name_any())
}

fn value_of(secret: &Secret) -> Option<String> {
    let bytes = secret.data.as_ref()?.get("BOLTZ_API_KEY")?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// The ids that a record or status names, current first.
fn named(current: Option<&Json>, previous: Option<&Json>) -> Vec<String> {
    let previous = previous.and_then(Json::as_array).into_iter().flatten().map(|entry| &entry["keyID"]);
    current.into_iter().chain(previous).filter_map(Json::as_str).map(str::to_owned).collect()
}

impl Look {
    async fn take(stage: &Stage) -> Result<Self, SoakError> {
        let failed = |error: kube::Error| SoakError::Stage(format!("the judge cannot look: {error}"));
        let all = ListParams::default();
        let secrets = Api::<Secret>::all(stage.client.clone()).list(&all).await.map_err(failed)?.items;
        let objects = stage.all_objects().list(&all).await.map_err(failed)?.items;
        let keys = stage.emulator.keys();
        let by_plaintext = keys.iter().map(|key| (key.plaintext.clone(), key.id.clone())).collect();
        let keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        Ok(Self { secrets, objects, keys, by_plaintext, now: Timestamp::now() })
    }

    fn key_in(&self, secret: &Secret) -> Option<&Key> {
        self.keys.get(self.by_plaintext.get(&value_of(secret)?)?)
    }

    fn living(&self) -> impl Iterator<Item = &DynamicObject> {
        self.objects.iter().filter(|object| object.metadata.deletion_timestamp.is_none())
    }

    /// The Secret that the object's workloads mount: the one that spec names or, before a move, the other one.
    fn secrets_of(&self, object: &DynamicObject) -> Vec<&Secret> {
        let uid = object.uid().unwrap_or_default();
        let owned: Vec<&Secret> = self
            .secrets
            .iter()
            .filter(|secret| secret.owner_references().iter().any(|owner| owner.uid == uid))
            .collect();
        let wanted = wanted_secret(object);
        match owned.iter().find(|secret| secret.name_any() == wanted) {
            Some(secret) => vec![secret],
            None => owned,
        }
    }

    fn ours(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.keys.values().filter_map(|key| Some((mark_of(&key.name)?, key)))
    }
}

impl Judge {
    pub fn new() -> Self {
        Self {
            look: Look::default(),
            suspicions: HashSet::new(),
            delivered: HashSet::new(),
            renewals: 0,
            current: HashMap::new(),
            orphans: 0,
            saw_the_end: false,
        }
    }

    /// Looks again and again, until something is broken.
    pub async fn watch(&mut self, stage: &Stage) -> Result<(), SoakError> {
        loop {
            self.look(stage).await?;
            tokio::time::sleep(SPACING).await;
        }
    }

    /// One look, and a second one at what seems to be broken.
    pub async fn look(&mut self, stage: &Stage) -> Result<(), SoakError> {
        self.look_once(stage).await?;
        if !self.suspicions.is_empty() {
            tokio::time::sleep(SECOND_LOOK).await;
            self.look_once(stage).await?;
        }
        Ok(())
    }

    async fn look_once(&mut self, stage: &Stage) -> Result<(), SoakError> {
        self.look = Look::take(stage).await?;
        self.nothing_foreign_is_touched(stage)?;
        self.delivered_keys_live()?;
        self.take_in_deliveries()?;
        self.posts_are_bounded(stage)
    }

    fn nothing_foreign_is_touched(&self, stage: &Stage) -> Result<(), SoakError> {
        for id in &stage.foreign_keys {
            let key = self.look.keys.get(id);
            if key.is_none_or(|key| key.revoked_at.is_some()) {
                let name = key.map_or("", |key| &key.name);
                return Err(SoakError::broken(
                    format!("key {id}"),
                    format!("{name:?} is not ours, and was revoked"),
                ));
            }
        }
        for theirs in &stage.foreign_secrets {
            let place = place(theirs.namespace(), &theirs.name_any());
            let now = self.look.secrets.iter().find(|secret| {
                secret.name_any() == theirs.name_any() && secret.namespace() == theirs.namespace()
            });
            if now.is_none_or(|now| now.metadata.resource_version != theirs.metadata.resource_version) {
                return Err(SoakError::broken(place, "a Secret of somebody else was written or deleted"));
            }
        }
        Ok(())
    }

    /// No key that a Secret of a living object holds is revoked: only we revoke here.
    fn delivered_keys_live(&mut self) -> Result<(), SoakError> {
        let mut suspicions = HashSet::new();
        for object in self.look.living() {
            for secret in self.look.secrets_of(object) {
                let Some(value) = value_of(secret).filter(|value| !value.starts_with(EDITED)) else {
                    continue;
                };
                let suspicion = Suspicion {
                    secret_uid: secret.uid().unwrap_or_default(),
                    object_uid: object.uid().unwrap_or_default(),
                    value,
                };
                let what = match self.look.key_in(secret) {
                    Some(key) if key.revoked_at.is_none() => continue,
                    Some(key) => format!("holds the key {}, which was revoked", key.id),
                    None => "holds a value that neither Boltz nor a user made".to_owned(),
                };
                if self.suspicions.contains(&suspicion) {
                    let place = place_of(object);
                    return Err(SoakError::broken(place, format!("its Secret {} {what}", secret.name_any())));
                }
                suspicions.insert(suspicion);
            }
        }
        self.suspicions = suspicions;
        Ok(())
    }

    /// Counts what was delivered. A renewal must have been due.
    fn take_in_deliveries(&mut self) -> Result<(), SoakError> {
        for object in self.look.living() {
            for secret in self.look.secrets_of(object) {
                let (Some(key), Some(record)) = (self.look.key_in(secret), record_of(secret)) else {
                    continue;
                };
                if record["keyID"] != *key.id || !self.delivered.insert(key.id.clone()) {
                    continue;
                }
                let before = self.current.insert(object.uid().unwrap_or_default(), key.id.clone());
                if record["reason"] != "Renewal" {
                    continue;
                }
                self.renewals += 1;
                let Some(before) = before.and_then(|id| self.look.keys.get(&id)) else { continue };
                let Some(expires_at) = before.expires_at else { continue };
                let lifetime = expires_at.duration_since(before.created_at).as_secs_f64();
                let age = key.created_at.duration_since(before.created_at).as_secs_f64();
                if age < lifetime * EARLIEST_RENEWAL {
                    return Err(SoakError::broken(
                        place_of(object),
                        format!("{} was renewed after {age:.1} s of {lifetime:.1} s", before.id),
                    ));
                }
            }
        }
        Ok(())
    }

    /// A request of a user costs two keys at most: one before it is seen, and one after. A fault costs one, a restart
    /// what was in flight.
    fn posts_are_bounded(&self, stage: &Stage) -> Result<(), SoakError> {
        let tally = &stage.tally;
        let posts = stage.emulator.count(Operation::Create);
        let asked = tally.asked.load(Ordering::Relaxed);
        let most = 2 * asked + self.renewals + tally.faults() + CONCURRENCY * (tally.restarts() + 1);
        if posts > most {
            return Err(SoakError::broken(
                "all of them",
                format!(
                    "{posts} POSTs for {asked} requests of users, {} renewals, {} faults and {} restarts: at most {most}",
                    self.renewals,
                    tally.faults(),
                    tally.restarts()
                ),
            ));
        }
        Ok(())
    }

    /// Every active key with our marker that no Secret's record names, with the object of its marker.
    fn unaccounted(&self) -> Vec<(&str, &Key)> {
        let recorded: HashSet<String> = self
            .look
            .secrets
            .iter()
            .filter_map(record_of)
            .flat_map(|record| named(record.get("keyID"), record.get("previous")))
            .collect();
        let now = self.look.now;
        self.look.ours().filter(|(_, key)| key.authenticates(now) && !recorded.contains(&key.id)).collect()
    }

    fn is_excused(stage: &Stage, mark_of_key: &str) -> bool {
        stage.forged().iter().any(|uid| mark(uid) == mark_of_key)
    }

    /// What is not as it has to be when idle: the object, and what is wrong with it. Orphans of forged objects are
    /// excused unless they are to be revoked too.
    pub fn wrong_at_rest(&mut self, stage: &Stage, orphans_too: bool) -> Vec<(String, String)> {
        self.saw_the_end = true;
        let mut wrong = Vec::new();
        let mut active: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (mark, key) in self.look.ours().filter(|(_, key)| key.authenticates(self.look.now)) {
            active.entry(mark).or_default().push(&key.id);
        }
        for object in &self.look.objects {
            let active = active.remove(mark(&object.uid().unwrap_or_default()).as_str());
            if let Err(what) = self.is_good(object, active.unwrap_or_default()) {
                wrong.push((place_of(object), what));
            }
        }
        for (mark, key) in self.unaccounted() {
            if orphans_too || !Self::is_excused(stage, mark) {
                let place = key.name.split(' ').next().unwrap_or_default().to_owned();
                wrong.push((place, format!("the key {} is leaked: active, and in no record", key.id)));
            }
        }
        wrong
    }

    fn is_good(&self, object: &DynamicObject, active: Vec<&str>) -> Result<(), String> {
        let status = &object.data["status"];
        if object.metadata.deletion_timestamp.is_some() {
            return Err("it is still being deleted".to_owned());
        }
        let [secret] = self.look.secrets_of(object)[..] else {
            return Err("it has not one Secret".to_owned());
        };
        let record = record_of(secret).ok_or("its Secret has no record")?;
        let key = self
            .look
            .key_in(secret)
            .filter(|key| key.authenticates(self.look.now))
            .ok_or("the key is lost: the value in its Secret does not authenticate")?;
        let lifetime = key.expires_at.map(|expires_at| expires_at.duration_since(key.created_at));
        if lifetime.is_some_and(|lifetime| lifetime.unsigned_abs() < 10 * DAY) {
            return Err("its key is still one of the short days".to_owned());
        }
        if record["keyID"] != *key.id {
            return Err(format!("its record names {}, its Secret holds {}", record["keyID"], key.id));
        }
        if secret.name_any() != wanted_secret(object) || status["secretName"] != *secret.name_any() {
            return Err(format!(
                "it is in the Secret {}, not in {}",
                secret.name_any(),
                wanted_secret(object)
            ));
        }
        let reported: HashSet<String> =
            named(status.get("keyID"), status.get("previousKeys")).into_iter().collect();
        let recorded = named(record.get("keyID"), record.get("previous"));
        let unreported =
            active.iter().find(|id| recorded.iter().any(|name| name == *id) && !reported.contains(**id));
        if status["keyID"] != *key.id || unreported.is_some() {
            return Err(format!("status reports {reported:?}, active are {active:?}"));
        }
        if let Some(id) = reported.iter().find(|id| !active.contains(&id.as_str())) {
            return Err(format!("status reports the key {id}, which is not active"));
        }
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        match ready {
            Some(ready) if ready["status"] == "True" => Ok(()),
            Some(ready) => {
                Err(format!("Ready is {}: {} {}", ready["status"], ready["reason"], ready["message"]))
            }
            None => Err("Ready is not said".to_owned()),
        }
    }

    /// Remembers, for the report, what users made the operator forget.
    pub fn count_orphans(&mut self, stage: &Stage) {
        self.orphans = self.unaccounted().iter().filter(|(mark, _)| Self::is_excused(stage, mark)).count();
    }

    pub fn report(&self, stage: &Stage) {
        let ours: Vec<&Key> = self.look.ours().map(|(_, key)| key).collect();
        let revoked = || ours.iter().filter(|key| key.revoked_at.is_some());
        let lost = self.look.living().filter(|object| {
            let secrets = self.look.secrets_of(object);
            secrets
                .iter()
                .all(|secret| !self.look.key_in(secret).is_some_and(|key| key.authenticates(self.look.now)))
        });
        let tally = &stage.tally;
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        println!("\n{}", stage.progress());
        for (what, count) in [
            ("objects", self.look.living().count()),
            ("keys asked for by users", count(&tally.asked)),
            ("POSTs", stage.emulator.count(Operation::Create)),
            ("keys minted", ours.len()),
            ("keys delivered", self.delivered.len()),
            ("  of these rotated", self.delivered.len().saturating_sub(self.current.len())),
            ("  of these renewed", self.renewals),
            ("keys revoked", revoked().count()),
            (
                "  of these never seen in a Secret",
                revoked().filter(|key| !self.delivered.contains(&key.id)).count(),
            ),
            ("faults at Boltz survived", count(&tally.boltz_faults)),
            ("faults at the API server survived", count(&tally.api_faults)),
            ("restarts: kills", count(&tally.kills)),
            ("restarts: terminations", count(&tally.terminations)),
            ("orphans of forged objects, revoked", self.orphans),
        ] {
            println!("{what:<38}{count:>7}");
        }
        if self.saw_the_end {
            println!("{:<38}{:>7}\n{:<38}{:>7}", "lost", lost.count(), "leaked", self.unaccounted().len());
        }
    }
}
