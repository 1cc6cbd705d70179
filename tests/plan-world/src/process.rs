//! One process of the operator: what it sees, what it decides, and when it wakes up.

use crate::{Crashed, Fault, Key, Lie, MINUTE, SECOND, World, kubernetes::own_secret};
use boltz_operator::{
    plan::{
        AccountFacts, Adoptable, Answer, Block, DefaultAccount, Doubt, Facts, Found, ListedKey, Monotonic,
        Now, Pass, Plan, ProcessMemory, Proof, RevokeReason, SecretFacts, Slot, Step, Trouble, later, plan,
    },
    protocol::{
        account_name::AccountName,
        marker::{AttemptId, ObjectMark},
    },
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// More rounds than a process needs between two periodic passes: one that comes here spins.
const MOST_ROUNDS: u32 = 400;
/// More steps than any chain of decisions has.
const MOST_STEPS: usize = 64;

/// What follows a decision that has been carried out.
pub enum Next {
    /// There is nothing to do now.
    Idle(Box<Plan>),
    /// Another decision, by what the answer showed.
    Decide,
    /// The object is gone.
    Gone,
}

/// What a process sees of Boltz: one pass over the list.
#[derive(Clone, Debug)]
struct Listing {
    started: Duration,
    started_at: Timestamp,
    keys: Vec<Key>,
    doubt: Doubt,
    organization: Option<String>,
}

/// What an operator loses when it ends: its memory, and how late its caches are.
#[derive(Clone, Debug)]
pub struct Process {
    pub started: Duration,
    /// Makes its attempts' ids differ from another's.
    pub(crate) seed: u64,
    pub(crate) attempts: u64,
    /// Of the object with this UID.
    pub memory: ProcessMemory,
    uid: Option<String>,
    /// The account that it uses, whatever its name is.
    pub account: AccountFacts,
    /// That of an object that names none.
    pub default_account: DefaultAccount,
    listings: VecDeque<Listing>,
    pub(crate) values: BTreeMap<AttemptId, String>,
    /// From 0 to 1: how much shorter it waits after a failure.
    pub jitter: f64,
    /// What its caches show, when they lag behind.
    pub stale: Option<Box<World>>,
}

fn listed(key: &Key) -> ListedKey {
    ListedKey {
        id: key.id.clone(),
        attempt: key.attempt.clone(),
        prefix: String::new(),
        is_active: !key.revoked,
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
    }
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
            memory: ProcessMemory::default(),
            uid: None,
            account: AccountFacts::default(),
            default_account: DefaultAccount::default(),
            listings: VecDeque::new(),
            values: BTreeMap::new(),
            jitter: 0.0,
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
        let shown = match &world.list_lies {
            Lie::None => world.keys.as_slice(),
            Lie::Empty => &[],
            Lie::Old(keys) => keys.as_slice(),
        };
        let mut keys: Vec<Key> =
            shown.iter().filter(|key| later(key.created_at, lag) <= listed_until).cloned().collect();
        keys.iter_mut().for_each(|key| key.revoked |= world.list_shows_inactive);
        let (started, started_at) = (world.elapsed, world.wall());
        // As the fuse sees it: all keys are missing, and they are few.
        let doubt = if world.list_lies == Lie::Empty { Doubt::All } else { world.doubt };
        let organization = self.account.organization.clone();
        self.listings.push_front(Listing { started, started_at, keys, doubt, organization });
        self.listings.truncate(2);
    }

    /// What the process knows: by its caches, or `live` from the API server itself.
    pub fn facts(&mut self, world: &World, live: bool) -> Option<Facts> {
        let seen = if live { world } else { self.stale.as_deref().unwrap_or(world) };
        let object = seen.object.clone()?;
        let found = |(name, stored): (&String, &crate::Secret)| {
            let is_ours = stored.owner.as_deref() == Some(&object.uid);
            let is_adoptable = live && seen.secrets_consent && !stored.owned && object.wants_to_adopt();
            let own = || own_secret(name, stored, &object.uid);
            let found = match is_ours {
                true => Found::Ours(Box::new(own())),
                false if is_adoptable => Found::Adoptable(Box::new(Adoptable {
                    secret: own(),
                    record: stored.record.clone(),
                    is_owner_gone: !seen.objects_are_hidden,
                    listed: None,
                    proof: None,
                })),
                false => Found::Foreign("The Secret belongs to somebody else.".to_owned()),
            };
            (name.clone(), found)
        };
        let secrets = seen.secrets.iter().map(found).collect();
        let mut facts = Facts::assemble(object, secrets, live);
        self.refresh(world, &mut facts);
        Some(facts)
    }

    /// When its newest pass was begun.
    pub fn last_pass(&self) -> Option<Duration> {
        self.listings.front().map(|listing| listing.started)
    }

    /// What tells two moments of it apart, its caches and lists aside. Seed and count only make new names.
    pub fn told(&self) -> String {
        let Self {
            started,
            seed: _,
            attempts: _,
            memory,
            account,
            default_account: _,
            listings: _,
            values,
            jitter: _,
            stale: _,
            uid,
        } = self;
        let paused_until = account.calls_blocked.as_ref().and_then(|block| block.until);
        format!("{started:?} {memory:?} {uid:?} {:?} {paused_until:?} ", values.keys())
    }

    /// Its lists of keys, and when it began to read them.
    pub fn lists(&self) -> impl Iterator<Item = (Duration, &[Key])> {
        self.listings.iter().map(|listing| (listing.started, listing.keys.as_slice()))
    }

    fn refresh(&mut self, world: &World, facts: &mut Facts) {
        facts.memory = self.memory.clone();
        let chosen = facts.choose_account(&self.default_account);
        facts.account = AccountFacts {
            is_absent: chosen.name.is_none() || self.account.is_absent,
            name: chosen.name.unwrap_or_else(|| AccountName::named("")),
            stays: chosen.stays,
            calls_blocked: chosen.blocked.or(self.account.calls_blocked.clone()),
            ..self.account.clone()
        };
        facts.apply_account_policy();
        let mark = ObjectMark::from_uid(&facts.object.uid);
        let named: Vec<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
        let adopted: Vec<String> = facts
            .adopted_keys()
            .filter(|(id, proof)| *proof == world.proof(&facts.object.uid, id))
            .map(|(id, _)| id.to_owned())
            .collect();
        let is_own = |key: &&Key| key.object == mark || adopted.contains(&key.id);
        facts.passes = self
            .listings
            .iter()
            .filter(|listing| listing.organization == self.account.organization)
            .map(|listing| Pass {
                started: Monotonic(listing.started - self.started),
                started_at: listing.started_at,
                keys: listing.keys.iter().filter(is_own).map(listed).collect(),
                under_other_names: listing
                    .keys
                    .iter()
                    .filter(|key| !is_own(key) && named.contains(&key.id))
                    .map(|key| key.id.clone())
                    .collect(),
                doubt: listing.doubt,
            })
            .collect();
        self.memory.learn(facts, &world.settings, self.now(world));
        facts.memory = self.memory.clone();
        let uid = facts.object.uid.clone();
        if let SecretFacts::Adoptable(found) = &mut facts.secret
            && let Some(record) = &found.record
        {
            let owner = ObjectMark::from_uid(&record.owner_uid);
            let mut keys = self.listings.front().into_iter().flat_map(|listing| &listing.keys);
            let key = keys.find(|key| key.id == record.key_id && key.object == owner && !key.revoked);
            found.listed = key.map(listed);
            found.proof = Some(world.proof(&uid, &record.key_id));
        }
    }

    /// The decision now, by what the caches show.
    pub fn decide(&mut self, world: &World) -> Plan {
        let facts = self.facts(world, false).unwrap();
        plan(&facts, &world.settings, self.now(world))
    }

    /// The decision now, after a live read.
    pub fn decide_live(&mut self, world: &World) -> Plan {
        let facts = self.facts(world, true).unwrap();
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
        let Some(mut facts) = self.facts(world, false) else { return Ok(self.on_object_missing(world)) };
        self.remember_only(world, &facts.object.uid);
        let mut steps = Vec::new();
        for _ in 0..MOST_STEPS {
            let next = self.step(world, &mut facts, &mut |step| {
                steps.push(<&str>::from(step));
                fault(step)
            })?;
            if let Next::Idle(decision) = next {
                return Ok(Some(*decision));
            }
            world.assert_the_delivered_key_lives();
            assert_eq!(world.violation, None);
            if let Next::Gone = next {
                return Ok(self.on_object_gone(world, &facts));
            }
        }
        panic!("a chain of decisions without end: {steps:?}");
    }

    /// The operator has a memory for each UID.
    fn remember_only(&mut self, world: &mut World, uid: &str) {
        if self.uid.as_ref().is_some_and(|known| known != uid) {
            self.on_object_missing(world);
            self.memory = ProcessMemory::default();
            self.values.clear();
        }
        self.uid = Some(uid.to_owned());
    }

    /// Decides, and carries out one step.
    pub fn step(
        &mut self,
        world: &mut World,
        facts: &mut Facts,
        fault: &mut dyn FnMut(&Step) -> Option<Fault>,
    ) -> Result<Next, Crashed> {
        let decision = self.decide_on(world, facts);
        if decision.step == Step::Wait {
            self.assert_quiet(world, facts, &decision);
            return Ok(Next::Idle(Box::new(decision)));
        }
        let fault = fault(&decision.step);
        let (answer, shown) = self.execute(world, facts, &decision.step, fault)?;
        world.tell(&decision.step, &answer);
        let now = self.now(world);
        let effects = self.memory.apply(&decision.step, answer, facts, now, &world.settings, self.jitter);
        facts.absorb(&decision.step, self.memory.must_read, shown);
        let in_hand: Vec<&AttemptId> = self.memory.in_hand().map(|(attempt, _)| attempt).collect();
        self.values.retain(|attempt, _| in_hand.contains(&attempt));
        Ok(if effects.is_gone { Next::Gone } else { Next::Decide })
    }

    /// The controller does not reconcile a quiet object after a pass that shows the same keys of it.
    fn assert_quiet(&self, world: &World, facts: &Facts, decision: &Plan) {
        if !facts.is_quiet(&world.settings, decision) {
            return;
        }
        let (mut later, now) = (facts.clone(), self.now(world));
        later
            .passes
            .insert(0, Pass { started: now.monotonic, started_at: now.wall, ..facts.passes[0].clone() });
        later.passes.truncate(2);
        let mut memory = self.memory.clone();
        memory.learn(&mut later, &world.settings, now);
        later.memory = memory;
        assert_eq!(plan(&later, &world.settings, now), *decision, "a pass matters to a quiet object");
    }

    /// Something went wrong in that slot, and it waits.
    pub fn block(&mut self, slot: Slot, block: Block) {
        self.memory.troubles.insert(slot, Trouble::new(block));
    }

    /// The object is gone: the keys that only this process knows of are revoked.
    pub fn on_object_gone(&mut self, world: &mut World, facts: &Facts) -> Option<Plan> {
        for key_id in self.memory.unreported_keys(!facts.object.owns_its_secret()) {
            world.revoke_unnamed(&key_id);
            let step = Step::Revoke { key_id, reason: RevokeReason::NotStored };
            world.tell(&step, &Answer::Done);
            let now = self.now(world);
            self.memory.apply(&step, Answer::Done, facts, now, &world.settings, self.jitter);
        }
        None
    }

    /// The same, when no cache shows the object any more.
    pub fn on_object_missing(&mut self, world: &mut World) -> Option<Plan> {
        for key_id in self.memory.unreported_keys(false) {
            world.revoke_unnamed(&key_id);
            self.memory.mark_revoked(&key_id, self.now(world).monotonic, Proof::Response);
            world.tell(&Step::Revoke { key_id, reason: RevokeReason::NotStored }, &Answer::Done);
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
    pub fn run_until_idle(&mut self, world: &mut World) {
        let until = world.elapsed + 20 * MINUTE;
        self.live_until(world, until);
    }
}
