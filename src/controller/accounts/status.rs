//! The status of one `BoltzAccount`: what is known of it, and the write.

use super::task::{AccountTask, INTERVAL, Serving, Unserved};
use crate::{
    api::{AccountKeyCounts, BoltzAccountSpec, WatchedAccount},
    controller::accounts::AccountSettings,
    kubernetes::remembered,
    plan::{AccountState, Doubt, PassReport, backoff::Backoff},
};
use kube::ResourceExt;
use serde_json::json;
use std::{collections::HashSet, time::Duration};

/// So many writes of the status may follow each other without a pause.
const FREE_STATUS_WRITES: u32 = 10;
const STATUS_PAUSE: Backoff = Backoff::from_secs(2, 120);

impl AccountTask {
    /// Writes the status, if it says something else than before.
    pub(super) async fn write_status(&mut self, account: &WatchedAccount, state: &AccountState) {
        let old = account.status.clone().unwrap_or_default();
        let status = state.status(&old, self.context.clock.now().wall);
        if account.status.as_ref() != Some(&status) && self.may_write_status() {
            let mut fields = json!(status);
            // What is not there any more goes.
            let before = json!(old);
            for name in before.as_object().into_iter().flat_map(serde_json::Map::keys) {
                if fields.get(name).is_none() {
                    fields[name] = serde_json::Value::Null;
                }
            }
            let patch = json!({"metadata": {"uid": account.metadata.uid}, "status": fields});
            if let Err(error) =
                self.context.kubernetes.patch_account_status(&account.name_any(), &patch).await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    account = account.name_any(),
                    error,
                    "failed to write the status of a BoltzAccount"
                );
            }
        }
    }

    /// Somebody may undo each write of the status: then there is a pause.
    fn may_write_status(&mut self) -> bool {
        let (writes, last) = self.status_writes;
        let now = self.context.clock.now().monotonic;
        let since = last.map_or(Duration::MAX, |last| now.since(last));
        let pause = writes.checked_sub(FREE_STATUS_WRITES).map(|more| STATUS_PAUSE.after(more + 1));
        let may_write = since >= pause.unwrap_or_default();
        if may_write {
            self.status_writes = (if since >= STATUS_PAUSE.longest { 1 } else { writes + 1 }, Some(now));
        }
        may_write
    }

    /// What is known of the account.
    pub(super) async fn state(&self, account: &WatchedAccount, unserved: Option<Unserved>) -> AccountState {
        let mut state = AccountState {
            generation: account.metadata.generation,
            is_deleting: account.is_deleting(),
            unserved,
            interval: account.spec.as_ref().map_or(INTERVAL, BoltzAccountSpec::inventory_interval),
            objects: self.context.awaited.users_of(&self.name),
            may_have_keys: true,
            ..AccountState::default()
        };
        let Some(Serving { served, .. }) = &self.serving else {
            if state.is_deleting {
                state.may_have_keys = self.is_remembered().await;
            }
            return state;
        };
        served.account.describe_to(&mut state);
        let same = self.context.accounts.of_same_organization(served);
        state.same_organization = same.iter().map(|other| other.name().to_string()).collect();
        state.list_failing = served.inventory.list_failing().map(|block| block.message);
        let orphans = served.orphans();
        let now = self.context.clock.now();
        if let Some(pass) = served.inventory.snapshots().first() {
            let settling = self.context.settings.window() + self.context.settings.settle_time;
            let settled_at = self.deleting_since.map(|since| since.plus(settling));
            let shows_all = settled_at.is_none_or(|at| pass.started >= at);
            if let Some(at) = settled_at.filter(|at| *at <= now.monotonic && !shows_all) {
                served.inventory.request_pass_since(at);
            }
            let current: HashSet<String> = self.context.secrets.current_key_ids();
            // Another account may be of the same organization.
            let own =
                pass.by_object().filter(|(mark, _)| !self.context.awaited.uses_another(mark, &self.name));
            let active = own.flat_map(|(_, keys)| keys).filter(|key| key.is_active_at(now.wall));
            let active: Vec<&String> = active.map(|key| &key.id).collect();
            let orphaned = orphans.as_ref().map_or(0, |orphans| orphans.count);
            let in_use = active.iter().filter(|id| current.contains(**id)).count();
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            state.keys = Some(AccountKeyCounts {
                current: number(in_use),
                previous: number(active.len().saturating_sub(in_use + orphaned)),
                orphaned: number(orphaned),
                foreign: number(pass.foreign),
            });
            let age = now.monotonic.since(pass.started);
            // What cannot be read may be a key of the account.
            let doubt = if pass.unreadable() > 0 { pass.doubt.max(Doubt::All) } else { pass.doubt };
            state.pass = Some(PassReport { age, doubt, active: active.len(), shows_all });
        }
        state.orphans = orphans.map(|orphans| orphans.oldest);
        state
    }

    /// Whether the account may have keys, although it is not served: Boltz accepted its admin key at some time.
    async fn is_remembered(&self) -> bool {
        let AccountSettings { remembered: (namespace, name), names, .. } = self.settings.as_ref();
        let client = self.context.kubernetes.client().clone();
        let read = remembered::read(client, namespace, name, &self.name, names).await;
        read.map_or(true, |remembered| remembered.has_been_used())
    }
}
