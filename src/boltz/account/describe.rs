//! The account for `/debug`. Without keys: what Boltz says was scrubbed.

use super::{Account, AdminKey};
use crate::{
    boltz::{account_data::Remembered, breaker::Scope, waiters::Waiter},
    observability::metrics::AdminKeyState,
    plan::{AccountState, AdminKeyReport, Monotonic},
};
use serde_json::{Value as Json, json};

/// Longer lists of `/debug` are cut.
pub(crate) const MOST: usize = 100;

impl Account {
    /// The organization of the admin key, if Boltz or the operator's memory names it.
    pub(crate) fn organization_id(&self) -> Option<String> {
        self.organization.lock().current().cloned()
    }

    /// What the status of its `BoltzAccount` says of it.
    pub(crate) fn describe_to(&self, described: &mut AccountState) {
        described.admin_key_expires_at = self.admin_key_expires_at();
        let (is_checked, is_read) = *self.prepared.borrow();
        let organization = self.organization.lock();
        let remembered = organization.remembered();
        described.organization = organization.current().cloned();
        described.names_altered = organization.names_altered().cloned();
        let was_used = remembered.is_none_or(Remembered::has_been_used);
        let published = remembered.and_then(|known| known.admin_key.clone());
        drop(organization);
        let state = self.lock();
        described.admin_key = match &state.admin_key {
            _ if !is_checked || state.is_unchecked => AdminKeyReport::Unchecked,
            AdminKey::Refused(message) => AdminKeyReport::Refused(message.clone()),
            AdminKey::WrongOrganization(message) => AdminKeyReport::OtherOrganization(message.clone()),
            _ if published.as_deref() == Some(AdminKeyState::Unreachable.into()) => {
                AdminKeyReport::Unreachable
            }
            AdminKey::TestMode => AdminKeyReport::TestMode,
            AdminKey::Usable => AdminKeyReport::Valid,
        };
        let is_usable = matches!(described.admin_key, AdminKeyReport::Valid | AdminKeyReport::TestMode);
        described.may_have_keys = !is_read || was_used || is_usable;
    }

    /// What the account waits for: queue, turns, pauses, limit of calls, admin key.
    pub(crate) fn describe(&self, now: Monotonic) -> Json {
        let state = self.lock();
        let lengths: serde_json::Map<String, Json> = state
            .queue
            .lengths()
            .into_iter()
            .map(|(class, length)| (class.to_owned(), json!(length)))
            .collect();
        let turns = state.queue.turns().map(|turn| {
            let mut described = waiter(&turn.waiter);
            described["ageSeconds"] = json!(now.since(turn.began).as_secs_f64());
            described["isKeyRequested"] = json!(turn.is_used);
            described
        });
        let pauses = state.breaker.pauses().map(|(paused, pause)| {
            json!({
                "scope": scope(paused),
                "reason": <&str>::from(pause.block.reason),
                "message": pause.block.message,
                "failures": pause.failures,
                "secondsLeft": pause.until.since(now).as_secs_f64(),
                "isTried": pause.trial.is_some(),
            })
        });
        json!({
            "mintQueue": {
                "length": state.queue.len(),
                "lengths": lengths,
                "waiting": state.queue.waiters().take(MOST).map(waiter).collect::<Vec<_>>(),
                "turns": turns.take(MOST).collect::<Vec<_>>(),
            },
            "pauses": pauses.take(MOST).collect::<Vec<_>>(),
            "limiter": {
                "callsPerSecond": state.limiter.rate(now),
                "nextCallInSeconds": state.limiter.next_at().since(now).as_secs_f64(),
            },
            "adminKey": {
                "state": <&str>::from(state.admin_key.state()),
                "isUnchecked": state.is_unchecked,
                "message": state.admin_key.refusal(),
            },
            "organization": self.organization.lock().current(),
        })
    }
}

fn waiter(waiter: &Waiter) -> Json {
    json!({
        "namespace": waiter.namespace,
        "name": waiter.name,
        "class": <&str>::from(waiter.class),
        "workspace": waiter.workspace,
    })
}

fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Account => "account".to_owned(),
        Scope::List => "list".to_owned(),
        Scope::Revocations => "revocations".to_owned(),
        Scope::Workspace(None) => "default workspace".to_owned(),
        Scope::Workspace(Some(id)) => format!("workspace {id}"),
    }
}
