//! Wake-ups that are far away.
//!
//! kube's scheduler holds two references to an object for each wake-up, with their texts. Most objects wait for weeks. Here,
//! a far wake-up is one number, and is given to the scheduler shortly before its time.

use super::{Context, triggered::Triggered};
use crate::{
    plan::{Monotonic, Now, elapsed, later},
    protocol::marker::ObjectMark,
};
use kube::runtime::controller::Action;
use std::{sync::Arc, time::Duration};

/// How often the far wake-ups are looked at.
const INTERVAL: Duration = Duration::from_secs(60);
/// A wake-up is far if it is more than this away: two looks come before it.
const FAR: Duration = Duration::from_secs(150);
/// A difference of the clocks that is no drift.
const STEP: Duration = Duration::from_secs(30);

/// Requeues the object at that time.
pub(super) fn requeue_at(context: &Context, object: ObjectMark, wake_at: Option<Monotonic>) -> Action {
    let wait = wake_at.map(|at| at.since(context.clock.now().monotonic));
    context.awaited.set_far_wake_up(object, wake_at.filter(|_| wait > Some(FAR)));
    match wait {
        Some(wait) if wait <= FAR => Action::requeue(wait),
        _ => Action::await_change(),
    }
}

/// Whether the wall clock was set between two moments, or the monotonic one stood still: wake-ups were computed by both.
fn has_stepped(before: Now, now: Now) -> bool {
    let expected = later(before.wall, now.monotonic.since(before.monotonic));
    elapsed(expected, now.wall).max(elapsed(now.wall, expected)) > STEP
}

/// Reconciles the objects of one store whose wake-up is not far any more. Their next decision sets the timer.
pub(super) async fn reconcile_in_time(context: Arc<Context>, objects: Triggered) {
    let mut before = context.clock.now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = context.clock.now();
        let is_stepped = has_stepped(before, now);
        before = now;
        if is_stepped {
            tracing::info!("the wall clock has stepped; all objects are reconciled");
        }
        let near = now.monotonic.plus(FAR);
        let is_near = |mark: &ObjectMark| context.awaited.far_wake_up(mark).is_some_and(|at| at <= near);
        objects.reconcile_where(|mark| is_stepped || is_near(mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_steps_if_it_does_not_follow_the_monotonic_one() {
        let at = |wall: i64, monotonic: u64| Now {
            wall: jiff::Timestamp::from_second(wall).unwrap(),
            monotonic: Monotonic(Duration::from_secs(monotonic)),
        };
        for (wall, monotonic, is_stepped) in [
            (1060, 60, false),
            (1085, 60, false),
            (1035, 60, false),
            (1095, 60, true),
            (1000, 60, true),
            (90_000, 61, true),
        ] {
            assert_eq!(has_stepped(at(1000, 0), at(wall, monotonic)), is_stepped, "{wall} {monotonic}");
        }
    }
}
