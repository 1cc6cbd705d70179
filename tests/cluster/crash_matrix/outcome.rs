//! How a call ends: brought about by the proxy for the API server, by the emulator for Boltz.

use crate::test_env::{PATIENCE, TestEnv};
use boltz_emulator::{Effect, Fault, Operation, Outcome as Answer};
use boltz_harness::{ApiCall, ApiFault, eventually};
use std::time::{Duration, Instant};

/// Longer than the operator waits for Boltz, shorter than its window.
const LATE: Duration = Duration::from_millis(2200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Killed before the call is sent.
    KilledBefore,
    /// The connection is cut, without effect.
    Cut,
    /// Effect, and the answer is lost.
    Lost,
    /// Effect, the answer is lost, and the process is killed.
    LostAndKilled,
    /// The answer is received, and the process is killed before the next call.
    KilledAfter,
    /// Effect after the client has given up.
    Late,
    /// 429 although executed.
    TooManyRequests,
    /// 503 although executed.
    Unavailable,
    /// Executed, and half of the answer arrives.
    Truncated,
    /// Executed, and something else is answered.
    Foreign,
}

pub const ALL: [Outcome; 10] = [
    Outcome::KilledBefore,
    Outcome::Cut,
    Outcome::Lost,
    Outcome::LostAndKilled,
    Outcome::KilledAfter,
    Outcome::Late,
    Outcome::TooManyRequests,
    Outcome::Unavailable,
    Outcome::Truncated,
    Outcome::Foreign,
];

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::KilledBefore => "killed before",
            Self::Cut => "cut, no effect",
            Self::Lost => "answer lost",
            Self::LostAndKilled => "lost and killed",
            Self::KilledAfter => "killed after",
            Self::Late => "late effect",
            Self::TooManyRequests => "429 but done",
            Self::Unavailable => "503 but done",
            Self::Truncated => "truncated",
            Self::Foreign => "foreign body",
        }
    }

    pub fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::LostAndKilled | Self::KilledAfter)
    }

    fn api_fault(self) -> ApiFault {
        match self {
            Self::KilledBefore => ApiFault::HoldBefore,
            Self::Cut => ApiFault::Cut,
            Self::Lost => ApiFault::Lost,
            Self::LostAndKilled => ApiFault::HoldAfter,
            Self::KilledAfter => ApiFault::FreezeAfter,
            Self::Late => ApiFault::Late(LATE),
            Self::TooManyRequests => ApiFault::Status(429),
            Self::Unavailable => ApiFault::Status(503),
            Self::Truncated => ApiFault::Truncated,
            Self::Foreign => ApiFault::Foreign,
        }
    }

    fn boltz_fault(self, operation: Operation) -> Fault {
        let (effect, answer) = match self {
            Self::KilledBefore => (Effect::OnRelease, Answer::Hang),
            Self::Cut => (Effect::None, Answer::Cut),
            Self::Lost => (Effect::Before, Answer::Cut),
            Self::LostAndKilled | Self::KilledAfter => (Effect::Before, Answer::Hold),
            Self::Late => (Effect::After(LATE.as_millis() as u64), Answer::Cut),
            Self::TooManyRequests => (Effect::Before, Answer::status(429)),
            Self::Unavailable => (Effect::Before, Answer::status(503)),
            Self::Truncated => (Effect::Before, Answer::Truncated(20)),
            Self::Foreign => (Effect::Before, Answer::Foreign("<html>".to_owned())),
        };
        Fault::once(operation, effect, answer)
    }
}

/// The call that meets the outcome.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// To the API server: method, resource, dry run.
    Api(&'static str, &'static str, bool),
    /// To Boltz: the operation, after so many that are answered as usual.
    Boltz(Operation, u32),
}

/// A fault that has been prepared.
pub struct Armed {
    target: Target,
    outcome: Outcome,
    seen: usize,
}

/// Prepares the outcome for the next call of that kind.
pub fn arm(env: &TestEnv, target: Target, outcome: Outcome) -> Armed {
    let mut seen = 0;
    match target {
        Target::Api(method, resource, dry_run) => {
            let call = ApiCall::new(method.parse().unwrap(), resource);
            let call = if dry_run { call.as_dry_run() } else { call };
            env.proxy.as_ref().unwrap().arm(call, outcome.api_fault());
        }
        Target::Boltz(operation, skip) => {
            seen = env.emulator.count(operation) + skip as usize;
            if skip > 0 {
                env.emulator.inject(Fault { operation: Some(operation), ..Fault::none() }.times(skip));
            }
            env.emulator.inject(outcome.boltz_fault(operation));
        }
    }
    Armed { target, outcome, seen }
}

impl Armed {
    /// Waits until the call has met its outcome.
    pub async fn is_met(&self, env: &TestEnv) -> Result<(), String> {
        let proxy = env.proxy.as_ref().unwrap();
        match self.target {
            Target::Api(..) => {
                if tokio::time::timeout(PATIENCE, proxy.wait_fired()).await.is_err() {
                    return Err("the operator never makes the call".to_owned());
                }
            }
            Target::Boltz(operation, _) => {
                let is_held = self.outcome.kills();
                let mut came: Option<Instant> = None;
                eventually(PATIENCE, "the operator makes the call", async || {
                    if env.emulator.count(operation) > self.seen {
                        came.get_or_insert_with(Instant::now);
                    }
                    // On a busy machine the operator may have given up before we look: no weaker a test.
                    let is_seen =
                        came.is_some_and(|at| !is_held || env.emulator.held() > 0 || at.elapsed() > 2 * LATE);
                    if is_seen { Ok(()) } else { Err("not yet") }
                })
                .await?;
                if self.outcome == Outcome::KilledAfter {
                    // The answer arrives, and the next call to the API server does not.
                    proxy.freeze();
                    env.emulator.release();
                    eventually(PATIENCE, "the call is answered", async || {
                        if env.emulator.held() == 0 { Ok(()) } else { Err("not yet") }
                    })
                    .await?;
                    // Its next call to the API server tells that the operator has read the answer. Not every answer has
                    // one: then the cell may be one of a lost answer, which is no weaker a test.
                    let _ = tokio::time::timeout(Duration::from_millis(500), proxy.wait_frozen()).await;
                }
            }
        }
        Ok(())
    }

    /// Kills and restarts the operator if that belongs to the outcome.
    pub async fn carry_out(self, env: &mut TestEnv) -> Result<(), String> {
        if self.outcome.kills() {
            env.operator.killed().await;
            env.proxy.as_ref().unwrap().clear();
            env.emulator.clear_faults();
            env.operator.killed_and_restarted().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
