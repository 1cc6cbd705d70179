//! Many worlds, one after the other on each core, each in a runtime of its own whose time is virtual.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Plays all of them, and says how many there were in a second. A failure names the case.
pub fn play_all<C, F>(what: &str, cases: &[C], play: impl Fn(C) -> F + Sync)
where
    C: Clone + std::fmt::Debug + Sync,
    F: Future<Output = ()>,
{
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let played =
                        std::panic::catch_unwind(AssertUnwindSafe(|| in_virtual_time(play(case.clone()))));
                    if played.is_err() {
                        next.store(cases.len(), Ordering::Relaxed);
                        panic!("{what}: {case:?}");
                    }
                }
            });
        }
    });
    let took = started.elapsed();
    println!("{what}: {} in {took:.1?}, {:.0} per second", cases.len(), per_second(cases.len(), took));
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn in_virtual_time(play: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(play);
}
