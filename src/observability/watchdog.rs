//! Finds reconciliations that do not go on, so that `/healthz` makes the kubelet restart the container: only where a
//! restart helps. Nothing here depends on Boltz or the API server: all calls to them have a timeout.

use super::{
    activity::{Activity, InFlight},
    metrics::Metrics,
    watches::Watches,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};

/// The watchdog counts how often it has looked, not time: a process that was suspended is not stuck.
const TICK: Duration = Duration::from_secs(5);
/// After this time without a sign of life, the runtime runs no tasks.
const RUNTIME: Duration = Duration::from_secs(60);
/// After this time without any step although objects wait, the controller starts no reconciliations.
const QUEUE: Duration = Duration::from_secs(300);
/// Added to the timeouts of a step: there may be little processor time.
const MARGIN: Duration = Duration::from_secs(60);

/// What the watchdog sees when it looks.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Another process may work: it is judged there.
    leads: bool,
    beats: u64,
    changes: u64,
    /// Objects wait for a reconciliation.
    has_queue: bool,
    in_flight: Vec<InFlight>,
}

/// What may be stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Runtime(u64),
    Queue(u64),
    Step(u64),
}

/// How often each part was seen without a change. Pure.
#[derive(Debug)]
struct Watchdog {
    step: Duration,
    unchanged: HashMap<Part, u32>,
}

impl Watchdog {
    /// `calls`: the sum of the timeouts of the calls of one step.
    fn new(calls: Duration) -> Self {
        Self { step: calls + MARGIN, unchanged: HashMap::new() }
    }

    /// Call once per `TICK`. Returns what is stuck.
    fn look(&mut self, seen: &Seen) -> Vec<String> {
        let mut parts = Vec::new();
        if seen.leads {
            parts.push((Part::Runtime(seen.beats), RUNTIME, "the runtime runs no tasks".to_owned()));
            if seen.has_queue && seen.in_flight.is_empty() {
                let message = "objects wait, but no reconciliation begins".to_owned();
                parts.push((Part::Queue(seen.changes), QUEUE, message));
            }
            parts.extend(seen.in_flight.iter().map(|InFlight { namespace, name, step, change, .. }| {
                let message =
                    format!("the reconciliation of {namespace}/{name} does not return from the step {step}");
                (Part::Step(*change), self.step, message)
            }));
        }
        let before = std::mem::take(&mut self.unchanged);
        let mut stuck = Vec::new();
        for (part, limit, message) in parts {
            let ticks = before.get(&part).map_or(0, |ticks| ticks + 1);
            self.unchanged.insert(part, ticks);
            if TICK * ticks >= limit {
                stuck.push(message);
            }
        }
        stuck
    }
}

/// Looks from time to time, and publishes what is stuck. Must not run on the runtime of the reconciliations. Does not end.
pub(crate) async fn run(
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    watches: Arc<Watches>,
    calls: Duration,
    stuck: watch::Sender<Vec<String>>,
) {
    let mut watchdog = Watchdog::new(calls);
    loop {
        sleep(TICK).await;
        let found = watchdog.look(&Seen {
            leads: metrics.leads(),
            beats: activity.beats(),
            changes: activity.changes(),
            // While the API server cannot be read, or is still being read, objects may wait for it.
            has_queue: metrics.has_queue() && watches.failures().is_empty() && watches.missing().is_empty(),
            in_flight: activity.in_flight(),
        });
        stuck.send_if_modified(|known| {
            let is_new = *known != found;
            if is_new {
                found.iter().for_each(|what| {
                    tracing::error!("/healthz fails, so that the container restarts: {what}")
                });
            }
            *known = found;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::time::{Instant, advance};

    const CALLS: Duration = Duration::from_secs(75);

    fn in_step(change: u64) -> Vec<InFlight> {
        let (namespace, name) = ("team".to_owned(), "key".to_owned());
        vec![InFlight { namespace, name, step: "Mint", since: Instant::now(), change }]
    }

    /// How many seconds until something is stuck, if it is within an hour.
    fn stuck_after(see: impl Fn(u64) -> Seen) -> Option<(u64, Vec<String>)> {
        let mut watchdog = Watchdog::new(CALLS);
        (0..=720).map(|tick| (tick * 5, watchdog.look(&see(tick)))).find(|(_, stuck)| !stuck.is_empty())
    }

    #[test]
    fn only_what_a_restart_cures_is_stuck() {
        let beats = |tick: u64| Seen { leads: true, beats: tick * 5, ..Seen::default() };
        type Row = (&'static str, fn(u64, Seen) -> Seen, Option<(u64, &'static str)>);
        let rows: [Row; 10] = [
            ("idle", |_, seen| seen, None),
            ("no beats", |_, seen| Seen { beats: 7, ..seen }, Some((60, "the runtime runs no tasks"))),
            ("a standby without beats", |_, seen| Seen { leads: false, beats: 7, ..seen }, None),
            ("a slow runtime", |tick, seen| Seen { beats: tick / 11, ..seen }, None),
            (
                "leads for 55 s, again and again",
                |tick, seen| Seen { leads: tick % 12 != 0, beats: 7, ..seen },
                None,
            ),
            (
                "one step for ever",
                |_, seen| Seen { in_flight: in_step(3), ..seen },
                Some((135, "the reconciliation of team/key does not return from the step Mint")),
            ),
            (
                "each call takes its whole timeout",
                |tick, seen| Seen { in_flight: in_step(tick / 15), ..seen },
                None,
            ),
            (
                "a standby that could not cancel one",
                |_, seen| Seen { leads: false, in_flight: in_step(3), ..seen },
                None,
            ),
            (
                "nobody takes from the queue",
                |_, seen| Seen { has_queue: true, changes: 9, ..seen },
                Some((300, "objects wait, but no reconciliation begins")),
            ),
            (
                "a queue that is served",
                |tick, seen| Seen { has_queue: true, changes: tick / 50, ..seen },
                None,
            ),
        ];
        for (name, see, expected) in rows {
            let found = stuck_after(|tick| see(tick, beats(tick)));
            let expected = expected.map(|(after, message)| (after, vec![message.to_owned()]));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn it_recovers() {
        let mut watchdog = Watchdog::new(CALLS);
        let seen =
            |change| Seen { leads: true, beats: change, in_flight: in_step(change), ..Seen::default() };
        for _ in 0..100 {
            watchdog.look(&seen(1));
        }
        assert_eq!(watchdog.look(&seen(1)).len(), 2);
        assert!(watchdog.look(&seen(2)).is_empty());
    }

    /// A runtime whose only thread does not come back, seen from another one whose time is virtual.
    #[tokio::test(start_paused = true)]
    async fn a_runtime_whose_threads_are_blocked_is_seen() {
        let work =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (activity, metrics) = (Arc::new(Activity::default()), Arc::new(Metrics::new()));
        metrics.set_leader(true);
        let beating = Arc::clone(&activity);
        work.spawn(async move { beating.beat().await });
        while activity.beats() == 0 {
            std::thread::yield_now();
        }
        let (release, blocked) = mpsc::channel::<()>();
        let (is_blocked, blocks) = mpsc::channel();
        work.spawn(async move {
            is_blocked.send(()).unwrap();
            let _ = blocked.recv();
        });
        blocks.recv().unwrap();
        let (sender, mut stuck) = watch::channel(Vec::new());
        let watches = Arc::new(Watches::new(Arc::clone(&metrics)));
        tokio::spawn(run(Arc::clone(&activity), metrics, watches, CALLS, sender));
        let found = stuck.wait_for(|stuck| !stuck.is_empty()).await.unwrap().clone();
        assert_eq!(found, ["the runtime runs no tasks"]);
        drop(release);
        let beats = activity.beats();
        while activity.beats() == beats {
            std::thread::yield_now();
        }
        advance(TICK).await;
        stuck.wait_for(Vec::is_empty).await.unwrap();
        work.shutdown_background();
    }
}
