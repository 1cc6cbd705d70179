//! A world without a network: the API server's object and Secrets, Boltz's keys, and processes that observe, plan and
//! execute against them by the operator's own pure functions, in virtual time and with faults where a test wants them.

use boltz_operator::{
    api::{BoltzApiKeySpec, BoltzApiKeyStatus, Mode},
    plan::{
        AccountFacts, Block, Facts, ListedKey, Memory, MintedKey, Monotonic, Now, ObjectFacts, OwnSecret,
        Pass, Plan, Reason, RevokeReason, SecretFacts, Settings, Step, later, plan, with_finalizer,
    },
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::{AttemptId, ObjectMark},
        record::{Record, value_sha256},
    },
};
use jiff::Timestamp;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const UID: &str = "550e8400-e29b-41d4-a716-446655440000";
const FINALIZER: &str = boltz_operator::api::annotations::FINALIZER;

/// More rounds than a process needs between two periodic passes: one that comes here spins.
const MOST_ROUNDS: u32 = 400;
/// More steps than any chain of decisions has.
const MOST_STEPS: usize = 64;

/// A Secret as the API server holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    pub uid: String,
    pub version: u64,
    pub record: Option<Record>,
    pub value: Option<String>,
    /// The object that it belongs to; none: it is somebody else's.
    pub owner: Option<String>,
    /// It has an ownerReference, so it goes with its object.
    pub owned: bool,
}

/// A key as Boltz knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub id: String,
    pub object: ObjectMark,
    pub attempt: AttemptId,
    pub value: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub revoked: bool,
    /// Why we revoked it, if we did.
    pub reason: Option<RevokeReason>,
}

/// Something that takes effect after its sender has given up.
#[derive(Clone, Debug, PartialEq)]
enum Late {
    Post { object: String, attempt: AttemptId, days: Option<u32> },
    WriteSecret { name: String, expected: Option<u64>, secret: Box<Secret> },
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The process ends before the call is sent.
    CrashBefore,
    /// The call takes effect, and the process ends before the answer.
    CrashAfter,
    /// The call takes no effect, and nobody says so.
    Cut,
    /// The call takes effect, and the answer is lost.
    Lost,
    /// The call takes effect that much later, and the answer is lost.
    Late(Duration),
    /// The call is refused.
    Refused,
}

/// The process has ended.
#[derive(Debug, PartialEq)]
pub struct Crashed;

/// What follows a decision that has been carried out.
pub enum Next {
    /// There is nothing to do now.
    Rest(Box<Plan>),
    /// A live read, and a decision by it.
    ReadAgain,
    /// Another decision, by the same facts.
    Decide,
}

/// C2.
pub fn is_mint(step: &Step) -> bool {
    matches!(step, Step::Mint(_))
}

/// C3.
pub fn is_store(step: &Step) -> bool {
    matches!(step, Step::Store { .. })
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub posts: usize,
    pub object_writes: usize,
    pub secret_writes: usize,
    pub status_writes: usize,
    pub passes: usize,
}

/// The API server and Boltz.
#[derive(Clone, Debug)]
pub struct World {
    pub settings: Settings,
    pub elapsed: Duration,
    /// How far the operator's calendar is from the true one, in seconds.
    pub clock_error: i64,
    pub object: Option<ObjectFacts>,
    pub secrets: BTreeMap<String, Secret>,
    pub keys: Vec<Key>,
    pub counts: Counts,
    /// A new key is not listed for this long.
    pub list_lag: Duration,
    /// Between two passes that nothing asked for.
    pub inventory_interval: Duration,
    /// What must never be, and was.
    pub violation: Option<String>,
    late: Vec<(Duration, Late)>,
    versions: u64,
}

impl World {
    /// A world in which one object asks for a key.
    pub fn with(spec: serde_json::Value) -> Self {
        let mut world = Self {
            settings: Settings { settle_time: 2 * MINUTE, recheck: MINUTE },
            elapsed: Duration::ZERO,
            clock_error: 0,
            object: None,
            secrets: BTreeMap::new(),
            keys: Vec::new(),
            counts: Counts::default(),
            list_lag: Duration::ZERO,
            inventory_interval: 10 * MINUTE,
            violation: None,
            late: Vec::new(),
            versions: 0,
        };
        world.create(UID, spec);
        world
    }

    /// A world with a Ready object, and the process that made it so.
    pub fn ready(spec: serde_json::Value) -> (Self, Process) {
        let mut world = Self::with(spec);
        let mut process = Process::start(&world);
        process.rest(&mut world);
        assert_eq!(world.ready_reason(), "Issued");
        (world, process)
    }

    /// The same, rotated once: `key-1` is in its overlap.
    pub fn rotated(spec: serde_json::Value) -> (Self, Process) {
        let (mut world, mut process) = Self::ready(spec);
        world.edit(|object| object.rotate = Some("1".to_owned()));
        process.rest(&mut world);
        assert_eq!(world.record().key_id, "key-2");
        (world, process)
    }

    pub fn create(&mut self, uid: &str, spec: serde_json::Value) {
        let version = self.next_version();
        self.object = Some(ObjectFacts {
            namespace: "team".to_owned(),
            name: "key".to_owned(),
            uid: uid.to_owned(),
            resource_version: version.to_string(),
            generation: Some(1),
            deleting: false,
            has_finalizer: false,
            finalizers: Vec::new(),
            spec: Ok(spec_of(spec)),
            ledger: Ledger::default(),
            rotate: None,
            rotate_now: None,
            deletion_policy: None,
            status: BoltzApiKeyStatus::default(),
        });
    }

    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Grows with everything that happens.
    pub fn changes(&self) -> u64 {
        self.versions
    }

    /// Something happened that has no version of its own.
    pub fn changed(&mut self) {
        self.versions += 1;
    }

    /// The API server's data as they were then; Boltz's stay.
    pub fn restore(&mut self, backup: World) {
        self.object = backup.object;
        self.secrets = backup.secrets;
        let version = self.next_version();
        if let Some(object) = &mut self.object {
            object.resource_version = version.to_string();
        }
        for secret in self.secrets.values_mut() {
            secret.version = version;
        }
    }

    /// The true time.
    pub fn true_time(&self) -> Timestamp {
        later("2026-11-24T00:00:00Z".parse().unwrap(), self.elapsed)
    }

    /// The operator's calendar.
    fn wall(&self) -> Timestamp {
        self.true_time().checked_add(jiff::SignedDuration::from_secs(self.clock_error)).unwrap()
    }

    pub fn object(&self) -> &ObjectFacts {
        self.object.as_ref().unwrap()
    }

    pub fn secret(&mut self) -> &mut Secret {
        let version = self.next_version();
        let secret = self.secrets.get_mut("key").unwrap();
        secret.version = version;
        secret
    }

    pub fn record(&self) -> &Record {
        self.secrets["key"].record.as_ref().unwrap()
    }

    /// Somebody edits the object's metadata or status.
    pub fn edit(&mut self, change: impl FnOnce(&mut ObjectFacts)) {
        let version = self.next_version();
        let object = self.object.as_mut().unwrap();
        change(object);
        object.has_finalizer = object.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        object.resource_version = version.to_string();
        self.end_deletion();
    }

    /// Somebody edits the object's spec.
    pub fn edit_spec(&mut self, spec: serde_json::Value) {
        self.edit(|object| {
            object.spec = Ok(spec_of(spec));
            object.generation = object.generation.map(|generation| generation + 1);
        });
    }

    pub fn delete(&mut self) {
        self.edit(|object| object.deleting = true);
    }

    /// An object whose deletion nothing holds up goes, and the garbage collector takes what it owns.
    fn end_deletion(&mut self) {
        if self.object.as_ref().is_some_and(|object| object.deleting && object.finalizers.is_empty()) {
            let uid = self.object.take().unwrap().uid;
            self.secrets.retain(|_, secret| !(secret.owned && secret.owner.as_deref() == Some(&uid)));
        }
    }

    /// A write of the object's own Secret under the UID and version that the facts hold.
    fn patch_secret(&mut self, facts: &Facts, change: impl FnOnce(&mut Secret)) {
        let SecretFacts::Ours(own) = &facts.secret else { return };
        let version = self.next_version();
        let stored = self
            .secrets
            .get_mut(&own.name)
            .filter(|stored| stored.uid == own.uid && stored.version.to_string() == own.resource_version);
        if let Some(secret) = stored {
            change(secret);
            secret.version = version;
            self.counts.secret_writes += 1;
        }
    }

    /// Boltz makes the key of a POST.
    pub fn make_key(&mut self, uid: &str, attempt: &AttemptId, days: Option<u32>) -> Key {
        let id = key_id(self.keys.len() + 1);
        let created_at = self.true_time();
        let key = Key {
            value: key_value(&id),
            id,
            object: ObjectMark::from_uid(uid),
            attempt: attempt.clone(),
            created_at,
            expires_at: days.map(|days| later(created_at, days * DAY)),
            last_used_at: None,
            revoked: false,
            reason: None,
        };
        self.keys.push(key.clone());
        self.changed();
        key
    }

    /// C3 takes effect.
    fn put_secret(&mut self, name: String, secret: Secret) {
        let lives = self.object.as_ref().filter(|object| !object.deleting).map(|object| &object.uid);
        let key = self.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref());
        if lives == secret.owner.as_ref() && key.is_some_and(|key| key.revoked) {
            self.violation = Some(format!("{name} is stored with a revoked key"));
        }
        self.secrets.insert(name, secret);
    }

    /// We revoke a key for the object with that UID.
    fn revoke(&mut self, uid: &str, id: &str, reason: RevokeReason) {
        self.changed();
        let lives = self.object.as_ref().is_some_and(|object| object.uid == uid && !object.deleting);
        let Some(key) = self.keys.iter_mut().find(|key| key.id == id) else { return };
        let is_held = self
            .secrets
            .values()
            .any(|secret| secret.owner.as_deref() == Some(uid) && secret.value.as_ref() == Some(&key.value));
        if key.object != ObjectMark::from_uid(uid) {
            self.violation = Some(format!("{id} is not ours, and is revoked"));
        } else if lives && is_held && !key.revoked {
            self.violation = Some(format!("the Secret holds {id}, which is revoked: {}", reason.as_str()));
        }
        key.revoked = true;
        key.reason = Some(reason);
    }

    pub fn key(&mut self, id: &str) -> &mut Key {
        self.keys.iter_mut().find(|key| key.id == id).unwrap()
    }

    /// The ids of the keys that Boltz takes.
    pub fn active(&self) -> Vec<&str> {
        let now = self.true_time();
        self.keys
            .iter()
            .filter(|key| !key.revoked && key.expires_at.is_none_or(|expires_at| now < expires_at))
            .map(|key| key.id.as_str())
            .collect()
    }

    pub fn ready_reason(&self) -> &str {
        let conditions = &self.object().status.conditions;
        conditions.iter().find(|condition| condition.type_ == "Ready").map_or("", |ready| &ready.reason)
    }

    /// Lets time pass; what was late takes effect on its way.
    pub fn advance_to(&mut self, elapsed: Duration) {
        while let Some(index) = self.next_late().filter(|index| self.late[*index].0 <= elapsed) {
            let (at, late) = self.late.remove(index);
            self.elapsed = self.elapsed.max(at);
            match late {
                Late::Post { object, attempt, days } => drop(self.make_key(&object, &attempt, days)),
                Late::WriteSecret { name, expected, secret } => {
                    // The guard holds for late writes too, and so does the garbage collector.
                    if self.secrets.get(&name).map(|known| known.version) == expected {
                        self.put_secret(name, *secret);
                        let uid = self.object.as_ref().map(|object| object.uid.clone());
                        self.secrets.retain(|_, secret| secret.owner == uid || !secret.owned);
                    }
                }
            }
        }
        self.elapsed = self.elapsed.max(elapsed);
    }

    fn next_late(&self) -> Option<usize> {
        (0..self.late.len()).min_by_key(|index| self.late[*index].0)
    }

    /// When the next late effect comes.
    pub fn next_late_at(&self) -> Option<Duration> {
        self.next_late().map(|index| self.late[index].0)
    }

    /// What is still under way, and the time, in words that tell two moments apart.
    pub fn late_and_time(&self) -> String {
        let late = self.late.iter().map(|(at, late)| match late {
            Late::Post { object, attempt, .. } => format!("{at:?} {object} {attempt} "),
            Late::WriteSecret { name, expected, secret } => {
                let fits = self.secrets.get(name).map(|known| known.version) == *expected;
                format!("{at:?} {name} {fits} {:?} ", secret.record)
            }
        });
        format!("{:?} {}", self.elapsed, late.collect::<String>())
    }

    /// The promise, at any time: no key that the object's Secret holds was revoked by us, deletion aside.
    fn assert_the_delivered_key_lives(&self) {
        let Some(object) = self.object.as_ref().filter(|object| !object.deleting) else { return };
        for secret in self.secrets.values().filter(|secret| secret.owner.as_deref() == Some(&object.uid)) {
            let held = self.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref());
            if let Some(reason) = held.and_then(|key| key.reason) {
                panic!("the Secret holds {}, which was revoked: {reason:?}", held.unwrap().id);
            }
        }
    }

    /// The promise, at rest: the active keys are those that the Secret's record names, its value works, and status
    /// says the same.
    pub fn assert_good(&self) {
        let record = self.record();
        let named: Vec<&str> = std::iter::once(&record.key_id)
            .chain(record.previous.iter().map(|previous| &previous.key_id))
            .map(String::as_str)
            .filter(|id| self.active().contains(id))
            .collect();
        let (mut active, mut named) = (self.active(), named);
        active.sort_unstable();
        named.sort_unstable();
        assert_eq!(active, named, "active keys, and those that the record names");
        assert!(active.contains(&record.key_id.as_str()), "the current key is active");
        let held = self.keys.iter().find(|key| Some(&key.value) == self.secrets["key"].value.as_ref());
        assert_eq!(held.map(|key| &key.id), Some(&record.key_id), "the value is the current key's");
        assert_eq!(self.object().status.key_id.as_ref(), Some(&record.key_id), "status names it");
    }
}

/// The id of the key with that number; the first is 1.
pub fn key_id(number: usize) -> String {
    format!("key-{number}")
}

/// The value of the key with that id.
pub fn key_value(id: &str) -> String {
    format!("value of {id}")
}

fn spec_of(spec: serde_json::Value) -> BoltzApiKeySpec {
    serde_json::from_value(spec).unwrap()
}

/// What a process sees of Boltz: one pass over the list.
#[derive(Clone, Debug)]
struct Listing {
    started: Duration,
    started_at: Timestamp,
    keys: Vec<Key>,
}

/// One process of the operator.
#[derive(Clone, Debug)]
pub struct Process {
    pub started: Duration,
    /// Makes its attempts' ids differ from another's.
    seed: u64,
    attempts: u64,
    pub memory: Memory,
    pub account: AccountFacts,
    listings: VecDeque<Listing>,
    values: BTreeMap<AttemptId, String>,
    /// What its caches show, when they lag behind.
    pub stale: Option<Box<World>>,
}

impl Process {
    pub fn start(world: &World) -> Self {
        Self::start_other(world, world.elapsed.as_secs() + 1)
    }

    pub fn start_other(world: &World, seed: u64) -> Self {
        Self {
            started: world.elapsed,
            seed,
            attempts: 0,
            memory: Memory::default(),
            account: AccountFacts::default(),
            listings: VecDeque::new(),
            values: BTreeMap::new(),
            stale: None,
        }
    }

    pub fn now(&self, world: &World) -> Now {
        Now { wall: world.wall(), monotonic: Monotonic(world.elapsed - self.started) }
    }

    /// One complete pass over Boltz's list.
    pub fn take_pass(&mut self, world: &mut World) {
        world.counts.passes += 1;
        let listed_until = world.true_time();
        let lag = world.list_lag;
        let keys =
            world.keys.iter().filter(|key| later(key.created_at, lag) <= listed_until).cloned().collect();
        self.listings.push_front(Listing { started: world.elapsed, started_at: world.wall(), keys });
        self.listings.truncate(2);
    }

    /// What the process knows: by its caches, or `live` from the API server itself.
    pub fn facts(&mut self, world: &World, live: bool) -> Option<Facts> {
        let seen = if live { world } else { self.stale.as_deref().unwrap_or(world) };
        let object = seen.object.clone()?;
        let mut secret = SecretFacts::Absent;
        let mut other_secrets = Vec::new();
        for (name, stored) in &seen.secrets {
            let is_ours = stored.owner.as_deref() == Some(&object.uid);
            let own = own_secret(name, stored, &object.uid);
            match (name == object.secret_name(), is_ours) {
                (true, true) => secret = SecretFacts::Ours(Box::new(own)),
                (true, false) => {
                    secret = SecretFacts::Foreign("The Secret belongs to somebody else.".to_owned())
                }
                (false, true) if own.record.is_some() => other_secrets.push(own),
                (false, _) => {}
            }
        }
        let mut facts = Facts {
            object,
            secret,
            other_secrets,
            live,
            preflight_passed: false,
            passes: Vec::new(),
            memory: Memory::default(),
            account: AccountFacts::default(),
        };
        self.refresh(world, &mut facts);
        Some(facts)
    }

    /// When its newest pass was begun.
    pub fn last_pass(&self) -> Option<Duration> {
        self.listings.front().map(|listing| listing.started)
    }

    /// What tells two moments of it apart, its caches and lists aside. Seed and count only make new names.
    pub fn told(&self) -> String {
        let Self { started, seed: _, attempts: _, memory, account: _, listings: _, values, stale: _ } = self;
        format!("{started:?} {memory:?} {:?} ", values.keys())
    }

    /// Its lists of keys, and when it began to read them.
    pub fn lists(&self) -> impl Iterator<Item = (Duration, &[Key])> {
        self.listings.iter().map(|listing| (listing.started, listing.keys.as_slice()))
    }

    fn refresh(&mut self, world: &World, facts: &mut Facts) {
        facts.memory = self.memory.clone();
        facts.account = self.account.clone();
        let mark = ObjectMark::from_uid(&facts.object.uid);
        let named: Vec<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
        facts.passes = self
            .listings
            .iter()
            .map(|listing| Pass {
                started: Monotonic(listing.started - self.started),
                started_at: listing.started_at,
                keys: listing
                    .keys
                    .iter()
                    .filter(|key| key.object == mark)
                    .map(|key| ListedKey {
                        id: key.id.clone(),
                        attempt: key.attempt.clone(),
                        prefix: String::new(),
                        is_active: !key.revoked,
                        expires_at: key.expires_at,
                        last_used_at: key.last_used_at,
                    })
                    .collect(),
                under_other_names: listing
                    .keys
                    .iter()
                    .filter(|key| key.object != mark && named.contains(&key.id))
                    .map(|key| key.id.clone())
                    .collect(),
            })
            .collect();
        self.memory.learn(facts, self.now(world).monotonic);
        facts.memory = self.memory.clone();
    }

    /// The decision now, by what the caches show.
    pub fn decide(&mut self, world: &World) -> Plan {
        let facts = self.facts(world, false).unwrap();
        plan(&facts, &world.settings, self.now(world))
    }

    /// The decision now, by these facts and what the process has learnt meanwhile.
    pub fn decide_on(&mut self, world: &World, facts: &mut Facts) -> Plan {
        self.refresh(world, facts);
        plan(facts, &world.settings, self.now(world))
    }

    /// Observes, decides and executes until there is nothing to do now.
    pub fn reconcile(&mut self, world: &mut World) -> Option<Plan> {
        self.reconcile_with(world, &mut |_| None).unwrap()
    }

    /// The same, with a fault for each step that should have one. `None`: the object is gone.
    pub fn reconcile_with(
        &mut self,
        world: &mut World,
        fault: &mut dyn FnMut(&Step) -> Option<Fault>,
    ) -> Result<Option<Plan>, Crashed> {
        let Some(mut facts) = self.facts(world, false) else { return Ok(self.forsaken(world)) };
        for _ in 0..MOST_STEPS {
            let next = self.step(world, &mut facts, fault)?;
            if let Next::Rest(decision) = next {
                return Ok(Some(*decision));
            }
            world.assert_the_delivered_key_lives();
            if let Next::ReadAgain = next {
                // Another object of that name is another's: only the UID counts.
                match self.facts(world, true).filter(|read| read.object.uid == facts.object.uid) {
                    Some(read) => facts = read,
                    None => return Ok(self.forsaken(world)),
                }
            }
        }
        panic!("a chain of decisions without end");
    }

    /// Decides, and carries out one step.
    pub fn step(
        &mut self,
        world: &mut World,
        facts: &mut Facts,
        fault: &mut dyn FnMut(&Step) -> Option<Fault>,
    ) -> Result<Next, Crashed> {
        let decision = self.decide_on(world, facts);
        match decision.step {
            Step::Wait => Ok(Next::Rest(Box::new(decision))),
            Step::Revoke { .. } if !facts.live => Ok(Next::ReadAgain),
            step => {
                let fault = fault(&step);
                let read_again = self.execute(world, facts, step, fault)?;
                Ok(if read_again { Next::ReadAgain } else { Next::Decide })
            }
        }
    }

    /// The object is gone: the keys that only this process knows of are revoked.
    pub fn forsaken(&mut self, world: &mut World) -> Option<Plan> {
        for id in self.memory.left_behind(false) {
            world.key(&id).revoked = true;
            world.changed();
            self.memory.revoked(&id);
        }
        None
    }

    /// Lives until nothing is left to happen before that time: wakes up as decided, and takes passes as wanted.
    pub fn live_until(&mut self, world: &mut World, until: Duration) {
        self.live_with(world, until, &mut |_| None).unwrap();
    }

    pub fn live_with(
        &mut self,
        world: &mut World,
        until: Duration,
        fault: &mut dyn FnMut(&Step) -> Option<Fault>,
    ) -> Result<(), Crashed> {
        if self.listings.is_empty() {
            self.take_pass(world);
        }
        let interval = world.inventory_interval;
        let periods = (until.saturating_sub(world.elapsed).as_secs() / interval.as_secs()) as u32;
        for _ in 0..MOST_ROUNDS * (periods + 1) {
            let decision = self.reconcile_with(world, fault)?;
            if world.elapsed >= until {
                return Ok(());
            }
            let last_pass = self.listings.front().map_or(self.started, |listing| listing.started);
            let mut next = last_pass + interval;
            if let Some(index) = world.next_late() {
                next = next.min(world.late[index].0);
            }
            if let Some(decision) = &decision {
                if decision.pass_since.is_some() {
                    // As the inventory does it: wishes at nearly the same time become one pass.
                    next = next.min((last_pass + SECOND / 2).max(world.elapsed));
                }
                if let Some(at) = decision.wake_at {
                    let at = self.started + at.0;
                    assert!(at > world.elapsed, "a wake-up that is no later than now");
                    next = next.min(at);
                }
            }
            world.advance_to(next.min(until));
            let wanted = decision.is_some_and(|decision| decision.pass_since.is_some());
            let due = world.elapsed >= last_pass + if wanted { SECOND / 2 } else { interval };
            if due {
                self.take_pass(world);
            }
        }
        panic!("it spins at {:?}", world.elapsed);
    }

    /// Lives for long enough that everything is settled, and shorter than any overlap.
    pub fn rest(&mut self, world: &mut World) {
        let until = world.elapsed + 20 * MINUTE;
        self.live_until(world, until);
    }

    /// Carries out a step as the executor does. `Ok(true)`: read again.
    fn execute(
        &mut self,
        world: &mut World,
        facts: &mut Facts,
        step: Step,
        fault: Option<Fault>,
    ) -> Result<bool, Crashed> {
        if fault == Some(Fault::CrashBefore) {
            return Err(Crashed);
        }
        let has_effect = !matches!(fault, Some(Fault::Cut | Fault::Refused | Fault::Late(_)));
        let is_lost = matches!(fault, Some(Fault::Cut | Fault::Lost | Fault::Late(_)));
        let read_again = match step {
            Step::Wait => false,
            Step::Preflight => match fault {
                Some(Fault::Refused) => {
                    self.block_storing(world);
                    false
                }
                Some(_) => true,
                None => {
                    let name = facts.object.secret_name();
                    let stored = world.secrets.get(name).map(|secret| secret.version.to_string());
                    let known = match &facts.secret {
                        SecretFacts::Ours(own) => Some(own.resource_version.clone()),
                        SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                    };
                    facts.preflight_passed = stored == known;
                    stored != known
                }
            },
            Step::WriteAttempt { keep, intent } => {
                let now = self.now(world);
                self.attempts += 1;
                let attempt = AttemptId::from_random(self.seed << 20 | self.attempts);
                self.memory.writing(attempt.clone(), *intent, now.monotonic);
                let mut entries = keep;
                entries.push(LedgerEntry { attempt: attempt.clone(), written_at: now.wall });
                let finalizers = with_finalizer(&facts.object.finalizers);
                let written = has_effect
                    && self.write_object(world, facts, |object| {
                        object.ledger = Ledger { entries };
                        object.finalizers = finalizers;
                    });
                if written && !is_lost {
                    self.memory.written(&attempt);
                }
                !written || is_lost
            }
            Step::Mint(attempt) => {
                world.counts.posts += 1;
                let spec = &self.memory.posting(&attempt).unwrap().intent.spec;
                let (days, livemode) = (spec.expires_in_days, spec.mode == Mode::Live);
                if let Some(Fault::Late(by)) = fault {
                    let object = facts.object.uid.clone();
                    world
                        .late
                        .push((world.elapsed + by, Late::Post { object, attempt: attempt.clone(), days }));
                }
                if has_effect {
                    let key = world.make_key(&facts.object.uid, &attempt, days);
                    if !is_lost && fault != Some(Fault::CrashAfter) {
                        let minted = MintedKey {
                            prefix: format!("sk_{}", key.id),
                            id: key.id,
                            value_sha256: value_sha256(key.value.as_bytes()),
                            received_at: world.wall(),
                            created_at: key.created_at,
                            expires_at: key.expires_at,
                            livemode,
                            workspace_id: Some("workspace".to_owned()),
                        };
                        self.values.insert(attempt.clone(), key.value);
                        self.memory.answered(&attempt, minted);
                    }
                } else if fault == Some(Fault::Refused) {
                    self.memory.not_posted(&attempt);
                    self.memory.rejected = Some((facts.object.generation, "Boltz says no.".to_owned()));
                }
                false
            }
            Step::Store { attempt, record } => {
                let Some(value) = self.values.get(&attempt).cloned() else { return Ok(false) };
                let was_in_doubt = self.memory.storing(&attempt);
                let name = facts.object.secret_name().to_owned();
                let expected = match &facts.secret {
                    SecretFacts::Ours(own) => own.resource_version.parse().ok(),
                    SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                };
                let version = world.next_version();
                let secret = Secret {
                    uid: format!("secret-{version}"),
                    version,
                    record: Some(*record),
                    value: Some(value),
                    owner: Some(facts.object.uid.clone()),
                    owned: true,
                };
                if let Some(Fault::Late(by)) = fault {
                    let secret = Box::new(secret.clone());
                    let name = name.clone();
                    world.late.push((world.elapsed + by, Late::WriteSecret { name, expected, secret }));
                }
                let fits = world.secrets.get(&name).map(|known| known.version) == expected;
                let written = has_effect && fits;
                if written {
                    world.counts.secret_writes += 1;
                    world.put_secret(name.clone(), secret.clone());
                }
                if written && !is_lost && fault.is_none() {
                    self.memory.stored(&attempt);
                    self.values.remove(&attempt);
                    // The answer becomes a fact; nothing else is read.
                    facts.secret = SecretFacts::Ours(Box::new(own_secret(&name, &secret, &facts.object.uid)));
                    facts.preflight_passed = false;
                    return Ok(false);
                } else {
                    let refused = fault == Some(Fault::Refused);
                    self.memory.not_stored(&attempt, was_in_doubt || is_lost, refused);
                    if is_lost || refused {
                        self.block_storing(world);
                    }
                }
                true
            }
            Step::WriteStatus(status) => {
                let written =
                    has_effect && self.write_object(world, facts, |object| object.status = *status.clone());
                if written {
                    world.counts.object_writes -= 1;
                    world.counts.status_writes += 1;
                }
                if written && !is_lost {
                    let now = self.now(world).monotonic;
                    self.memory.reported(&status, now);
                }
                !written || is_lost
            }
            Step::Revoke { key_id, reason } => {
                if has_effect {
                    world.revoke(&facts.object.uid, &key_id, reason);
                }
                facts.live = false;
                if is_lost || fault == Some(Fault::Refused) {
                    let until = Some(self.now(world).monotonic.plus(SECOND));
                    let (reason, message) = (Reason::BoltzUnavailable, "Boltz is silent.".to_owned());
                    self.memory.revoke_blocked = Some(Block { reason, message, until });
                } else {
                    self.memory.revoked(&key_id);
                }
                false
            }
            Step::AddFinalizer => {
                let finalizers = with_finalizer(&facts.object.finalizers);
                let written =
                    has_effect && self.write_object(world, facts, |object| object.finalizers = finalizers);
                !written || is_lost
            }
            Step::WriteRecord(record) => {
                if has_effect {
                    world.patch_secret(facts, |secret| secret.record = Some(*record));
                }
                true
            }
            Step::MoveSecret { from } => {
                let name = facts.object.secret_name();
                let known = facts.other_secrets.iter().find(|secret| secret.name == from);
                let source = world.secrets.get(&from).filter(|stored| {
                    known.is_some_and(|known| known.resource_version == stored.version.to_string())
                });
                let copy = source.filter(|_| has_effect && !world.secrets.contains_key(name)).cloned();
                if let Some(mut secret) = copy {
                    let version = world.next_version();
                    secret.uid = format!("secret-{version}");
                    secret.version = version;
                    reshape(&mut secret, facts);
                    world.secrets.insert(name.to_owned(), secret);
                    world.counts.secret_writes += 1;
                }
                true
            }
            Step::DeleteSecret { name, uid } => {
                if has_effect && world.secrets.get(&name).is_some_and(|secret| secret.uid == uid) {
                    world.secrets.remove(&name);
                    world.counts.secret_writes += 1;
                }
                true
            }
            Step::Reshape => {
                if has_effect {
                    world.patch_secret(facts, |secret| reshape(secret, facts));
                }
                true
            }
            Step::RestartWorkloads => {
                self.memory.restarted_for = facts.record().map(|record| record.key_id.clone());
                false
            }
            Step::ReleaseSecret { name } => {
                world.secrets.get_mut(&name).unwrap().owned = false;
                true
            }
            Step::DropFinalizer { .. } => {
                let dropped = has_effect
                    && self.write_object(world, facts, |object| {
                        object.finalizers.retain(|finalizer| finalizer != FINALIZER);
                    });
                world.end_deletion();
                // The object is let go, or not: a read tells.
                let _ = dropped;
                true
            }
        };
        if fault == Some(Fault::CrashAfter) { Err(Crashed) } else { Ok(read_again) }
    }

    /// A write of the object under its resourceVersion and UID; the answer becomes a fact.
    fn write_object(
        &self,
        world: &mut World,
        facts: &mut Facts,
        change: impl FnOnce(&mut ObjectFacts),
    ) -> bool {
        let fits = world.object.as_ref().is_some_and(|object| {
            object.uid == facts.object.uid && object.resource_version == facts.object.resource_version
        });
        if !fits {
            return false;
        }
        world.counts.object_writes += 1;
        let version = world.next_version();
        let object = world.object.as_mut().unwrap();
        change(object);
        object.has_finalizer = object.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        object.resource_version = version.to_string();
        facts.object = object.clone();
        true
    }

    fn block_storing(&mut self, world: &World) {
        let until = Some(self.now(world).monotonic.plus(SECOND));
        let (reason, message) = (Reason::SecretWriteFailed, "The Secret cannot be written.".to_owned());
        self.memory.store_blocked = Some(Block { reason, message, until });
    }
}

fn own_secret(name: &str, stored: &Secret, uid: &str) -> OwnSecret {
    OwnSecret {
        name: name.to_owned(),
        uid: stored.uid.clone(),
        resource_version: stored.version.to_string(),
        record: stored.record.clone().filter(|record| record.owner_uid == uid),
        value_sha256: stored.value.as_ref().map(|value| value_sha256(value.as_bytes())),
        tied: stored.owner.as_deref() == Some(uid),
        owned: stored.owned,
    }
}

fn reshape(secret: &mut Secret, facts: &Facts) {
    if let (Some(record), Ok(spec)) = (&mut secret.record, &facts.object.spec) {
        record.take_shape(spec);
    }
}

/// A step in words, for tables.
pub fn words(decision: &Plan) -> String {
    let issue = || decision.findings.issue.map_or("nothing", |reason| reason.as_str());
    match &decision.step {
        Step::Wait => "wait".to_owned(),
        Step::Preflight => format!("issue: {}", issue()),
        Step::WriteAttempt { intent, .. } => format!("attempt: {}", intent.reason.as_str()),
        Step::Mint(_) => "mint".to_owned(),
        Step::Store { record, .. } => format!("store {}", record.key_id),
        Step::WriteStatus(status) => {
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            format!("status: {}", ready.map_or("", |ready| &ready.reason))
        }
        Step::Revoke { key_id, reason } => format!("revoke {key_id}: {}", reason.as_str()),
        Step::AddFinalizer => "add the finalizer".to_owned(),
        Step::WriteRecord(record) => {
            let ids: Vec<&str> = record.previous.iter().map(|previous| previous.key_id.as_str()).collect();
            format!("record previous {}", ids.join(" "))
        }
        Step::MoveSecret { from } => format!("move {from}"),
        Step::DeleteSecret { name, .. } => format!("delete {name}"),
        Step::Reshape => "reshape".to_owned(),
        Step::RestartWorkloads => "restart".to_owned(),
        Step::ReleaseSecret { name } => format!("release {name}"),
        Step::DropFinalizer { staying } if staying.is_empty() => "drop the finalizer".to_owned(),
        Step::DropFinalizer { staying } => format!("drop the finalizer, leaving {}", staying.join(" ")),
    }
}

/// An empty spec: a key that never expires.
pub fn plain() -> serde_json::Value {
    json!({})
}
