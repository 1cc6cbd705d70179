//! A deletion that meets one fault says little: whatever the fault, the call and the moment.

use crate::{
    fault_injection::Fault,
    process::Process,
    world::{SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::api::annotations::ROTATE_ANNOTATION;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const FAULTS: [Fault; 9] = [
    Fault::Cut,
    Fault::Unreachable,
    Fault::Lost,
    Fault::Late(Duration::from_millis(2200)),
    Fault::RefusedThoughDone(429),
    Fault::RefusedThoughDone(503),
    Fault::Refused,
    Fault::Truncated,
    Fault::Odd,
];
/// The finalizer goes, and before that at most two statuses: what the deletion waits for, and what it still waits for.
const MOST_WRITES: usize = 3;

/// What calls take: API server, Boltz's list.
const TAKE: [(Duration, Duration); 3] = [
    (Duration::ZERO, Duration::ZERO),
    (Duration::from_millis(70), Duration::from_millis(400)),
    (SECOND, Duration::from_secs(3)),
];

#[tokio::test(start_paused = true)]
async fn a_deletion_that_meets_one_fault_writes_the_status_at_most_twice() {
    let mut wrong = Vec::new();
    for fault in FAULTS {
        for struck in [1, 2] {
            // Their attempts are settled after three minutes.
            for age in [0, 1, 30, 90, 175, 240, 1200] {
                for (call, list) in TAKE {
                    let case = format!(
                        "{fault:?} of revocation {struck}, {age} s after the rotation, calls take {call:?}"
                    );
                    let (writes, transcript) = deletion(fault, struck, age * SECOND, call, list).await;
                    if writes.len() > MOST_WRITES {
                        wrong.push(format!("{case}: {writes:?}"));
                        if wrong.len() == 1 {
                            println!("{case}\n{transcript}");
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// An object with two active keys is deleted. What the operator writes, and all that happened.
async fn deletion(
    fault: Fault,
    struck: usize,
    age: Duration,
    call_takes: Duration,
    list_takes: Duration,
) -> (Vec<String>, String) {
    let world = World::new(Settings::default());
    let _process = Process::start(&world, 1);
    world.create(&json!({"rotation": {"overlap": "24h"}}));
    world.until("issued", |world| world.record().is_some()).await;
    world.annotate(ROTATE_ANNOTATION, "1");
    world
        .until("rotated", |world| world.object().is_some_and(|object| object["status"]["rotations"] == 1))
        .await;
    sleep(age).await;
    world.take_writes();
    let mut revocations = 0;
    world.faults(move |met| {
        let is_revocation = met.what.ends_with("/revoke");
        revocations += usize::from(is_revocation);
        if is_revocation && revocations == struck {
            return Some(fault);
        }
        let is_list = met.what.starts_with("Boltz GET") && met.what.ends_with("/api-keys");
        Some(Fault::Slow(if is_list { list_takes } else { call_takes }))
    });
    world.delete();
    world.good("deleted").await;
    (world.take_writes(), world.transcript())
}
