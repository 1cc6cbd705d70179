//! Wall clocks that step, and keys that expire when nobody looks.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, value_of};
use boltz_emulator::{Effect, Fault, Operation, Outcome, Settings};
use boltz_harness::eventually;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A wall clock that a test sets, for one process. Its monotonic clock goes on as ever.
struct WallClock {
    folder: tempfile::TempDir,
}

impl WallClock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.step_to(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// From now on it shows the true time and so many seconds.
    fn step_to(&self, seconds: i64) {
        // Moved into place: the process may read at any time.
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn environment(&self) -> Vec<(String, String)> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/faketime");
        let output = Command::new(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

const HOUR: i64 = 3600;

#[tokio::test]
async fn a_wall_clock_that_steps_by_an_hour_and_back_costs_no_key() {
    // Forward, the interval of 1 h and the overlap of 30 min are over; backward, nothing is.
    for (step, by_interval, overlap_is_over) in [(HOUR, 1, true), (-HOUR, 0, false)] {
        let clock = WallClock::new();
        let env = TestEnv::with_options(EnvOptions {
            environment: clock.environment(),
            arguments: crate::test_env::owned(&["--settle-time", "10s", "--request-timeout", "4s"]),
            ..EnvOptions::default()
        })
        .await;
        let names = ["rests", "overlaps", "interval", "held"];
        env.create("rests", json!({"rotation": {"overlap": "1s"}})).await;
        env.create("overlaps", json!({"rotation": {"overlap": "30m"}})).await;
        env.create("interval", json!({"rotation": {"overlap": "1h", "interval": "1h"}})).await;
        let old = env.id_of("overlaps").await;
        env.annotate("overlaps", "boltz.bio/rotate", "1").await;
        for name in ["rests", "interval"] {
            env.ready(name).await;
        }
        rotated(&env, "overlaps").await;
        env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
        env.create("held", json!({})).await;
        env.wait("the POST is held", || {
            if env.emulator.held() > 0 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;

        clock.step_to(step);
        env.emulator.release();
        env.ready("held").await;
        env.annotate("rests", "boltz.bio/rotate", "1").await;
        rotated(&env, "rests").await;
        let issued_at = env.record("rests").await.issued_at;
        let off = issued_at.duration_since(Timestamp::now()) - SignedDuration::from_secs(step);
        assert!(
            off.abs() < SignedDuration::from_mins(5),
            "the operator does not believe the clock: {issued_at}"
        );
        if by_interval > 0 {
            rotated(&env, "interval").await;
        }
        env.passes(2).await;
        env.judge_all(&names, &[]).await;
        env.wait("the old key lives exactly as long as the clock says", || {
            let lives = env.active_ids().contains(&old);
            if lives != overlap_is_over { Ok(()) } else { Err(format!("it lives: {lives}")) }
        })
        .await;
        // Four first keys and two rotations that were asked for.
        assert_eq!(env.emulator.count(Operation::Create), 6 + by_interval, "after a step of {step} s");

        clock.step_to(0);
        env.passes(3).await;
        env.judge_all(&names, &[]).await;
        assert_eq!(env.emulator.count(Operation::Create), 6 + by_interval, "after the step back");
    }
}

async fn rotated(env: &TestEnv, name: &str) {
    env.until(name, "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
    })
    .await;
}

#[tokio::test]
async fn a_key_that_expires_while_the_operator_is_down_is_replaced_when_it_is_back() {
    for expiry_deactivates in [true, false] {
        let settings = Settings { expiry_deactivates, ..Settings::default() };
        let mut env = TestEnv::with_options(EnvOptions { settings, ..EnvOptions::default() }).await;
        env.create("key", json!({"expiresInDays": 30, "rotation": {"overlap": "1s"}})).await;
        let old = env.id_of("key").await;
        env.operator.kill();
        env.emulator.expire_now(&old);
        env.operator.restart().unwrap();
        env.until("key", "another key", |object| {
            object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&old))
        })
        .await;
        env.judge("key").await;
        env.passes(2).await;
        env.judge("key").await;
        assert_eq!(env.emulator.count(Operation::Create), 2, "is_active turns false: {expiry_deactivates}");
    }
}

#[tokio::test]
async fn a_key_that_expires_much_earlier_than_asked_is_renewed_in_time_and_not_at_once() {
    // A year is asked for, and 22 s are answered: less than renewBefore.
    let settings = Settings { day_milliseconds: 60, ..Settings::default() };
    let env = TestEnv::with_options(EnvOptions { settings, ..EnvOptions::default() }).await;
    let spec = json!({"expiresInDays": 360, "rotation": {"renewBefore": "720h", "overlap": "1s"}});
    env.create("key", spec).await;
    env.ready("key").await;
    let watched = eventually(PATIENCE, "two renewals", async || {
        let secret = env.secret("key").await;
        let before = env.emulator.authenticate(&value_of(&secret, "BOLTZ_API_KEY"));
        // Read again: it may have been replaced, and the old key revoked, between the two looks.
        let unchanged = env.secret("key").await.metadata.resource_version == secret.metadata.resource_version;
        assert!(before.is_some() || !unchanged, "the delivered key does not work");
        let rotations = env.get("key").await.status.and_then(|status| status.rotations);
        if rotations >= Some(2) { Ok(()) } else { Err(format!("{rotations:?}")) }
    });
    watched.await.unwrap();
    let keys = env.emulator.keys();
    assert_eq!(keys.len(), 3);
    for pair in keys.windows(2) {
        let lived = pair[1].created_at.duration_since(pair[0].created_at);
        assert!(lived > SignedDuration::from_secs(7), "replaced after {lived}");
    }
}
