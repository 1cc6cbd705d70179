//! Random faults and restarts.

use crate::{
    SoakError,
    stage::{Stage, Tally},
    still_runs,
};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::{ApiCall, ApiFault, OperatorProcess};
use http::Method;
use rand::{RngExt, rngs::StdRng};
use std::time::{Duration, Instant};

/// How late something may take effect: longer than the operator waits, and shorter than its settle time.
const LATEST: u64 = 2500;

async fn pause(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

/// At Boltz.
pub async fn trouble_boltz(stage: &Stage, mut random: StdRng, until: Instant) -> Result<(), SoakError> {
    while Instant::now() < until {
        pause(&mut random, 200..3000).await;
        stage.emulator.inject(boltz_fault(&mut random));
        // Until the operator has met this one: faults do not pile up.
        while stage.emulator.faults_waiting() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Tally::add(&stage.tally.boltz_faults, usize::from(stage.emulator.faults_waiting() == 0));
    }
    Ok(())
}

fn boltz_fault(random: &mut StdRng) -> Fault {
    // The calls that change something meet most of them. Any call: `auth/me` is too rare to wait for.
    let operation = match random.random_range(0..10) {
        0..=5 => Some(Operation::Create),
        6..=7 => Some(Operation::Revoke),
        8 => Some(Operation::List),
        _ => None,
    };
    let late = random.random_range(0..LATEST);
    let (effect, outcome) = match random.random_range(0..11) {
        0 => (Effect::None, Outcome::Cut),
        1 => (Effect::Before, Outcome::Cut),
        2 => (Effect::After(late), Outcome::Cut),
        3 => (Effect::After(late), Outcome::Hang),
        4 => (Effect::Before, Outcome::CutMidAnswer),
        5 => (Effect::Before, Outcome::status(429)),
        6 => (Effect::Before, Outcome::status(503)),
        7 => (Effect::None, Outcome::status(429)),
        8 => (Effect::None, Outcome::status(500)),
        9 => (Effect::Before, Outcome::Truncated(20)),
        _ => (Effect::Before, Outcome::Foreign("<html>".to_owned())),
    };
    Fault { operation, effect, outcome, ..Fault::none() }
}

/// At the API server.
pub async fn trouble_api_server(stage: &Stage, mut random: StdRng, until: Instant) -> Result<(), SoakError> {
    while Instant::now() < until {
        pause(&mut random, 100..1500).await;
        let (call, fault) = (api_call(&mut random), api_fault(&mut random));
        stage.proxy.arm(call, fault);
        // Rare calls may not come at all.
        let _ = tokio::time::timeout(Duration::from_secs(2), stage.proxy.wait_fired()).await;
        Tally::add(&stage.tally.api_faults, usize::from(stage.proxy.has_fired()));
    }
    Ok(())
}

fn api_call(random: &mut StdRng) -> ApiCall {
    match random.random_range(0..10) {
        0 => ApiCall::new(Method::POST, "secrets").as_dry_run(),
        1 => ApiCall::new(Method::PATCH, "secrets/*").as_dry_run(),
        2 => ApiCall::new(Method::PATCH, "boltzapikeys/*"),
        3 => ApiCall::new(Method::POST, "secrets"),
        4..=5 => ApiCall::new(Method::PATCH, "secrets/*"),
        6 => ApiCall::new(Method::PATCH, "boltzapikeys/*/status"),
        7 => ApiCall::new(Method::GET, "boltzapikeys/*"),
        8 => ApiCall::new(Method::GET, "secrets/*"),
        _ => ApiCall::new(Method::DELETE, "secrets/*"),
    }
}

fn api_fault(random: &mut StdRng) -> ApiFault {
    match random.random_range(0..9) {
        0 => ApiFault::Cut,
        1 => ApiFault::Lost,
        2 => ApiFault::Late(Duration::from_millis(random.random_range(0..LATEST))),
        3 => ApiFault::Status(429),
        4 => ApiFault::Status(503),
        5 => ApiFault::Truncated,
        6 => ApiFault::Foreign,
        7 => ApiFault::HoldBefore,
        _ => ApiFault::HoldAfter,
    }
}

/// Kills and restarts the operator.
pub async fn restart(
    stage: &Stage,
    operator: &mut OperatorProcess,
    mut random: StdRng,
    until: Instant,
) -> Result<(), SoakError> {
    loop {
        let next = Instant::now() + Duration::from_millis(random.random_range(4_000..20_000));
        while Instant::now() < next.min(until) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            still_runs(operator)?;
        }
        if Instant::now() >= until {
            return Ok(());
        }
        if random.random_bool(0.7) {
            tokio::task::block_in_place(|| operator.kill());
            Tally::add(&stage.tally.kills, 1);
        } else {
            // Longer than it may take by itself is a bug of its own.
            match tokio::task::block_in_place(|| operator.terminate()) {
                Some(0) => Tally::add(&stage.tally.terminations, 1),
                Some(code) => {
                    return Err(SoakError::broken("the operator", format!("SIGTERM ended it with {code}")));
                }
                None => return Err(SoakError::broken("the operator", "SIGTERM does not end it within 15 s")),
            }
        }
        // What was sent may still land while nobody is there.
        pause(&mut random, 0..3000).await;
        operator.restart().map_err(|error| SoakError::Io("restart the operator", error))?;
    }
}
