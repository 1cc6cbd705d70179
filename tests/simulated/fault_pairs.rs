//! Two faults in create, rotate and delete: any fault at any call, and a second one at any call of what follows, which
//! is the recovery from the first.

use crate::{
    fault_injection::{Fault, Met},
    process::Process,
    threads::play_all,
    world::{SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::api::annotations::ROTATE_ANNOTATION;
use plan_world::Milestone;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

const LATE: Duration = Duration::from_secs(40);
const KINDS: [Fault; 13] = [
    Fault::Cut,
    Fault::Unreachable,
    Fault::Lost,
    Fault::Silent,
    Fault::Deaf,
    Fault::Late(LATE),
    Fault::Refused,
    Fault::RefusedThoughDone(503),
    Fault::RefusedThenDone(LATE),
    Fault::Truncated,
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::CrashLate(LATE),
];
/// Of a create, a rotation with its overlap, and a deletion.
const WRITES: usize = 8;
/// Another attempt on the object, another Secret, and the status before and after.
const WRITES_OF_A_FAULT: usize = 4;
const REACHED: [Milestone; 5] = [
    Milestone::Delivered,
    Milestone::Rotated,
    Milestone::OverlapEnded,
    Milestone::DeletedRevoked,
    Milestone::DeletionEnded,
];
/// A second fault comes within so many calls of the first.
const RECOVERY: usize = 12;

/// Calls whose loss nobody would notice are left alone.
fn counts(met: &Met) -> bool {
    !met.what.ends_with("/auth/me") && !met.what.contains("/events")
}

/// Creates, rotates and deletes with these faults, by the number of the call. Answers how many calls there were.
async fn play(faults: Vec<(usize, Fault)>) -> usize {
    let world = World::new(Settings::default());
    let count = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&count);
    let (name, struck) = (format!("{faults:?}"), faults.len());
    world.faults(move |met| {
        let index = counts(met).then(|| number.fetch_add(1, Ordering::Relaxed))?;
        faults.iter().find(|(at, _)| *at == index).map(|(_, fault)| *fault)
    });
    let _process = Process::start(&world, 1);
    sleep(SECOND).await;
    world.create(&json!({"rotation": {"overlap": "1m"}}));
    world.good(&format!("create {name}")).await;
    world.annotate(ROTATE_ANNOTATION, "1");
    world
        .until("rotated", |world| world.record().is_some_and(|record| record.rotate.as_deref() == Some("1")))
        .await;
    world.good(&format!("rotate {name}")).await;
    // After a crash an attempt has to settle again.
    world.until("the overlap is over", |world| world.emulator.active_keys().len() == 1).await;
    world.delete();
    world.good(&format!("delete {name}")).await;
    let (posts, writes) = (world.posts(), world.take_writes());
    assert!(posts <= 2 + struck, "{name}: {posts} POSTs\n{}", world.transcript());
    assert!(
        writes.len() <= WRITES + WRITES_OF_A_FAULT * struck,
        "{name}: {} writes: {writes:?}\n{}",
        writes.len(),
        world.transcript()
    );
    let reached = world.reached();
    for milestone in REACHED {
        assert!(reached.contains(milestone), "{name}: {milestone:?} is not reached");
    }
    count.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn two_faults_anywhere_end_well() {
    let calls = play(Vec::new()).await;
    let mut cases = Vec::new();
    for first in 0..calls {
        for (number, kind) in KINDS.into_iter().enumerate() {
            cases.push(vec![(first, kind)]);
            for distance in 1..=RECOVERY {
                // Each pair of calls meets each first kind; the second kinds take turns.
                let second = KINDS[(first * 5 + number * 7 + distance) % KINDS.len()];
                cases.push(vec![(first, kind), (first + distance, second)]);
            }
        }
    }
    println!("{calls} calls without a fault");
    play_all("pairs of faults", &cases, async |faults| {
        play(faults).await;
    });
}
