//! The promise at every moment: no Secret of an object that stays holds a key that does not work, and no delivered key is
//! revoked before the end of its overlap.
//!
//! A watch tells what each Secret holds, write for write. The emulator is in this process, so whether a key works is asked
//! far more often than an operator can act.

use crate::test_env::TestEnv;
use boltz_emulator::{Emulator, Operation};
use boltz_operator::{
    api::BoltzApiKey,
    protocol::record::{Record, value_sha256},
};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// How often it is asked whether the keys work.
const OFTEN: Duration = Duration::from_millis(20);
/// A watch that is broken more often shows nothing.
const MOST_ERRORS: usize = 3;

/// What the Secrets of a cell have held.
#[derive(Default)]
pub struct Delivered {
    /// The ids of the keys that were current.
    ids: RefCell<HashSet<String>>,
    /// For each key that was replaced: when its overlap ends, as the record says, and the replacement that says so first.
    ends: RefCell<HashMap<String, (Timestamp, Timestamp)>>,
}

/// What is looked at.
pub struct View {
    secrets: Api<Secret>,
    objects: Api<BoltzApiKey>,
    emulator: Arc<Emulator>,
}

/// A value that the operator stored and nobody changed.
struct Held {
    uid: String,
    value: String,
    record: Record,
}

fn held(secret: &Secret) -> Option<Held> {
    let record = Record::parse(secret.annotations().get("boltz.bio/record").map(String::as_str))?;
    let value = &secret.data.as_ref()?.get(&record.secret_key)?.0;
    let is_intact = value_sha256(value) == record.value_sha256;
    let value = is_intact.then(|| String::from_utf8_lossy(value).into_owned())?;
    Some(Held { uid: secret.uid()?, value, record })
}

impl Delivered {
    /// Watches for as long as it is waited for. Ends with what is wrong, and not otherwise.
    pub async fn watch(&self, view: View) -> String {
        let events = watcher(view.secrets.clone(), watcher::Config::default());
        pin_mut!(events);
        let mut now: HashMap<String, Held> = HashMap::new();
        let mut often = tokio::time::interval(OFTEN);
        let mut errors = 0;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(secret) | Event::InitApply(secret))) => {
                        match held(&secret) {
                            Some(held) => {
                                self.learn(&held.record);
                                now.insert(secret.name_any(), held);
                            }
                            None => drop(now.remove(&secret.name_any())),
                        }
                    }
                    Some(Ok(Event::Delete(secret))) => drop(now.remove(&secret.name_any())),
                    Some(Ok(Event::Init)) => now.clear(),
                    Some(Ok(Event::InitDone)) => {}
                    Some(Err(error)) => {
                        errors += 1;
                        if errors > MOST_ERRORS {
                            return format!("the watch of the Secrets fails: {error}");
                        }
                    }
                    None => return "the watch of the Secrets has ended".to_owned(),
                },
                _ = often.tick() => {}
            }
            let dead = now.iter().find(|(_, held)| view.emulator.authenticate(&held.value).is_none());
            if let Some((name, held)) = dead {
                match view.still_holds(name, held).await {
                    Ok(true) => {
                        return format!(
                            "the Secret {name} holds a key that does not work: {}",
                            held.record.key_id
                        );
                    }
                    // The watch will say what it holds, and then it is not asked about any more.
                    Ok(false) => {}
                    Err(error) => return format!("the Secret {name} cannot be read: {error}"),
                }
            }
        }
    }

    fn learn(&self, record: &Record) {
        self.ids.borrow_mut().insert(record.key_id.clone());
        let mut ends = self.ends.borrow_mut();
        for previous in &record.previous {
            ends.entry(previous.key_id.clone()).or_insert((previous.revoke_after, record.issued_at));
        }
    }

    /// What was revoked too early, where nobody gave a reason for that.
    pub fn revoked_too_early(&self, env: &TestEnv, overlap: Duration) -> Result<(), String> {
        let (ids, ends) = (self.ids.borrow(), self.ends.borrow());
        for request in env.emulator.requests() {
            let id = &request.subject;
            if request.operation != Operation::Revoke || !ids.contains(id) {
                continue;
            }
            let Some((end, replaced)) = ends.get(id) else {
                return Err(format!("{id} was revoked, and no record names it as a previous key"));
            };
            if request.at < *end || *end < *replaced + overlap {
                return Err(format!(
                    "{id} was replaced by a key of {replaced}, had an overlap of {overlap:?} until {end}, and was revoked \
                     at {}",
                    request.at
                ));
            }
        }
        Ok(())
    }
}

impl View {
    pub fn of(env: &TestEnv) -> Self {
        Self { secrets: env.secrets(), objects: env.objects(), emulator: Arc::clone(&env.emulator) }
    }

    /// Whether the Secret holds that value and its object is to stay.
    async fn still_holds(&self, name: &str, known: &Held) -> Result<bool, kube::Error> {
        let secret = self.secrets.get_opt(name).await?;
        let same = secret.is_some_and(|secret| {
            held(&secret).is_some_and(|held| held.uid == known.uid && held.value == known.value)
        });
        let object = self.objects.get_opt("key").await?;
        let stays = object.is_some_and(|object| {
            object.metadata.deletion_timestamp.is_none()
                && object.uid().as_ref() == Some(&known.record.owner_uid)
        });
        Ok(same && stays)
    }
}
