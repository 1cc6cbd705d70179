//! Random schedules: two controllers that both think that they lead, faults at any call, watches that freeze, users.
//! A failure prints its seed and all calls; `SEED=<seed>` plays it again.

use crate::{
    fault_injection::{Fault, lock},
    process::Process,
    threads::play_all,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::api::annotations::{ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION};
use parking_lot::Mutex;
use plan_world::Milestone;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

const SCHEDULES: u64 = 400;
const MOVES: usize = 25;
/// What some of the schedules have to reach.
const REACHED: [Milestone; 9] = [
    Milestone::Delivered,
    Milestone::Rotated,
    Milestone::OverlapEnded,
    Milestone::LeakRevoked,
    Milestone::StrayRevoked,
    Milestone::DeletedRevoked,
    Milestone::DeletionEnded,
    Milestone::Rested,
    Milestone::Recovered,
];
/// With the longest lag of the list and the latest moment of a POST, less than the time in which an attempt settles.
const LATEST: u64 = 55;

#[test]
fn whatever_happens_all_is_good_in_the_end() {
    let told = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds: Vec<u64> = told.map_or(0..SCHEDULES, |seed| seed..seed + 1).collect();
    let reached = Mutex::new(REACHED.map(|_| 0));
    play_all("random schedules", &seeds, async |seed| {
        let world = play(seed, told.is_some()).await;
        for (count, milestone) in lock(&reached).iter_mut().zip(REACHED) {
            *count += usize::from(world.reached().contains(milestone));
        }
    });
    let reached: Vec<_> = REACHED.iter().zip(reached.into_inner()).collect();
    println!("how many schedules reached what: {reached:?}");
    // A hundredth of them, so that a change of the random numbers is not noticed.
    let rare: Vec<_> = reached.iter().filter(|(_, count)| *count < seeds.len() / 100).collect();
    assert!(told.is_some() || rare.is_empty(), "hardly any schedule reaches {rare:?}");
}

fn fault(random: &mut StdRng, one_in: u32) -> Option<Fault> {
    let fault = random.random_range(0..13 * one_in);
    let late = Duration::from_secs(random.random_range(1..LATEST));
    Some(match fault {
        0 => Fault::Cut,
        1 => Fault::Unreachable,
        2 => Fault::Lost,
        3 => Fault::Silent,
        4 => Fault::Deaf,
        5 => Fault::Late(late),
        6 => Fault::Refused,
        7 => Fault::RefusedThoughDone(if late.as_secs().is_multiple_of(2) { 429 } else { 503 }),
        8 => Fault::Truncated,
        9 => Fault::CrashBefore,
        10 => Fault::CrashAfter,
        11 => Fault::CrashLate(late),
        12 => Fault::RefusedThenDone(late),
        _ => return None,
    })
}

fn settings(random: &mut StdRng) -> Settings {
    Settings {
        list_inactive: random.random(),
        list_admin_keys: random.random(),
        newest_first: random.random(),
        list_lag_milliseconds: [0, 5_000, 60_000][random.random_range(0..3)],
        page_size: [1, 2, 1000][random.random_range(0..3)],
        has_auth_me: random.random(),
        revoking_twice_fails: random.random(),
        ..Settings::default()
    }
}

async fn play(seed: u64, is_told: bool) -> Arc<World> {
    let (mut asked, mut trouble) = (0, 0);
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new(settings(&mut random));
    let overlap = ["0s", "1s", "10m", "30m"][random.random_range(0..4)];
    let one_in = [5, 15, 60][random.random_range(0..3)];
    let mut of_faults = StdRng::seed_from_u64(random.random());
    world.faults(move |_| fault(&mut of_faults, one_in));
    let mut spec = json!({"rotation": {"overlap": overlap}});
    let mut processes = [Process::start(&world, 1), Process::start(&world, 2)];
    world.create(&spec);
    asked += 1;
    for number in 0..MOVES {
        let which = random.random_range(0..2);
        let text = number.to_string();
        let chosen = random.random_range(0..24);
        match chosen {
            0..=3 => trouble += 1,
            4..=8 | 10 | 11 | 13 | 14 => asked += 1,
            _ => {}
        }
        let told = match chosen {
            0 => {
                processes[which].restart();
                format!("process {which} is restarted")
            }
            1 => {
                let wait = Duration::from_secs(random.random_range(1..300));
                processes[which].freeze_watches(Instant::now() + wait);
                format!("the watches of process {which} freeze for {wait:?}")
            }
            2 => {
                processes[which].change_line(|line| line.cuts += 1);
                format!("the watches of process {which} are cut")
            }
            3 => {
                processes[which].change_line(|line| {
                    line.cuts += 1;
                    line.expired = true;
                });
                format!("the watches of process {which} are cut, and too old")
            }
            4 | 5 => {
                world.annotate(ROTATE_ANNOTATION, &text);
                "rotate".to_owned()
            }
            6 => {
                world.annotate(ROTATE_NOW_ANNOTATION, &text);
                "rotate now".to_owned()
            }
            7 => {
                world.delete_secret();
                "the Secret is deleted".to_owned()
            }
            8 => {
                world.alter_secret(&format!("edited {number}"));
                "the value is edited".to_owned()
            }
            9 => {
                world.delete();
                "delete".to_owned()
            }
            10 | 11 => {
                world.create(&spec);
                "create, unless it is there".to_owned()
            }
            12 => {
                let is_suspended = spec["suspend"] == json!(true);
                spec["suspend"] = json!(!is_suspended);
                world.edit(json!({"spec": spec}));
                format!("suspend: {}", !is_suspended)
            }
            13 => {
                spec["allowedIPs"] = json!([format!("192.0.2.{number}")]);
                world.edit(json!({"spec": spec}));
                "other addresses".to_owned()
            }
            14 => {
                if let Some(key) = world.emulator.active_keys().first() {
                    world.emulator.deactivate(&key.id);
                }
                "somebody revokes the oldest key in Boltz's console".to_owned()
            }
            _ => "time passes".to_owned(),
        };
        world.tell(told);
        let longest = [1_000, 10_000, 100_000, 400_000][random.random_range(0..4)];
        sleep(Duration::from_millis(random.random_range(0..longest))).await;
    }
    world.tell("no more faults".to_owned());
    world.faults(|_| None);
    spec["suspend"] = json!(false);
    world.edit(json!({"spec": spec}));
    for process in &processes {
        process.freeze_watches(Instant::now());
    }
    sleep(5 * MINUTE).await;
    world.good(&format!("seed {seed}")).await;
    world.tell("the end: delete".to_owned());
    world.delete();
    sleep(SECOND).await;
    world.good(&format!("seed {seed}, deleted")).await;
    if is_told {
        println!("{}", world.transcript());
    }
    let (posts, struck) = (world.posts(), world.struck());
    assert!(
        posts <= asked + trouble + struck,
        "{posts} POSTs; keys are asked for {asked} times, and there is trouble {trouble} and {struck} times\n{}",
        world.transcript()
    );
    world
}
