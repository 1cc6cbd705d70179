//! The metrics of Boltz's organization: list, admin key, queue for new keys.

use super::{
    catalog::{Computed, Series, single},
    objects::{seconds, since},
};
use crate::protocol::account_name::AccountName;
use jiff::Timestamp;
use prometheus_client::metrics::MetricType::Gauge;
use std::{collections::BTreeMap, time::Duration};
use strum::VariantArray;

/// What is known about the admin key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum AdminKeyState {
    /// Boltz accepts it for live keys.
    Valid,
    /// It can create test-mode keys only.
    TestMode,
    /// Boltz rejects it, or it is missing, or not an admin key.
    Refused,
    /// Boltz did not answer when the key was to be checked.
    Unreachable,
    /// It belongs to another organization than the keys.
    WrongOrganization,
}

/// Why a key is to be issued, as far as the queue distinguishes it, and how many wait.
pub(crate) type QueueLengths = [(&'static str, usize); 4];

/// A complete read of Boltz's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassGauges {
    pub keys: usize,
    pub is_doubtful: bool,
    pub missing: usize,
    pub started_at: Timestamp,
}

/// What the leader knows of each account.
pub(super) type Organizations = BTreeMap<AccountName, Organization>;

/// The series of all accounts. That of the flags has no label, so that nothing changes for who has no other.
pub(super) fn of_all_accounts(
    known: &Organizations,
    series: fn(&Organization) -> Vec<Series>,
) -> Vec<Series> {
    let labelled = |(account, known): (&AccountName, &Organization)| {
        let name = account.name().map(|name| ("account", name.to_owned()));
        let with_name =
            move |(labels, value): Series| (name.clone().into_iter().chain(labels).collect(), value);
        series(known).into_iter().map(with_name).collect::<Vec<Series>>()
    };
    known.iter().flat_map(labelled).collect()
}

/// What the leader knows of one account.
#[derive(Debug, Default)]
pub(super) struct Organization {
    pub admin_key: Option<AdminKeyState>,
    pub is_new_admin_key_unproved: bool,
    pub admin_key_expires_at: Option<Timestamp>,
    pub inventory_interval: Duration,
    pub leading_since: Option<Timestamp>,
    pub pass: Option<PassGauges>,
    pub orphaned_keys: Option<usize>,
    pub waiting: Option<QueueLengths>,
}

const fn of_boltz(
    name: &'static str,
    help: &'static str,
    series: fn(&Organization) -> Vec<Series>,
) -> Computed<Organization> {
    Computed { name, help, kind: Gauge, series }
}

/// One line for each metric.
pub(super) const BOLTZ_METRICS: &[Computed<Organization>] = &[
    of_boltz(
        "admin_key_state",
        "1 for the state of the operator's admin key, 0 for the others; absent until it is known",
        |known| {
            let state = |state: AdminKeyState| vec![("state", <&str>::from(state).to_owned())];
            let is = |admin_key, state| f64::from(admin_key == state);
            let all =
                |admin_key| AdminKeyState::VARIANTS.iter().map(move |it| (state(*it), is(admin_key, *it)));
            known.admin_key.into_iter().flat_map(all).collect()
        },
    ),
    of_boltz(
        "admin_key_new_unproved",
        "Whether the admin key file has a key that is not used: Boltz refuses it, or does not say that it is of the same \
         organization. The key before is used",
        |known| single(known.admin_key.map(|_| known.is_new_admin_key_unproved)),
    ),
    of_boltz(
        "admin_key_expiration_timestamp_seconds",
        "Expiry of the admin key, as Boltz's list shows it; absent if it never expires, or if the list does not show it",
        |known| single(seconds(known.admin_key_expires_at)),
    ),
    of_boltz(
        "orphaned_keys",
        "Active keys with this cluster's marker that no BoltzApiKey and no Secret refers to",
        |known| single(known.orphaned_keys.map(count)),
    ),
    of_boltz(
        "inventory_keys",
        "Keys in Boltz's list, including keys that the operator does not manage",
        |known| single(known.pass.map(|pass| count(pass.keys))),
    ),
    of_boltz(
        "inventory_age_seconds",
        "Age of the newest complete read of Boltz's list of keys; before the first, since when this process leads",
        |known| single(since(known.pass.map(|pass| pass.started_at).or(known.leading_since))),
    ),
    of_boltz("inventory_interval_seconds", "How often Boltz's list of keys is to be read", |known| {
        single(Some(known.inventory_interval.as_secs_f64()))
    }),
    of_boltz(
        "inventory_doubtful",
        "Whether the newest read of Boltz's list lacks so many keys that their absence is not believed",
        |known| single(known.pass.map(|pass| pass.is_doubtful)),
    ),
    of_boltz(
        "inventory_missing_keys",
        "Keys that the newest read of Boltz's list lacks although earlier reads showed them as active",
        |known| single(known.pass.map(|pass| count(pass.missing))),
    ),
    of_boltz("mint_queue_length", "Objects that wait for their turn to get a new key", |known| {
        let each = known.waiting.into_iter().flatten();
        each.map(|(class, length)| (vec![("class", class.to_owned())], count(length))).collect()
    }),
];

/// What Boltz's responses say, to whoever calls.
#[derive(Debug, Default)]
pub(super) struct Responses {
    pub clock_skew: Option<i64>,
    pub retry_at: Option<Timestamp>,
}

const fn of_responses(
    name: &'static str,
    help: &'static str,
    series: fn(&Responses) -> Vec<Series>,
) -> Computed<Responses> {
    Computed { name, help, kind: Gauge, series }
}

/// One line for each metric.
pub(super) const RESPONSE_METRICS: &[Computed<Responses>] = &[
    of_responses(
        "clock_skew_seconds",
        "How far the clock of the operator is ahead of the clock in Boltz's newest response",
        #[allow(clippy::cast_precision_loss, reason = "no clock is so wrong")]
        |said| single(said.clock_skew.map(|seconds| seconds as f64)),
    ),
    of_responses(
        "api_retry_after_seconds",
        "What is left of the pause that Boltz asked for last (Retry-After)",
        |said| {
            single(Some(
                said.retry_at
                    .map_or(0.0, |at| at.duration_since(Timestamp::now()).as_secs_f64().max(0.0).ceil()),
            ))
        },
    ),
];

#[allow(clippy::cast_precision_loss, reason = "nobody has so many keys")]
fn count(count: usize) -> f64 {
    count as f64
}
