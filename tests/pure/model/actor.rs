//! One process of the model: what it holds between two of its calls.

use super::{SPACING, faults_of};
use boltz_operator::plan::{Facts, Monotonic, Plan, Slot, Step};
use plan_world::{Crashed, Fault, Next, Process, World, words};
use std::{collections::BTreeMap, time::Duration};

#[derive(Clone, Debug)]
pub struct Actor {
    pub process: Process,
    pub phase: Phase,
    pub paused: bool,
    /// How often time has passed while it was paused.
    pub naps: u8,
    /// The world's changes when it last began to read Boltz's list.
    listed: Option<u64>,
    /// The world's changes when it last looked.
    seen: Option<u64>,
    /// A pass has ended, or the time has come that it waited for.
    is_due: bool,
    /// How often it made each call since time has passed or a user did something.
    calls: BTreeMap<Slot, u8>,
}

/// Where it is in a reconciliation.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Between two.
    Idle { wake_at: Option<Duration>, pass_since: Option<Monotonic> },
    /// It has observed, and decides next.
    Observed(Box<Facts>),
}

impl Actor {
    pub fn new(process: Process) -> Self {
        let phase = Phase::Idle { wake_at: None, pass_since: Some(Monotonic::default()) };
        Self {
            process,
            phase,
            paused: false,
            naps: 0,
            listed: None,
            seen: None,
            is_due: true,
            calls: BTreeMap::new(),
        }
    }

    /// It has done nothing yet.
    pub fn is_fresh(&self) -> bool {
        self.seen.is_none()
    }

    pub fn is_due(&self, world: &World) -> bool {
        self.is_due || (self.process.stale.is_none() && self.seen != Some(world.changes()))
    }

    /// It waits for something to happen.
    pub fn is_idle(&self, world: &World) -> bool {
        matches!(self.phase, Phase::Idle { .. }) && !self.is_due(world) && !self.waits_for_a_pass(world)
    }

    /// A pass is wanted and may be begun.
    pub fn waits_for_a_pass(&self, world: &World) -> bool {
        let Phase::Idle { pass_since: Some(_), .. } = self.phase else { return false };
        !self.is_due(world) && self.process.last_pass().is_none_or(|last| world.elapsed >= last + SPACING)
    }

    /// A pass would show something that its last one did not.
    pub fn can_pass(&self, world: &World) -> bool {
        self.listed != Some(world.changes())
    }

    pub fn wakes_at(&self) -> Option<Duration> {
        let Phase::Idle { wake_at, pass_since } = self.phase else { return None };
        let pass = pass_since.and(self.process.last_pass()).map(|last| last + SPACING);
        wake_at.into_iter().chain(pass).min()
    }

    pub fn take_pass(&mut self, world: &mut World) {
        self.forget_calls();
        self.listed = Some(world.changes());
        self.process.take_pass(world);
        if let Phase::Idle { pass_since, .. } = &mut self.phase {
            *pass_since = None;
            self.is_due = true;
        }
    }

    /// The most often that it made one call without time passing; of reads, one after the other.
    pub fn repeats(&self) -> u8 {
        self.calls.values().copied().max().unwrap_or_default()
    }

    /// Something new happened, which may ask for the same calls again.
    pub fn forget_calls(&mut self) {
        self.calls.clear();
    }

    /// Time has passed.
    pub fn slept(&mut self, world: &World) {
        self.forget_calls();
        if self.paused {
            self.naps += 1;
        } else if let Phase::Idle { wake_at, pass_since } = &mut self.phase {
            if wake_at.is_some_and(|at| at <= world.elapsed) {
                *wake_at = None;
                self.is_due = true;
            } else if self
                .process
                .last_pass()
                .is_none_or(|last| world.elapsed >= last + world.inventory_interval)
            {
                pass_since.get_or_insert_default();
            }
        }
    }

    pub fn thaw(&mut self) {
        self.process.stale = None;
        self.is_due = true;
    }

    /// What it decides next.
    fn decision(&self, world: &World) -> Option<Plan> {
        let Phase::Observed(facts) = &self.phase else { return None };
        Some(self.process.clone().decide_on(world, &mut facts.clone()))
    }

    /// What it does next, in words.
    pub fn next_step(&self, world: &World) -> String {
        self.decision(world).map_or("reads".to_owned(), |decision| words(&decision))
    }

    /// What can go wrong with its next step.
    pub fn faults(&self, world: &World) -> Vec<Fault> {
        let Some(Plan { step, .. }) = self.decision(world) else { return Vec::new() };
        faults_of(&step)
    }

    /// Observes, or decides and carries out one step; and then what it does by itself, unless something may come between:
    /// that touches nothing that anybody else sees, so it makes no difference when it is done.
    pub fn step(
        &mut self,
        world: &mut World,
        fault: Option<Fault>,
        standing: &[(Slot, Fault)],
        can_be_disturbed: bool,
    ) -> Result<(), Crashed> {
        self.take_one(world, fault, standing)?;
        while !can_be_disturbed && self.goes_on_by_itself(world) {
            self.take_one(world, None, standing)?;
        }
        Ok(())
    }

    /// It becomes idle next.
    fn goes_on_by_itself(&self, world: &World) -> bool {
        self.decision(world).is_some_and(|Plan { step, .. }| step == Step::Wait)
    }

    fn take_one(
        &mut self,
        world: &mut World,
        fault: Option<Fault>,
        standing: &[(Slot, Fault)],
    ) -> Result<(), Crashed> {
        let idle = Phase::Idle { wake_at: None, pass_since: None };
        self.phase = match std::mem::replace(&mut self.phase, idle) {
            Phase::Idle { .. } => {
                self.is_due = false;
                self.seen = Some(world.changes());
                match self.process.facts(world, false) {
                    Some(facts) => Phase::Observed(Box::new(facts)),
                    None => self.object_missing(world),
                }
            }
            Phase::Observed(mut facts) => match self.process.step(world, &mut facts, &mut |step| {
                let slot = step.slot();
                // Each revocation has a read of its own.
                if slot != Some(Slot::Read) {
                    self.calls.remove(&Slot::Read);
                }
                if let Some(slot) = slot {
                    let calls = self.calls.entry(slot).or_default();
                    *calls = calls.saturating_add(1);
                }
                fault.or_else(|| {
                    let slot = step.slot()?;
                    standing.iter().find(|(stands, _)| *stands == slot).map(|(_, fault)| *fault)
                })
            })? {
                Next::Idle(decision) => Phase::Idle {
                    wake_at: decision.wake_at.map(|at| self.process.started + at.0),
                    pass_since: decision.pass_since,
                },
                Next::Decide => Phase::Observed(facts),
                Next::Gone => {
                    // Another object may have the name.
                    self.is_due = world.object.is_some();
                    self.process.on_object_gone(world, &facts);
                    Phase::Idle { wake_at: None, pass_since: None }
                }
            },
        };
        Ok(())
    }

    fn object_missing(&mut self, world: &mut World) -> Phase {
        self.process.on_object_missing(world);
        Phase::Idle { wake_at: None, pass_since: None }
    }
}
