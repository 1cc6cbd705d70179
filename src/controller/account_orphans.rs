//! Orphans of a `BoltzAccount`: what it says of them, and how its status shows them.

use super::{
    OrphanHandling,
    orphan_list::{OrphanList, PublishedOrphan},
};
use crate::{
    api::{AccountOrphan, AccountOrphanPolicy},
    boltz::{
        accounts::{ReportedOrphans, ServedAccount},
        snapshot::Snapshot,
    },
    cli::OrphanPolicy,
};
use jiff::{civil::Date, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the `BoltzAccount` says of its orphans; else what the flags say.
pub(super) fn handling_of(served: &ServedAccount, of_flags: &OrphanHandling) -> OrphanHandling {
    let Some(rules) = served.rules() else { return of_flags.clone() };
    let (policy, grace) = rules.orphans;
    let policy = match policy {
        AccountOrphanPolicy::Report => OrphanPolicy::Report,
        AccountOrphanPolicy::Revoke => OrphanPolicy::Revoke,
    };
    OrphanHandling { policy, grace, ..of_flags.clone() }
}

/// As the status of the `BoltzAccount` shows them.
pub(super) fn reported(list: OrphanList, served: &ServedAccount, snapshot: &Snapshot) -> ReportedOrphans {
    let day = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|at| Time(at.timestamp()));
    let marker = served.inventory.names().begin_of_markers();
    let as_reported = |orphan: PublishedOrphan| AccountOrphan {
        name: format!("{marker}.{}.{}", orphan.object, orphan.attempt),
        created_at: snapshot.created_at(&orphan.key_id).map(Time),
        last_used_at: orphan.last_used_on.and_then(day),
        orphaned_since: Time(orphan.orphaned_since),
        key_id: orphan.key_id,
    };
    ReportedOrphans { count: list.count, oldest: list.orphans.into_iter().map(as_reported).collect() }
}
