//! The release 0.1.0 and this operator on one control plane: one after the other, and at the same time. What one of them
//! writes the other reads; neither asks for a needless key nor revokes one that is needed.
//!
//! `OBJECTS=100` takes more objects than the usual 20.

use crate::test_env::{EnvOptions, TestEnv, owned, record_of, this_operator};
use boltz_emulator::{Fault, Operation, StandingFault};
use boltz_harness::{OperatorProcess, skip};
use futures::future::{join, join_all};
use kube::api::ListParams;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The operator of 0.1.0; none, if the history that it is built from is not here.
fn release() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/release-0.1.0");
    let output = Command::new(script).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(77) => {
            skip(errors.trim());
            None
        }
        Some(0) => Some(String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()),
        code => panic!("{code:?}: {errors}"),
    }
}

fn count() -> usize {
    std::env::var("OBJECTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// Objects under test, and what may be asked for and revoked because of what was done to them.
struct Fleet {
    env: TestEnv,
    /// Of every second one the previous keys stay valid for an hour, of the others for a second.
    names: Vec<String>,
    /// The current key of each, at rest, and those before it whose overlap is an hour.
    keys: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Keys that may be revoked: their overlap is a second, or their object is deleted.
    may_go: BTreeSet<String>,
    /// The number of keys that were asked for.
    issued: usize,
    rotations: usize,
    /// POSTs whose key no process could store: there was no answer, or the process was killed.
    lost: usize,
}

/// How many objects are deleted while the others rotate.
const DELETED: usize = 4;
/// More keys than all objects ask for at once.
const ARGUMENTS: [&str; 2] = ["--max-mints-per-minute", "6000"];

impl Fleet {
    async fn new(env: TestEnv) -> Self {
        let names: Vec<String> = (0..count()).map(|number| format!("object-{number:03}")).collect();
        for name in &names {
            let overlap = if is_long(name) { "1h" } else { "1s" };
            env.create(name, json!({"rotation": {"overlap": overlap}, "expiresInDays": 90})).await;
        }
        // Calls to Boltz are under way long enough to be hit.
        for operation in [Operation::Create, Operation::Revoke] {
            let slow = Fault { latency_milliseconds: 500, operation: Some(operation), ..Fault::none() };
            env.emulator.stand(&format!("{operation:?} is slow"), StandingFault::of(slow));
        }
        let (keys, may_go, issued) = (BTreeMap::new(), BTreeSet::new(), names.len());
        let mut fleet = Self { env, names, keys, may_go, issued, rotations: 0, lost: 0 };
        fleet.until_idle().await;
        fleet
    }

    /// Waits until all have the keys that they asked for, and all is at rest: the active keys are those that the objects
    /// name and no others, and none was revoked that a workload may need.
    async fn until_idle(&mut self) {
        for name in &self.names {
            let (old, kept) = self.keys.get(name).cloned().unwrap_or_default();
            let object = self
                .env
                .until(name, "its new key, and the end of short overlaps", |object| {
                    let status = object.status.clone().unwrap_or_default();
                    status.key_id.is_some_and(|id| id != old)
                        && (is_long(name) || status.previous_keys.is_empty())
                })
                .await;
            let status = object.status.unwrap_or_default();
            let previous: BTreeSet<String> =
                status.previous_keys.into_iter().map(|previous| previous.key_id).collect();
            assert!(previous.is_superset(&kept), "{name}: {kept:?} are in their overlap, not {previous:?}");
            self.keys.insert(name.clone(), (status.key_id.unwrap_or_default(), previous));
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.env.judge_all(&names, &[]).await;
        self.env.passes(3).await;
        self.env.judge_all(&names, &[]).await;
        let revoked = self.env.revoked_ids();
        let needed = self.keys.values().flat_map(|(current, kept)| kept.iter().chain([current]));
        let wrong: Vec<&String> =
            needed.filter(|id| revoked.contains(*id) && !self.may_go.contains(*id)).collect();
        assert!(wrong.is_empty(), "{wrong:?} were revoked");
    }

    /// Asks all to rotate and deletes some, at once, and waits until the first keys of this are made.
    async fn set_in_motion(&mut self) {
        let before = self.posts();
        let value = (self.rotations + 1).to_string();
        let (rotated, deleted) = self.names.split_at(self.names.len() - DELETED);
        let rotated = rotated.iter().map(|name| self.env.annotate(name, "boltz.bio/rotate", &value));
        join(join_all(rotated), join_all(deleted.iter().map(|name| self.env.delete(name)))).await;
        self.rotations += 1;
        for name in self.names.split_off(self.names.len() - DELETED) {
            let (current, kept) = self.keys.remove(&name).unwrap();
            self.may_go.insert(current);
            self.may_go.extend(kept);
        }
        for name in &self.names {
            let (current, kept) = self.keys.get_mut(name).unwrap();
            if is_long(name) {
                kept.insert(current.clone())
            } else {
                self.may_go.insert(current.clone())
            };
        }
        self.issued += self.names.len();
        self.env
            .wait("rotations are under way", || {
                let posts = self.posts() - before;
                if posts >= 3 { Ok(()) } else { Err(format!("{posts} POSTs")) }
            })
            .await;
    }

    fn posts(&self) -> usize {
        self.env.emulator.count(Operation::Create)
    }

    /// Kills the operator at work. What it had not stored yet is lost.
    async fn kill(&mut self) {
        self.env.operator.kill();
        let mut stored = BTreeSet::new();
        for secret in self.env.secrets().list(&ListParams::default()).await.unwrap() {
            let record = record_of(&secret);
            stored.extend(record.previous.into_iter().map(|previous| previous.key_id).chain([record.key_id]));
        }
        let under_way = self.env.active_ids().difference(&stored).count();
        eprintln!("{under_way} keys are lost with the process");
        self.lost += under_way;
    }

    /// Another operator takes the place of this one.
    async fn replace_by(&mut self, binary: &Path) {
        self.lost += self.env.unanswered();
        self.env.operator = self.env.another_of(binary, &[]).await;
    }

    /// No key was asked for without need. With two at work, either may ask for the same key.
    fn assert_no_needless_posts(&self, unanswered: usize, at_work: usize) {
        let (posts, lost) = (self.posts(), self.lost + unanswered);
        eprintln!("{posts} POSTs for {} keys, {lost} lost", self.issued);
        assert!(posts <= self.issued * at_work + lost, "{posts} POSTs for {} keys, {lost} lost", self.issued);
    }
}

fn is_long(name: &str) -> bool {
    name.ends_with(['0', '2', '4', '6', '8'])
}

/// How many POSTs it had no answer to.
fn unanswered(operator: &OperatorProcess) -> usize {
    operator.log().matches("failed to create a key").count()
}

#[tokio::test]
#[ignore = "builds the release 0.1.0: make test-all runs it"]
async fn an_upgrade_and_a_rollback_cost_no_key() {
    let Some(release) = release() else { return };
    let options =
        EnvOptions { binary: Some(release.clone()), arguments: owned(&ARGUMENTS), ..EnvOptions::default() };
    let mut fleet = Fleet::new(TestEnv::with_options(options).await).await;
    // At rest: the other one has nothing to do, but that 0.1.0 did not know `status.valueSHA256`.
    let of_status = vec!["patch boltzapikeys status -> 200".to_owned(); fleet.posts()];
    for (binary, expected) in
        [(this_operator(), of_status), (release.clone(), Vec::new()), (this_operator(), Vec::new())]
    {
        assert_eq!(fleet.env.operator.terminate(), Some(0));
        let seen = |fleet: &Fleet| (fleet.posts(), fleet.env.revoked_ids());
        let (before, writes) = (seen(&fleet), fleet.env.writes().len());
        fleet.replace_by(&binary).await;
        fleet.env.passes(5).await;
        assert_eq!(seen(&fleet), before, "{}", binary.display());
        assert_eq!(fleet.env.writes().split_off(writes), expected, "{} writes", binary.display());
    }
    // At work: rollback, then upgrade, each after a crash.
    for binary in [release, this_operator()] {
        fleet.set_in_motion().await;
        fleet.kill().await;
        fleet.replace_by(&binary).await;
        fleet.until_idle().await;
        fleet.assert_no_needless_posts(fleet.env.unanswered(), 1);
    }
}

#[tokio::test]
#[ignore = "builds the release 0.1.0: make test-all runs it"]
async fn replicas_of_both_releases_hand_over_to_each_other() {
    let Some(release) = release() else { return };
    let electing = ["--leader-elect", "true", "--lease-namespace", "boltz-system"];
    let options = EnvOptions {
        binary: Some(release.clone()),
        arguments: owned(&[ARGUMENTS.as_slice(), electing.as_slice()].concat()),
        own_control_plane: true,
        ..EnvOptions::default()
    };
    let mut fleet = Fleet::new(TestEnv::with_options(options).await).await;
    // The leader is told to end while it works; the replica of the other release, which stands by, goes on.
    for binary in [this_operator(), release, this_operator()] {
        let second = fleet.env.another_of(&binary, &[]).await;
        fleet.set_in_motion().await;
        assert_eq!(fleet.env.operator.terminate(), Some(0));
        fleet.lost += fleet.env.unanswered();
        fleet.env.operator = second;
        fleet.until_idle().await;
        fleet.assert_no_needless_posts(fleet.env.unanswered(), 1);
    }
}

#[tokio::test]
#[ignore = "builds the release 0.1.0: make test-all runs it"]
async fn both_releases_at_work_at_once_lose_no_key() {
    let Some(release) = release() else { return };
    let options = EnvOptions { arguments: owned(&ARGUMENTS), ..EnvOptions::default() };
    let env = TestEnv::with_options(options).await;
    let second = env.another_of(&release, &[]).await;
    let mut fleet = Fleet::new(env).await;
    for _ in 0..2 {
        fleet.set_in_motion().await;
        fleet.until_idle().await;
    }
    fleet.assert_no_needless_posts(fleet.env.unanswered() + unanswered(&second), 2);
}
