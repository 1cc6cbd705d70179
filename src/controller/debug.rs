//! The state of the process for `/debug`. Without keys.

use super::Context;
use crate::{boltz::account::MOST, observability::activity::InFlight, plan::Doubt};
use serde_json::{Value as Json, json};

/// What the process does, and what it waits for.
pub(crate) fn describe(context: &Context, identity: &str, stuck: &[String]) -> Json {
    let now = context.clock.now();
    let in_flight = context.activity.in_flight();
    let in_flight = in_flight.iter().map(|InFlight { namespace, name, step, since, .. }| {
        json!({
            "namespace": namespace,
            "name": name,
            "step": step,
            "ageSeconds": since.elapsed().as_secs_f64(),
        })
    });
    let passes = context.inventory.snapshots();
    let passes = passes.iter().map(|pass| {
        json!({
            "ageSeconds": now.monotonic.since(pass.started).as_secs_f64(),
            "keys": pass.rows,
            "doubt": doubt(pass.doubt),
            "organization": pass.organization,
        })
    });
    let progress = context.inventory.progress();
    let (length, waiting) = context.metrics.queue(MOST);
    let waiting = waiting.iter().map(|(namespace, name)| json!({"namespace": namespace, "name": name}));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "identity": identity,
        "isLeader": context.metrics.leads(),
        "stuck": stuck,
        "failingWatches": context.watches.failures().lines().collect::<Vec<_>>(),
        "inFlight": in_flight.collect::<Vec<_>>(),
        "reconcileQueue": {"length": length, "waiting": waiting.collect::<Vec<_>>()},
        "inventory": {
            "passes": passes.collect::<Vec<_>>(),
            "activity": progress.activity.map(<&str>::from),
            "activitySeconds": progress.activity.map(|_| now.monotonic.since(progress.since).as_secs_f64()),
            "failures": progress.failures,
            "error": progress.error,
        },
        "account": context.account.describe(now.monotonic),
    })
}

fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::None => "none",
        Doubt::All => "lacks-all-keys",
        Doubt::Many => "proves-no-absence",
    }
}
