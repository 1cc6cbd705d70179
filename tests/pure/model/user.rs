//! What users do to the model's world.

use super::State;
use boltz_operator::{
    api::{BoltzApiKeySpec, DeletionPolicy},
    plan::{Block, ObjectFacts, Reason},
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::{AttemptId, ObjectMark},
        record::PreviousKey,
    },
};
use plan_world::{DAY, Key, Lie, SECOND, UID, World};

const SECOND_UID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
const ANOTHER_UID: &str = "11111111-2222-4333-8444-555555555555";
/// A key of another object, whose id a tenant may write where it likes.
const ANOTHER_KEY: &str = "key-of-another";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    Deletes,
    Recreates,
    Rotates,
    RotatesNow,
    DeletesTheSecret,
    EditsTheValue,
    StripsTheFinalizer,
    TakesABackup,
    RestoresIt,
    ForgesTheStatus,
    ForgesTheRecord,
    ForgesTheLedger,
    RuinsTheLedger,
    RenamesTheSecret,
    ChangesTheWorkspace,
    ChangesTheTemplate,
    ShortensTheOverlap,
    Suspends,
    Resumes,
    PausesTheObject,
    EndsThePause,
    Retains,
    StepsTheClockForward,
    StepsTheClockBack,
    InstallsAWebhook,
    RemovesTheWebhook,
    /// Boltz's list shows nothing.
    EmptiesTheList,
    /// Boltz's list shows for ever what it shows now.
    FreezesTheList,
    MendsTheList,
    /// Boltz asks everybody to wait.
    PausesTheAccount,
}

/// How far a calendar steps.
pub const STEP: i64 = 6 * 3600;
/// For how long Boltz asks to wait.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(5 * 60);

pub fn mark_of(object: &ObjectFacts) -> ObjectMark {
    ObjectMark::from_uid(&object.uid)
}

/// Neither of the object nor of the one that is created under its name.
pub fn is_of_another(key: &Key) -> bool {
    [UID, SECOND_UID].iter().all(|uid| key.object != ObjectMark::from_uid(uid))
}

pub fn add_foreign_keys(world: &mut World) {
    let key = world.make_key(ANOTHER_UID, &AttemptId::from_random(7), None);
    world.key(&key.id).id = ANOTHER_KEY.to_owned();
}

impl User {
    /// It may cost a key.
    pub fn asks_for_a_key(self) -> bool {
        matches!(
            self,
            Self::Recreates
                | Self::Rotates
                | Self::RotatesNow
                | Self::DeletesTheSecret
                | Self::EditsTheValue
                | Self::RestoresIt
                | Self::ChangesTheWorkspace
        )
    }

    pub fn can_act(self, state: &State) -> bool {
        let object = state.world.object.as_ref();
        let lives = object.is_some_and(|object| !object.deleting);
        match self {
            Self::Recreates => object.is_none(),
            Self::DeletesTheSecret | Self::EditsTheValue | Self::ForgesTheRecord => {
                lives && state.world.secrets.contains_key("key")
            }
            Self::RestoresIt => state.backup.is_some(),
            Self::Resumes => {
                lives && object.is_some_and(|object| object.spec.as_ref().is_ok_and(|spec| spec.suspend))
            }
            Self::EndsThePause => lives && object.is_some_and(|object| object.is_paused),
            Self::RemovesTheWebhook => state.has_webhook,
            Self::MendsTheList => state.world.list_lies != Lie::None,
            Self::StripsTheFinalizer => lives && object.is_some_and(|object| object.has_finalizer),
            _ => lives,
        }
    }

    pub fn act(self, state: &mut State, spec: &serde_json::Value) {
        let world = &mut state.world;
        match self {
            Self::Deletes => {
                if !world.object().has_finalizer {
                    // Documented: stripped and deleted at once, its keys are orphans.
                    state.orphaned.extend(attempts_of(world));
                }
                if world
                    .object()
                    .spec
                    .as_ref()
                    .is_ok_and(|spec| spec.deletion_policy == DeletionPolicy::Retain)
                {
                    state.orphaned.extend(attempts_of(world));
                    state.is_retained = world.secrets.contains_key("key");
                }
                world.delete();
            }
            Self::Recreates => world.create(SECOND_UID, spec.clone()),
            Self::Rotates => world.edit(|object| object.rotate = next(object.rotate.as_ref())),
            Self::RotatesNow => world.edit(|object| object.rotate_now = next(object.rotate_now.as_ref())),
            Self::DeletesTheSecret => {
                world.secrets.remove("key");
                world.mark_changed();
            }
            Self::EditsTheValue => world.secret().value = Some("edited".to_owned()),
            Self::StripsTheFinalizer => world.edit(|object| object.finalizers.clear()),
            Self::TakesABackup => state.backup = Some(Box::new(world.clone())),
            Self::RestoresIt => {
                let Some(backup) = state.backup.take() else { return };
                let mut lost = attempts_of(world);
                world.restore(*backup);
                // Documented: keys that the backup does not know are orphans.
                let known = attempts_of(world);
                lost.retain(|attempt| !known.contains(attempt));
                state.orphaned.extend(lost);
                // etcd is restored while nothing runs.
                for index in 0..state.actors.len() {
                    state.actors[index] = state.start_process();
                }
            }
            Self::ForgesTheStatus => world.edit(|object| object.status.key_id = Some(ANOTHER_KEY.to_owned())),
            Self::ForgesTheRecord => {
                let revoke_after = world.true_time() - SECOND;
                if let Some(record) = &mut world.secret().record {
                    record.previous.push(PreviousKey {
                        key_id: ANOTHER_KEY.to_owned(),
                        key_prefix: None,
                        attempt: None,
                        revoke_after,
                        expires_at: None,
                        even_if_used: true,
                        organization: None,
                        adopted: None,
                        other: Default::default(),
                    });
                }
            }
            Self::RenamesTheSecret => edit_spec(world, |spec| spec.secret.name = Some("moved".to_owned())),
            Self::ChangesTheWorkspace => {
                edit_spec(world, |spec| spec.workspace_id = Some("other".to_owned()))
            }
            Self::ChangesTheTemplate => edit_spec(world, |spec| {
                spec.secret.key = "OTHER".to_owned();
                spec.secret.template.labels.insert("team".to_owned(), "a".to_owned());
            }),
            Self::ShortensTheOverlap => edit_spec(world, |spec| spec.rotation.overlap = "4m".to_owned()),
            Self::Suspends => edit_spec(world, |spec| spec.suspend = true),
            Self::Resumes => edit_spec(world, |spec| spec.suspend = false),
            Self::PausesTheObject => world.edit(|object| object.is_paused = true),
            Self::EndsThePause => world.edit(|object| object.is_paused = false),
            Self::Retains => edit_spec(world, |spec| spec.deletion_policy = DeletionPolicy::Retain),
            Self::StepsTheClockForward => step_clock(world, STEP),
            Self::StepsTheClockBack => step_clock(world, -STEP),
            Self::InstallsAWebhook => state.has_webhook = true,
            Self::RemovesTheWebhook => state.has_webhook = false,
            Self::EmptiesTheList => tell_lies(world, Lie::Empty),
            Self::FreezesTheList => {
                let keys = world.keys.clone();
                tell_lies(world, Lie::Old(keys));
            }
            Self::MendsTheList => tell_lies(world, Lie::None),
            Self::PausesTheAccount => {
                for actor in &mut state.actors {
                    let until = actor.process.now(world).monotonic.plus(PAUSE);
                    let message = "Boltz asks to wait.".to_owned();
                    let block = Block { reason: Reason::RateLimited, message, until: Some(until) };
                    actor.process.account.calls_blocked = Some(block);
                }
                world.mark_changed();
            }
            Self::RuinsTheLedger => world.edit(|object| object.ledger = Ledger::parse(Some("no ledger"))),
            // Nor is it believed how old an attempt is.
            Self::ForgesTheLedger => {
                let written_at = world.true_time() - 2 * DAY;
                world.edit(|object| {
                    for entry in &mut object.ledger.entries {
                        entry.written_at = written_at;
                    }
                    object.ledger.entries.push(LedgerEntry::new(AttemptId::from_random(7), written_at, None));
                });
            }
        }
    }
}

/// Those that the ledger and the records name.
fn attempts_of(world: &World) -> Vec<AttemptId> {
    let ledger =
        world.object.iter().flat_map(|object| &object.ledger.entries).map(|entry| entry.attempt.clone());
    let records = world.secrets.values().filter_map(|secret| secret.record.as_ref());
    let named = records.flat_map(|record| {
        let previous = record.previous.iter().filter_map(|key| key.attempt.clone());
        std::iter::once(record.attempt.clone()).chain(previous)
    });
    ledger.chain(named).collect()
}

fn edit_spec(world: &mut World, change: impl FnOnce(&mut BoltzApiKeySpec)) {
    world.edit(|object| {
        object.spec.as_mut().map(change).unwrap();
        object.generation = object.generation.map(|generation| generation + 1);
    });
}

fn step_clock(world: &mut World, by: i64) {
    world.clock_error += by;
    world.mark_changed();
}

/// Nobody is told; the next pass shows it.
fn tell_lies(world: &mut World, lie: Lie) {
    world.list_lies = lie;
    world.mark_changed();
}

fn next(value: Option<&String>) -> Option<String> {
    Some(format!("{}1", value.map_or("", String::as_str)))
}
