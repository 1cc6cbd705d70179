//! A world without a network: the API server's object and Secrets, Boltz's keys, and processes that observe, plan and
//! execute against them by the operator's own pure functions, in virtual time and with faults where a test wants them.
//!
//! `api_server.rs` and `boltz.rs` stand in for the two servers, `process.rs` for the operator's controller, `executor.rs`
//! for its executor; `faults.rs` has what can go wrong, `promises.rs` what must hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod boltz;
mod executor;
mod faults;
mod kubernetes;
mod overlaps;
mod process;
mod promises;
mod reached;
mod words;

pub use boltz::{Key, key_id, key_value};
pub use faults::{Crashed, Fault};
pub use kubernetes::Secret;
pub use overlaps::{Delivery, Left};
pub use process::{Next, Process};
pub use reached::{Milestone, Reached};
pub use words::{is_mint, is_store, plain, words};

use boltz_operator::plan::{Answer, Doubt, ObjectFacts, Rollout, Settings, Step, later};
use faults::Late;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// 2026-11-24T00:00:00Z.
const START: Timestamp = Timestamp::constant(1_795_478_400, 0);
pub const UID: &str = "550e8400-e29b-41d4-a716-446655440000";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub posts: usize,
    pub object_writes: usize,
    pub secret_writes: usize,
    pub status_writes: usize,
    pub passes: usize,
    /// Calls to the API server, reads included.
    pub api_calls: usize,
    /// POSTs and revocations.
    pub boltz_calls: usize,
}

/// What Boltz's list shows in place of its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Lie {
    #[default]
    None,
    Empty,
    /// As they were once.
    Old(Vec<Key>),
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
    /// The list shows every key as inactive.
    pub list_shows_inactive: bool,
    pub list_lies: Lie,
    /// What the passes do not prove.
    pub doubt: Doubt,
    /// Between two passes that nothing asked for.
    pub inventory_interval: Duration,
    /// What a workload shows after a restart.
    pub rollout: Rollout,
    /// The workloads that were restarted: for which key, and what they show.
    pub workloads: BTreeMap<String, (String, Rollout)>,
    /// Secrets of nobody consent to be adopted.
    pub secrets_consent: bool,
    /// The operator may not list the objects of all namespaces.
    pub objects_are_hidden: bool,
    /// With another admin key the operator does not believe the proofs that it made before.
    pub admin_key: u32,
    /// Which object holds which key because it adopted the Secret that the value was in.
    pub adopted: BTreeSet<(String, String)>,
    /// What must never be, and was.
    pub violation: Option<String>,
    pub reached: Reached,
    /// The keys that Secrets held.
    pub deliveries: Vec<Delivery>,
    /// The overlaps that the spec asked for, and since when.
    overlaps: Vec<(Duration, Duration)>,
    /// Since when the object is paused.
    paused_since: Option<Duration>,
    last_clock_error: i64,
    stepped_forward: Duration,
    /// Also those that were taken away.
    keys_made: usize,
    late: Vec<(Duration, Late)>,
    versions: u64,
    /// The steps that were answered and their answers, if somebody wants to know.
    pub told: Option<Vec<(&'static str, &'static str)>>,
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
            list_shows_inactive: false,
            list_lies: Lie::None,
            doubt: Doubt::None,
            inventory_interval: 10 * MINUTE,
            rollout: Rollout::Done(30 * SECOND),
            workloads: BTreeMap::new(),
            secrets_consent: false,
            objects_are_hidden: false,
            admin_key: 1,
            adopted: BTreeSet::new(),
            violation: None,
            reached: Reached::default(),
            deliveries: Vec::new(),
            overlaps: Vec::new(),
            paused_since: None,
            last_clock_error: 0,
            stepped_forward: Duration::ZERO,
            keys_made: 0,
            late: Vec::new(),
            versions: 0,
            told: None,
        };
        world.create(UID, spec);
        world
    }

    /// A world with a Ready object, and the process that made it so.
    pub fn ready(spec: serde_json::Value) -> (Self, Process) {
        let mut world = Self::with(spec);
        let mut process = Process::start(&world);
        process.run_until_idle(&mut world);
        assert_eq!(world.ready_reason(), "Issued");
        (world, process)
    }

    /// The same, rotated once: `key-1` is in its overlap.
    pub fn rotated(spec: serde_json::Value) -> (Self, Process) {
        let (mut world, mut process) = Self::ready(spec);
        world.edit(|object| object.rotate = Some("1".to_owned()));
        process.run_until_idle(&mut world);
        assert_eq!(world.record().key_id, "key-2");
        (world, process)
    }

    /// What proves to an operator with this admin key that the object adopted that key.
    pub fn proof(&self, uid: &str, key_id: &str) -> String {
        format!("{} says that {uid} adopted {key_id}", self.admin_key)
    }

    pub(crate) fn tell(&mut self, step: &Step, answer: &Answer) {
        if let Some(told) = &mut self.told {
            told.push((step.into(), answer.into()));
        }
    }

    pub(crate) fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    pub fn changes(&self) -> u64 {
        self.versions
    }

    /// Something happened that has no version of its own.
    pub fn mark_changed(&mut self) {
        self.versions += 1;
    }

    /// The time that no clock error changes.
    pub fn true_time(&self) -> Timestamp {
        later(START, self.elapsed)
    }

    /// What the operator's clock says.
    pub(crate) fn wall(&self) -> Timestamp {
        self.true_time().checked_add(jiff::SignedDuration::from_secs(self.clock_error)).unwrap()
    }
}
