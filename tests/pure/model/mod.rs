//! The protocol as a model: every interleaving of processes, faults, users and time within a bound, explored to the end.
//!
//! A state is the [`World`] and what each process holds between two of its calls. Decisions are the operator's own
//! `plan`; nothing of the protocol is written a second time here.

mod actor;
mod digest;
mod spaces;
mod user;

use actor::{Actor, Phase};
use boltz_operator::{
    plan::{Slot, Step},
    protocol::{ledger::MAX_ENTRIES, marker::AttemptId, record::MAX_PREVIOUS},
};
use plan_world::{Fault, HOUR, Key, Lie, MINUTE, Milestone, Process, Reached, SECOND, World};
use stateright::{Model, Property};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use user::User;

/// A late effect comes at one of these times: within the window, and at the end of the settle time.
const LATE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(119)];
/// How long a paused process sleeps while nothing else happens: past its window, and until its attempt is settled.
const NAP: Duration = Duration::from_secs(100);
/// How old a frozen cache may become: past every wait but those for a periodic pass.
const LONGEST_FREEZE: Duration = Duration::from_secs(15 * 60);
/// A call is made once, once more after a conflict, and once more when two things ask for it.
const MOST_REPEATS: u8 = 3;
/// How long a fault stands.
const STANDING: Duration = Duration::from_secs(2 * 3600);
/// The longest wait after a failure: storing a key that is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

/// The bounds of one space.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub operators: usize,
    pub spec: serde_json::Value,
    /// The object is Ready when it begins.
    pub is_ready: bool,
    /// Crashes, lost answers, late effects and refusals.
    pub faults: u8,
    /// Times that a process's caches freeze.
    pub freezes: u8,
    /// Times that a process is paused.
    pub pauses: u8,
    /// Passes over the list that nothing asked for.
    pub passes: u8,
    pub users: Vec<User>,
    pub list_lag: Duration,
    /// Calls of that slot go wrong so, for the first two hours.
    pub standing: Option<(Slot, Fault)>,
    /// It is explored up to that time only: something happens for ever.
    pub ends: Option<Duration>,
    /// How long everything may take, when nothing goes wrong and nobody does anything.
    pub longest: Duration,
    /// The most POSTs and writes of any path.
    pub most: Most,
    pub seen: Arc<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    pub posts: usize,
    pub writes: usize,
}

/// What was seen over all of a space. No part of any state.
#[derive(Debug, Default)]
pub struct Seen {
    reached: AtomicU32,
    posts: AtomicUsize,
    writes: AtomicUsize,
    seconds: AtomicU64,
}

impl Seen {
    fn look_at(&self, state: &State) {
        let mut reached = state.world.reached;
        if state.is_quiescent() && state.what_is_wrong().is_none() {
            reached.insert(Milestone::Rested);
            if reached.contains(Milestone::Struck) || reached.contains(Milestone::Crashed) {
                reached.insert(Milestone::Recovered);
            }
        }
        self.reached.fetch_or(reached.0, Ordering::Relaxed);
        self.posts.fetch_max(state.world.counts.posts, Ordering::Relaxed);
        self.writes.fetch_max(state.writes(), Ordering::Relaxed);
        self.seconds.fetch_max(state.world.elapsed.as_secs(), Ordering::Relaxed);
    }

    pub fn reached(&self) -> Reached {
        Reached(self.reached.load(Ordering::Relaxed))
    }

    pub fn most(&self) -> Most {
        Most { posts: self.posts.load(Ordering::Relaxed), writes: self.writes.load(Ordering::Relaxed) }
    }

    pub fn latest(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            operators: 1,
            spec: serde_json::json!({"rotation": {"overlap": "10m"}}),
            is_ready: false,
            faults: 0,
            freezes: 0,
            pauses: 0,
            passes: 0,
            users: Vec::new(),
            list_lag: Duration::ZERO,
            standing: None,
            ends: None,
            longest: HOUR,
            most: Most { posts: usize::MAX, writes: usize::MAX },
            seen: Arc::default(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct State {
    pub world: World,
    pub actors: Vec<Actor>,
    faults: u8,
    freezes: u8,
    pauses: u8,
    passes: u8,
    /// What users may still do.
    users: Vec<User>,
    /// Processes that were ever started.
    starts: u64,
    pub backup: Option<Box<World>>,
    /// A user did something whose consequence the protocol documents as a residue: keys of these attempts are orphans.
    pub orphaned: Vec<AttemptId>,
    /// An admission webhook takes the operator's marks out of Secrets.
    pub has_webhook: bool,
    /// The object was deleted with `Retain`: its Secret stays.
    pub is_retained: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A process takes its next step, which may go wrong.
    Step(usize, Option<Fault>),
    /// A process dies and another one starts.
    Crash(usize),
    /// A process reads Boltz's list.
    Pass(usize),
    /// A process's caches freeze, or catch up.
    Freeze(usize),
    Thaw(usize),
    /// A process is paused, or wakes up.
    Pause(usize),
    Resume(usize),
    /// Everybody waits: the next thing happens that has a time.
    Wait,
    User(User),
}

impl State {
    /// Writes to the API server.
    fn writes(&self) -> usize {
        let counts = &self.world.counts;
        counts.object_writes + counts.status_writes + counts.secret_writes
    }

    /// A Secret of a living object holds a key that has expired.
    fn holds_an_expired_key(&self) -> bool {
        let Some(object) = self.world.object.as_ref().filter(|object| !object.deleting) else { return false };
        let values =
            self.world.secrets.values().filter(|secret| secret.owner.as_deref() == Some(&object.uid));
        values.filter_map(|secret| secret.value.as_ref()).any(|value| {
            let key = self.world.keys.iter().find(|key| key.value == *value);
            key.and_then(|key| key.expires_at).is_some_and(|expires_at| expires_at <= self.world.true_time())
        })
    }

    fn can_sleep(&self) -> bool {
        self.actors.iter().all(|actor| actor.paused || actor.is_idle(&self.world))
    }

    /// Caches that are as old as they may become catch up before time goes on.
    fn has_to_thaw(&self) -> bool {
        let stale = self.actors.iter().filter_map(|actor| actor.process.stale.as_ref());
        stale.map(|seen| seen.elapsed).any(|frozen_at| self.world.elapsed >= frozen_at + LONGEST_FREEZE)
    }

    /// A webhook or a lie of the list lasts until it is ended, for two hours at most.
    fn is_to_be_cured(&self) -> bool {
        self.has_webhook || self.world.list_lies != Lie::None
    }

    /// When the next thing happens by itself.
    fn next_event(&self) -> Option<Duration> {
        let wakes = self.actors.iter().filter(|actor| !actor.paused).filter_map(Actor::wakes_at);
        let cure = self.is_to_be_cured().then_some(STANDING);
        let next = wakes.chain(self.world.next_late_at()).chain(cure).min();
        next.or_else(|| {
            // The periodic pass, as long as it would show something new.
            self.actors
                .iter()
                .any(|actor| !actor.paused && actor.can_pass(&self.world))
                .then(|| self.world.elapsed + self.world.inventory_interval)
        })
    }

    /// Nothing will happen any more, whatever time passes.
    fn is_quiescent(&self) -> bool {
        self.can_sleep()
            && self.next_event().is_none()
            && self.actors.iter().all(|actor| !actor.paused && actor.process.stale.is_none())
    }

    /// The keys of the objects that we look after, as far as Boltz takes them.
    fn own_active(&self) -> impl Iterator<Item = &Key> {
        self.world.keys.iter().filter(|key| !key.revoked && !user::is_of_another(key))
    }

    /// Every live key is accounted for: by a record, status, ledger, or the process that holds it.
    fn unaccounted(&self) -> Option<&Key> {
        let object = self.world.object.as_ref();
        self.own_active().find(|key| {
            let recorded = self
                .world
                .secrets
                .values()
                .filter_map(|secret| secret.record.as_ref())
                .any(|record| record.names(&key.id));
            let object = object.filter(|object| user::mark_of(object) == key.object);
            let known = object.is_some_and(|object| {
                object.status.names(&key.id) || object.ledger.may_contain(&key.attempt)
            });
            let held = self.actors.iter().any(|actor| actor.process.memory.minted(&key.id).is_some());
            !(recorded || known || held || self.orphaned.contains(&key.attempt))
        })
    }

    /// More than there may be: one key for each attempt, the current one, four previous ones, and one for each attempt
    /// whose fate is not known.
    fn is_excessive(&self) -> bool {
        let mut attempts: Vec<&AttemptId> = self.world.keys.iter().map(|key| &key.attempt).collect();
        attempts.sort();
        let is_one_each = attempts.is_sorted_by(|one, next| one < next);
        let Some(object) = &self.world.object else { return !is_one_each };
        let records: Vec<_> =
            self.world.secrets.values().filter_map(|secret| secret.record.as_ref()).collect();
        let ledger = &object.ledger.entries;
        let is_named = |key: &Key| records.iter().any(|record| record.names(&key.id));
        let (named, others): (Vec<&Key>, Vec<&Key>) = self
            .own_active()
            .filter(|key| user::mark_of(object) == key.object && !self.orphaned.contains(&key.attempt))
            .partition(|key| is_named(key));
        !is_one_each
            || named.len() > 1 + MAX_PREVIOUS
            || ledger.len() > MAX_ENTRIES
            || object.ledger.forgery.is_none()
                && others.len()
                    > ledger
                        .iter()
                        .filter(|entry| named.iter().all(|key| key.attempt != entry.attempt))
                        .count()
    }

    /// What is wrong although every process is idle.
    fn what_is_wrong(&self) -> Option<String> {
        let active: Vec<&str> = self.own_active().map(|key| key.id.as_str()).collect();
        let is_orphan = |id: &&&str| {
            self.world.keys.iter().any(|key| key.id == **id && self.orphaned.contains(&key.attempt))
        };
        let Some(object) = &self.world.object else {
            if self.is_retained && !self.world.secrets.contains_key("key") {
                return Some("the Secret that was to be retained is gone".to_owned());
            }
            let id = active.iter().find(|id| !is_orphan(id))?;
            return Some(format!("the object is gone, but {id} lives"));
        };
        if object.deleting {
            return Some("the deletion does not end".to_owned());
        }
        if object.ledger.forgery.is_some() {
            return Some("the forged ledger stays".to_owned());
        }
        let others = self.world.secrets.iter().filter(|(name, _)| *name != object.secret_name());
        if let Some((name, _)) = others.clone().find(|(_, secret)| secret.owner.as_ref() == Some(&object.uid))
        {
            return Some(format!("the old Secret {name} stays"));
        }
        let Some(secret) = self.world.secrets.get(object.secret_name()) else {
            let wants_no_key = object.is_paused || object.spec.as_ref().is_ok_and(|spec| spec.suspend);
            let is_good = wants_no_key && active.iter().all(|id| is_orphan(&id) || object.status.names(id));
            return (!is_good).then(|| format!("there is no Secret, and {active:?} are active"));
        };
        let Some(record) = &secret.record else { return Some("the Secret has no record".to_owned()) };
        let held = self.world.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref());
        let mut unnamed = active.iter().filter(|id| !record.names(id) && !is_orphan(id));
        if !active.contains(&record.key_id.as_str()) {
            Some(format!("the record names {}, but {active:?} live", record.key_id))
        } else if held.map(|key| &key.id) != Some(&record.key_id) {
            Some(format!(
                "the Secret holds {:?}, its record names {}",
                held.map(|key| &key.id),
                record.key_id
            ))
        } else if object.status.key_id.as_ref() != Some(&record.key_id) {
            Some(format!("status names {:?}, the record {}", object.status.key_id, record.key_id))
        } else {
            unnamed.next().map(|id| format!("{id} is active, and nothing names it"))
        }
    }

    fn start_process(&mut self) -> Actor {
        self.starts += 1;
        Actor::new(Process::start_other(&self.world, self.starts))
    }
}

impl Protocol {
    /// Nothing takes longer to become idle: each thing that goes wrong or is asked for may cost the longest wait, the time in
    /// which an attempt settles, a periodic pass and an overlap.
    fn longest(&self) -> Duration {
        let things = u32::from(self.faults + self.freezes + self.pauses + self.passes);
        let things = things + self.users.len() as u32;
        let lasting = [User::InstallsAWebhook, User::EmptiesTheList, User::FreezesTheList];
        let lasts = lasting.iter().any(|user| self.users.contains(user));
        let stands = if self.standing.is_some() || lasts { STANDING + LONGEST_WAIT } else { Duration::ZERO };
        let is_set_back = self.users.contains(&User::StepsTheClockBack);
        let back = if is_set_back { user::STEP.unsigned_abs() } else { 0 };
        self.longest + stands + things * 40 * MINUTE + Duration::from_secs(back)
    }

    /// What goes wrong now with every call of a kind.
    fn standing(&self, state: &State) -> Vec<(Slot, Fault)> {
        let standing = self.standing.clone().filter(|_| state.world.elapsed < STANDING);
        let of_webhook =
            [Slot::Preflight, Slot::Store, Slot::Record, Slot::Shape].map(|slot| (slot, Fault::Undone));
        let of_webhook = of_webhook.into_iter().filter(|_| state.has_webhook);
        standing.into_iter().chain(of_webhook).collect()
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut world = World::with(self.spec.clone());
        if self.is_ready {
            Process::start_other(&world, 1000).run_until_idle(&mut world);
            world.assert_good();
            assert_eq!(world.ready_reason(), "Issued");
            world.counts = Default::default();
            world.reached = Reached::default();
        }
        world.list_lag = self.list_lag;
        user::add_foreign_keys(&mut world);
        let mut state = State {
            world,
            actors: Vec::new(),
            faults: self.faults,
            freezes: self.freezes,
            pauses: self.pauses,
            passes: self.passes,
            users: self.users.clone(),
            starts: 0,
            backup: None,
            orphaned: Vec::new(),
            has_webhook: false,
            is_retained: false,
        };
        for _ in 0..self.operators {
            let actor = state.start_process();
            state.actors.push(actor);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.world.violation.is_some() {
            return;
        }
        for (index, actor) in state.actors.iter().enumerate() {
            if actor.paused {
                actions.push(Action::Resume(index));
                continue;
            }
            let is_idle = actor.is_idle(&state.world);
            if !is_idle && !actor.waits_for_a_pass(&state.world) {
                actions.push(Action::Step(index, None));
                if state.faults > 0 {
                    let faults = actor.faults(&state.world);
                    actions.extend(faults.into_iter().map(|fault| Action::Step(index, Some(fault))));
                }
            }
            if actor.waits_for_a_pass(&state.world) || (state.passes > 0 && actor.can_pass(&state.world)) {
                actions.push(Action::Pass(index));
            }
            if state.faults > 0 && !actor.is_fresh() {
                actions.push(Action::Crash(index));
            }
            if actor.process.stale.is_some() {
                actions.push(Action::Thaw(index));
            } else if state.freezes > 0 {
                actions.push(Action::Freeze(index));
            }
            if state.pauses > 0 && matches!(actor.phase, Phase::Observed(_)) {
                actions.push(Action::Pause(index));
            }
        }
        let naps = state.actors.iter().any(|actor| actor.paused && actor.naps < 4);
        if state.can_sleep() && !state.has_to_thaw() && (state.next_event().is_some() || naps) {
            actions.push(Action::Wait);
        }
        for (index, user) in state.users.iter().enumerate() {
            if !state.users[..index].contains(user) && user.can_act(state) {
                actions.push(Action::User(*user));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step(index, fault) => {
                if fault.is_some() {
                    state.faults -= 1;
                }
                let standing = self.standing(&state);
                let State { world, actors, pauses, passes, .. } = &mut state;
                let can_be_disturbed = *pauses + *passes > 0;
                if actors[index].step(world, fault, &standing, can_be_disturbed).is_err() {
                    state.actors[index] = state.start_process();
                }
            }
            Action::Crash(index) => {
                state.faults -= 1;
                state.world.reached.insert(Milestone::Crashed);
                state.actors[index] = state.start_process();
            }
            Action::Pass(index) => {
                let State { world, actors, passes, .. } = &mut state;
                if !actors[index].waits_for_a_pass(world) {
                    *passes -= 1;
                }
                actors[index].take_pass(world);
            }
            Action::Freeze(index) => {
                state.freezes -= 1;
                state.actors[index].process.stale = Some(Box::new(state.world.clone()));
            }
            Action::Thaw(index) => state.actors[index].thaw(),
            Action::Pause(index) => {
                state.pauses -= 1;
                state.actors[index].paused = true;
            }
            Action::Resume(index) => state.actors[index].paused = false,
            Action::Wait => {
                let nap = state.world.elapsed + NAP;
                let naps = state.actors.iter().any(|actor| actor.paused);
                let next = state.next_event().unwrap_or(nap);
                let next = if naps { next.min(nap) } else { next };
                state.world.advance_to(next);
                if state.is_to_be_cured() && state.world.elapsed >= STANDING {
                    state.has_webhook = false;
                    state.world.list_lies = Lie::None;
                    state.world.mark_changed();
                }
                for actor in &mut state.actors {
                    actor.slept(&state.world);
                }
            }
            Action::User(user) => {
                let index = state.users.iter().position(|known| *known == user)?;
                state.users.remove(index);
                user.act(&mut state, &self.spec);
                state.world.follow_users();
                state.actors.iter_mut().for_each(Actor::forget_calls);
            }
        }
        self.seen.look_at(&state);
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        self.ends.is_none_or(|ends| state.world.elapsed < ends)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no key is revoked that a live Secret holds, none is touched that is not ours",
                |_, state: &State| state.world.violation.is_none(),
            ),
            Property::always("every live key is accounted for", |_, state: &State| {
                state.unaccounted().is_none()
            }),
            Property::always("no more keys are active than there may be", |_, state: &State| {
                !state.is_excessive()
            }),
            Property::always("when idle, all is good", |_, state: &State| {
                !state.is_quiescent() || state.what_is_wrong().is_none()
            }),
            Property::always("it becomes idle", |model: &Protocol, state: &State| {
                model.ends.is_some() || state.world.elapsed < model.longest()
            }),
            Property::always("no Secret holds an expired key", |_, state: &State| {
                !state.holds_an_expired_key()
            }),
            Property::always("no call is repeated without time passing", |_, state: &State| {
                state.actors.iter().all(|actor| actor.repeats() <= MOST_REPEATS)
            }),
            Property::always("no more writes than needed", |model: &Protocol, state: &State| {
                state.writes() <= model.most.writes
            }),
            Property::always("no more POSTs than needed", |model: &Protocol, state: &State| {
                state.world.counts.posts <= model.most.posts
            }),
        ]
    }
}

/// Faults that a step can meet; a crash before it is an action of its own.
pub fn faults_of(step: &Step) -> Vec<Fault> {
    match step {
        Step::Wait => Vec::new(),
        Step::Mint(_) | Step::Store { .. } => {
            let late = LATE.into_iter().map(Fault::Late);
            [Fault::CrashAfter, Fault::Cut, Fault::Lost, Fault::Refused].into_iter().chain(late).collect()
        }
        Step::Preflight => vec![Fault::Refused],
        Step::Revoke { .. } => vec![Fault::CrashAfter, Fault::Lost, Fault::Refused],
        _ => vec![Fault::CrashAfter, Fault::Cut, Fault::Lost],
    }
}

/// Wishes for passes at nearly the same time become one, as in the inventory.
pub const SPACING: Duration = SECOND.checked_div(2).unwrap();
