//! What the emulated organization holds, and what was asked of it. No I/O.

use crate::{
    clock::Clock,
    fault::{Fault, Operation, StandingFault},
    key::{AdminKey, Key, random_text},
    rate::TokenBucket,
    settings::Settings,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

const ADMIN_KEY_ID: &str = "key_admin_";
const DEFAULT_WORKSPACE: &str = "ws_default";

/// The state, shared by all requests.
pub type SharedState = Arc<Mutex<State>>;

/// One request, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedRequest {
    /// Which call of the API it was.
    pub operation: Operation,
    /// When it arrived, by the emulator's clock.
    pub at: Timestamp,
    /// The key's id, for a revocation; its name, for a create.
    pub subject: String,
    /// The status that was answered; absent: none yet, or none at all.
    pub status: Option<u16>,
}

/// What a create asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    /// Required, not empty.
    pub name: Option<String>,
    /// IPv4 or IPv6 addresses.
    pub allowed_ips: Option<Vec<String>>,
    /// At least 1.
    pub expires_in_days: Option<i64>,
    /// `live` or `test`.
    pub mode: Option<String>,
    /// Any.
    pub workspace_id: Option<String>,
}

/// Where a page of the list begins or ends, and how long it is.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// The page begins after the key with this id.
    pub after: Option<&'a str>,
    /// The page ends before the key with this id.
    pub before: Option<&'a str>,
    /// The most rows.
    pub limit: usize,
    /// Only keys of this workspace.
    pub workspace: Option<&'a str>,
}

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// An admin key, by its place among them.
    Admin(usize, &'a AdminKey),
    /// A workspace key.
    Workspace(&'a Key),
}

impl Row<'_> {
    /// The key's id.
    pub fn id(&self) -> String {
        match self {
            Self::Admin(place, _) => admin_key_id(*place),
            Self::Workspace(key) => key.id.clone(),
        }
    }
}

/// Who a plaintext authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An admin key, by its place among them.
    Admin(usize, AdminKey),
    /// A workspace key, by its id.
    Workspace(String),
}

/// A refusal, as the API words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status of the answer.
    pub status: u16,
    /// The field `code` of the answer's body.
    pub code: &'static str,
    /// The field `message` of the answer's body.
    pub message: String,
    /// What is wrong in particular.
    pub details: Option<Json>,
}

impl Refusal {
    /// Without details.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None }
    }

    /// A value that is not allowed.
    pub fn invalid(field: &str, message: &str) -> Self {
        Self {
            status: 422,
            code: "VALIDATION_ERROR",
            message: format!("{field}: {message}"),
            details: Some(json!([{"field": field, "message": message}])),
        }
    }
}

/// The whole state.
#[derive(Debug, Default)]
pub struct State {
    /// How this emulator differs from the default.
    pub settings: Settings,
    /// The admin keys that are taken.
    pub admin_keys: Vec<AdminKey>,
    /// Decides what is expired.
    pub clock: Clock,
    /// Every key that was ever created, oldest first.
    pub keys: Vec<Key>,
    /// Faults that wait for their requests.
    pub faults: VecDeque<Fault>,
    /// Faults that stay until they are lifted, by their names.
    pub standing: BTreeMap<String, StandingFault>,
    /// In the order of their arrival.
    pub requests: Vec<LoggedRequest>,
    /// Wakes the held requests.
    pub release: watch::Sender<()>,
    /// How many effects are still to come, by [`Effect::After`](crate::Effect::After).
    pub late: usize,
    /// How often it was reset: what began before a reset must not show after it.
    pub epoch: u64,
    bucket: TokenBucket,
    index_by_id: HashMap<String, usize>,
    index_by_plaintext: HashMap<String, usize>,
}

impl State {
    /// An organization without keys.
    pub fn new(settings: Settings, admin_keys: Vec<AdminKey>) -> Self {
        Self { settings, admin_keys, ..Self::default() }
    }

    /// Forgets keys, faults and requests, and releases what is held. Settings and admin keys stay.
    pub fn reset(&mut self) {
        self.release.send_replace(());
        *self = Self {
            settings: std::mem::take(&mut self.settings),
            admin_keys: std::mem::take(&mut self.admin_keys),
            clock: self.clock,
            release: std::mem::take(&mut self.release),
            epoch: self.epoch + 1,
            ..Self::default()
        };
    }

    /// The first fault for the operation, one time less; else the first that stands.
    pub fn take_fault(
        &mut self,
        operation: Operation,
        subject: &str,
        workspace: Option<&str>,
    ) -> Option<Fault> {
        let counted =
            self.faults.iter().position(|fault| fault.operation.is_none_or(|wanted| wanted == operation));
        let Some(index) = counted else {
            let workspace = match operation {
                Operation::Create => Some(workspace.unwrap_or(DEFAULT_WORKSPACE)),
                Operation::Revoke => self.key(subject).map(|key| key.workspace_id.as_str()),
                Operation::List | Operation::AuthMe => workspace,
            };
            let mut standing = self.standing.values();
            return standing
                .find(|standing| standing.fits(operation, subject, workspace))
                .map(|standing| standing.fault.clone());
        };
        let fault = self.faults.get_mut(index)?;
        let taken = fault.clone();
        fault.times = fault.times.saturating_sub(1);
        if fault.times == 0 {
            self.faults.remove(index);
        }
        Some(taken)
    }

    /// Counts the request against the limit: how many seconds the client has to wait if it is over.
    pub fn limit(&mut self, now: Timestamp) -> Result<(), u64> {
        match self.settings.requests_per_second {
            Some(per_second) => self.bucket.take(per_second, now),
            None => Ok(()),
        }
    }

    /// `None`: the text is no key that is active now.
    pub fn authenticate(&self, plaintext: &str, now: Timestamp) -> Option<Principal> {
        let is_it = |admin: &AdminKey| {
            admin.plaintext == plaintext && admin.expires_at.is_none_or(|expiry| expiry > now)
        };
        if let Some(place) = self.admin_keys.iter().position(is_it) {
            return Some(Principal::Admin(place, self.admin_keys[place].clone()));
        }
        let key = self.keys.get(*self.index_by_plaintext.get(plaintext)?)?;
        key.authenticates(now).then(|| Principal::Workspace(key.id.clone()))
    }

    /// The key with the id.
    pub fn key(&self, id: &str) -> Option<&Key> {
        self.keys.get(*self.index_by_id.get(id)?)
    }

    /// The key with the id, to change it.
    pub fn key_mut(&mut self, id: &str) -> Option<&mut Key> {
        let index = *self.index_by_id.get(id)?;
        self.keys.get_mut(index)
    }

    /// Checks the request as Boltz does, and adds a key.
    pub fn create(&mut self, request: &CreateRequest, now: Timestamp) -> Result<Key, Refusal> {
        let name = request.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::invalid("name", "must not be empty"));
        }
        if self.settings.longest_name.is_some_and(|longest| name.chars().count() > longest) {
            return Err(Refusal::invalid("name", "is too long"));
        }
        let livemode = match request.mode.as_deref() {
            None | Some("live") => true,
            Some("test") => false,
            Some(_) => return Err(Refusal::invalid("mode", "must be 'live' or 'test'")),
        };
        let allowed_ips = request.allowed_ips.clone().unwrap_or_default();
        if allowed_ips.iter().any(|text| text.parse::<std::net::IpAddr>().is_err()) {
            return Err(Refusal::invalid("allowed_ips", "must be IPv4 or IPv6 addresses"));
        }
        let expires_at = request.expires_in_days.map(|days| self.expiry(days, now)).transpose()?;
        if self.settings.unique_names
            && self.keys.iter().any(|key| key.name == name && key.authenticates(now))
        {
            return Err(Refusal::new(409, "CONFLICT", "a key with this name exists"));
        }
        let mode = if livemode { "live" } else { "test" };
        let key = Key {
            id: format!("key_{}", random_text(20)),
            plaintext: format!("sk_bc_ws_{mode}_{}", random_text(40)),
            allowed_ips,
            created_at: now,
            expires_at,
            revoked_at: None,
            livemode,
            last_used_at: None,
            name: match self.settings.names_cut_to {
                Some(length) => name.chars().take(length).collect(),
                None => name,
            },
            workspace_id: request.workspace_id.clone().unwrap_or_else(|| DEFAULT_WORKSPACE.to_owned()),
        };
        self.index_by_id.insert(key.id.clone(), self.keys.len());
        self.index_by_plaintext.insert(key.plaintext.clone(), self.keys.len());
        self.keys.push(key.clone());
        Ok(key)
    }

    fn expiry(&self, days: i64, now: Timestamp) -> Result<Timestamp, Refusal> {
        let invalid = |message| Refusal::invalid("expires_in_days", message);
        let days = u64::try_from(days).ok().filter(|days| *days >= 1);
        let days = days.ok_or_else(|| invalid("must be at least 1"))?;
        let lifetime = Duration::from_millis(self.settings.day_milliseconds.saturating_mul(days));
        now.checked_add(lifetime).map_err(|_| invalid("is too far away"))
    }

    /// The key stays in the list, inactive.
    pub fn revoke(&mut self, id: &str, now: Timestamp) -> Result<Key, Refusal> {
        let twice_fails = self.settings.revoking_twice_fails;
        let key = self.key_mut(id).ok_or_else(|| Refusal::new(404, "NOT_FOUND", "no such API key"))?;
        if key.revoked_at.is_some() && twice_fails {
            return Err(Refusal::new(400, "BAD_REQUEST", "the API key is already revoked"));
        }
        key.revoked_at.get_or_insert(now);
        Ok(key.clone())
    }

    /// One page of the list, and whether there is more in that direction. Costs what the page is long, and the rows
    /// that a filter skips.
    pub fn page(&self, wanted: PageRequest<'_>, now: Timestamp) -> Result<(Vec<Row<'_>>, bool), Refusal> {
        let PageRequest { after, before, limit, workspace } = wanted;
        let lists_admins = self.settings.list_admin_keys && workspace.is_none();
        let admins = if lists_admins { self.admin_keys.as_slice() } else { &[] };
        let count = admins.len() + self.keys.len();
        let lag = Duration::from_millis(self.settings.list_lag_milliseconds);
        let is_listed = |row: &Row<'_>| match row {
            Row::Admin(..) => true,
            Row::Workspace(key) => {
                workspace.is_none_or(|workspace| key.workspace_id == workspace)
                    && (self.settings.list_inactive || key.authenticates(now))
                    && (lag.is_zero() || key.created_at.checked_add(lag).is_ok_and(|shown| shown <= now))
            }
        };
        // Rows are numbered in the order of the list. Admin keys are the oldest.
        let turned = |number: usize| if self.settings.newest_first { count - 1 - number } else { number };
        let row = |number: usize| match turned(number) {
            place if place < admins.len() => Row::Admin(place, &admins[place]),
            place => Row::Workspace(&self.keys[place - admins.len()]),
        };
        let number = |id: &str| {
            let place = match id.strip_prefix(ADMIN_KEY_ID).and_then(|place| place.parse::<usize>().ok()) {
                Some(place) => Some(place).filter(|place| *place < admins.len()),
                None => self.index_by_id.get(id).map(|index| index + admins.len()),
            };
            place.map(turned).ok_or_else(|| Refusal::new(400, "BAD_REQUEST", "unknown cursor"))
        };
        let (mut rows, backwards): (Vec<Row<'_>>, bool) = match (after, before) {
            (Some(_), Some(_)) => return Err(Refusal::invalid("before_id", "cannot go with after_id")),
            (None, Some(before)) => {
                let earlier = (0..number(before)?).rev().map(row).filter(is_listed);
                (earlier.take(limit + 1).collect(), true)
            }
            (after, None) => {
                let start = after.map(number).transpose()?.map_or(0, |number| number + 1);
                ((start..count).map(row).filter(is_listed).take(limit + 1).collect(), false)
            }
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        if backwards {
            rows.reverse();
        }
        Ok((rows, more))
    }

    /// What `auth/me` says. Counts as use.
    pub fn who_is(&mut self, principal: Principal, now: Timestamp) -> Json {
        let mut organization = self.settings.organization_id.clone();
        let (id, key_type, mode, workspace) = match principal {
            Principal::Admin(place, admin) => {
                let workspace = (admin.key_type == "workspace").then(|| DEFAULT_WORKSPACE.to_owned());
                organization = admin.organization_id.or(organization);
                (admin_key_id(place), admin.key_type, admin.mode, workspace)
            }
            Principal::Workspace(id) => {
                let key = self.key_mut(&id).map(|key| {
                    key.last_used_at = Some(now);
                    (key.livemode, key.workspace_id.clone())
                });
                let (livemode, workspace) = key.unzip();
                let mode = if livemode.unwrap_or(true) { "live" } else { "test" };
                (id, "workspace".to_owned(), mode.to_owned(), workspace)
            }
        };
        let mut answer = json!({
            "api_key_id": id,
            "key_type": key_type,
            "mode": mode,
            "organization_id": organization,
            "organization_name": "Emulated organization",
            "principal_type": "api_key",
            "selected_organization_id": organization,
        });
        if let Some(workspace) = workspace {
            answer["workspace_id"] = json!(workspace);
        }
        answer
    }

    /// How many requests of the kind came.
    pub fn count(&self, operation: Operation) -> usize {
        self.requests.iter().filter(|request| request.operation == operation).count()
    }

    /// How many requests of each kind got each status.
    pub fn counts(&self) -> BTreeMap<Operation, BTreeMap<String, usize>> {
        let mut counts: BTreeMap<Operation, BTreeMap<String, usize>> = BTreeMap::new();
        for request in &self.requests {
            let status = request.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            *counts.entry(request.operation).or_default().entry(status).or_default() += 1;
        }
        counts
    }
}

fn admin_key_id(place: usize) -> String {
    format!("{ADMIN_KEY_ID}{place}")
}
