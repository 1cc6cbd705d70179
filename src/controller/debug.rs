//! The state of the process for `/debug`. Without keys.

use super::Context;
use crate::{
    boltz::{account::MOST, inventory::Inventory},
    observability::activity::InFlight,
    plan::{Doubt, Monotonic},
};
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
    let (length, waiting) = context.metrics.queue(MOST);
    let waiting = waiting.iter().map(|(namespace, name)| json!({"namespace": namespace, "name": name}));
    let mut described = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "identity": identity,
        "isLeader": context.metrics.leads(),
        "stuck": stuck,
        "failingWatches": context.watches.failures().lines().collect::<Vec<_>>(),
        "inFlight": in_flight.collect::<Vec<_>>(),
        "reconcileQueue": {"length": length, "waiting": waiting.collect::<Vec<_>>()},
    });
    let accounts = context.accounts.all();
    let (of_flags, named): (Vec<_>, Vec<_>) = accounts.iter().partition(|served| served.name().is_of_flags());
    if let Some(served) = of_flags.first() {
        described["inventory"] = inventory(&served.inventory, now.monotonic);
        described["account"] = served.account.describe(now.monotonic);
    }
    if !named.is_empty() {
        let named = named.iter().take(MOST).map(|served| {
            let name = served.name().name().unwrap_or_default().to_owned();
            let inventory = inventory(&served.inventory, now.monotonic);
            (name, json!({"inventory": inventory, "account": served.account.describe(now.monotonic)}))
        });
        described["accounts"] = Json::Object(named.collect());
    }
    described
}

fn inventory(inventory: &Inventory, now: Monotonic) -> Json {
    let passes = inventory.snapshots();
    let passes = passes.iter().map(|pass| {
        json!({
            "ageSeconds": now.since(pass.started).as_secs_f64(),
            "keys": pass.rows,
            "doubt": doubt(pass.doubt),
            "organization": pass.organization,
        })
    });
    let progress = inventory.progress();
    json!({
        "passes": passes.collect::<Vec<_>>(),
        "activity": progress.activity.map(<&str>::from),
        "activitySeconds": progress.activity.map(|_| now.since(progress.since).as_secs_f64()),
        "failures": progress.failures,
        "error": progress.error,
    })
}

fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::None => "none",
        Doubt::All => "lacks-all-keys",
        Doubt::Many => "proves-no-absence",
    }
}
