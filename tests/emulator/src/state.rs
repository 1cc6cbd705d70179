//! What the emulated organization holds. No I/O.

use crate::fault::{Fault, Operation};
use jiff::Timestamp;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// A workspace key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// The full key: this emulator tells tests what Boltz tells nobody.
    pub plaintext: String,
    /// The addresses that may use it; empty: all.
    pub allowed_ips: Vec<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it expires; absent: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// False in test mode.
    pub livemode: bool,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// The free text.
    pub name: String,
    /// The workspace.
    pub workspace_id: String,
}

impl Key {
    /// Whether it authenticates at that time.
    pub fn authenticates(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// The first 12 characters.
    pub fn prefix(&self) -> &str {
        &self.plaintext[..12]
    }
}

/// An admin key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminKey {
    /// The full key.
    pub plaintext: String,
    /// `admin`; or `workspace`, to try what a client makes of the wrong kind.
    #[serde(default = "admin")]
    pub key_type: String,
    /// `live` or `test`.
    #[serde(default = "live")]
    pub mode: String,
}

fn admin() -> String {
    "admin".to_owned()
}

fn live() -> String {
    "live".to_owned()
}

/// What is not known of Boltz, and what a test wants to be different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The length of a day, in milliseconds: keys expire after so many of these.
    pub day_milliseconds: u64,
    /// Whether the list holds revoked and expired keys.
    pub list_inactive: bool,
    /// Whether the list begins with the newest key.
    pub newest_first: bool,
    /// Whether `is_active` turns false on expiry.
    pub expiry_deactivates: bool,
    /// Whether a second key with the name of an active one is refused.
    pub unique_names: bool,
    /// How long a new key is missing from the list, in milliseconds.
    pub list_lag_milliseconds: u64,
    /// The most keys on a page, whatever the client asks for.
    pub page_size: usize,
    /// Requests per second before 429 is answered; absent: no limit.
    pub requests_per_second: Option<u32>,
    /// Whether there is `auth/me`.
    pub has_auth_me: bool,
    /// Whether revoking a revoked key is an error.
    pub revoking_twice_fails: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            day_milliseconds: 24 * 3600 * 1000,
            list_inactive: true,
            newest_first: true,
            expiry_deactivates: true,
            unique_names: false,
            list_lag_milliseconds: 0,
            page_size: 1000,
            requests_per_second: None,
            has_auth_me: true,
            revoking_twice_fails: false,
        }
    }
}

/// One request, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedRequest {
    /// What it asked for.
    pub operation: Operation,
    /// When.
    pub at: Timestamp,
    /// The key's id, for a revocation; its name, for a create.
    pub subject: String,
    /// The status that was answered; absent: none was.
    pub status: Option<u16>,
}

/// What a create asks for, after validation of its form.
#[derive(Clone, Debug, Deserialize)]
pub struct CreateRequest {
    /// Required, not empty.
    #[serde(default)]
    pub name: Option<String>,
    /// IPv4 or IPv6 addresses.
    #[serde(default)]
    pub allowed_ips: Option<Vec<String>>,
    /// At least 1.
    #[serde(default)]
    pub expires_in_days: Option<i64>,
    /// `live` or `test`.
    #[serde(default)]
    pub mode: Option<String>,
    /// Any.
    #[serde(default)]
    pub workspace_id: Option<String>,
}

/// The whole state.
#[derive(Debug, Default)]
pub struct State {
    /// The settings.
    pub settings: Settings,
    /// The admin keys that are taken.
    pub admin_keys: Vec<AdminKey>,
    /// Every key that was ever created, oldest first.
    pub keys: Vec<Key>,
    /// Faults that wait for their requests.
    pub faults: VecDeque<Fault>,
    /// Every request.
    pub requests: Vec<LoggedRequest>,
    index_by_id: HashMap<String, usize>,
    index_by_plaintext: HashMap<String, usize>,
    window: Option<(i64, u32)>,
}

/// Who a plaintext authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An admin key.
    Admin(AdminKey),
    /// A workspace key, by its id.
    Workspace(String),
}

/// A refusal, as the API words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The machine-readable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// A refusal.
pub fn refusal(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into() }
}

impl State {
    /// An organization without keys.
    pub fn new(settings: Settings, admin_keys: Vec<AdminKey>) -> Self {
        Self { settings, admin_keys, ..Self::default() }
    }

    /// The first fault for the operation, one time less.
    pub fn take_fault(&mut self, operation: Operation) -> Option<Fault> {
        let index =
            self.faults.iter().position(|fault| fault.operation.is_none_or(|wanted| wanted == operation))?;
        let fault = self.faults.get_mut(index)?;
        let taken = fault.clone();
        fault.times = fault.times.saturating_sub(1);
        if fault.times == 0 {
            self.faults.remove(index);
        }
        Some(taken)
    }

    /// Counts the request against the limit.
    pub fn is_over_the_limit(&mut self, now: Timestamp) -> bool {
        let Some(limit) = self.settings.requests_per_second else { return false };
        let second = now.as_second();
        let count = match self.window {
            Some((start, count)) if start == second => count + 1,
            _ => 1,
        };
        self.window = Some((second, count));
        count > limit
    }

    /// Who presents the key.
    pub fn authenticate(&self, plaintext: &str, now: Timestamp) -> Option<Principal> {
        if let Some(admin) = self.admin_keys.iter().find(|admin| admin.plaintext == plaintext) {
            return Some(Principal::Admin(admin.clone()));
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

    /// Creates a key.
    pub fn create(&mut self, request: &CreateRequest, now: Timestamp) -> Result<Key, Refusal> {
        let invalid = |message: &str| refusal(422, "VALIDATION_ERROR", message);
        let name = request.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("name: must not be empty"));
        }
        let livemode = match request.mode.as_deref() {
            None | Some("live") => true,
            Some("test") => false,
            Some(_) => return Err(invalid("mode: must be 'live' or 'test'")),
        };
        let allowed_ips = request.allowed_ips.clone().unwrap_or_default();
        if let Some(bad) = allowed_ips.iter().find(|text| text.parse::<std::net::IpAddr>().is_err()) {
            return Err(invalid(&format!("allowed_ips: '{bad}' is not an IP address")));
        }
        let expires_at = match request.expires_in_days {
            None => None,
            Some(days) => {
                let days = u64::try_from(days).ok().filter(|days| *days >= 1);
                let days = days.ok_or_else(|| invalid("expires_in_days: must be at least 1"))?;
                let life = Duration::from_millis(self.settings.day_milliseconds.saturating_mul(days));
                Some(now.checked_add(life).map_err(|_| invalid("expires_in_days: too far away"))?)
            }
        };
        if self.settings.unique_names
            && self.keys.iter().any(|key| key.name == name && key.authenticates(now))
        {
            return Err(refusal(409, "CONFLICT", "a key with this name exists"));
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
            name,
            workspace_id: request.workspace_id.clone().unwrap_or_else(|| "ws_default".to_owned()),
        };
        self.index_by_id.insert(key.id.clone(), self.keys.len());
        self.index_by_plaintext.insert(key.plaintext.clone(), self.keys.len());
        self.keys.push(key.clone());
        Ok(key)
    }

    /// Revokes a key.
    pub fn revoke(&mut self, id: &str, now: Timestamp) -> Result<Key, Refusal> {
        let twice_fails = self.settings.revoking_twice_fails;
        let key = self.key_mut(id).ok_or_else(|| refusal(404, "NOT_FOUND", "no such API key"))?;
        if key.revoked_at.is_some() && twice_fails {
            return Err(refusal(400, "BAD_REQUEST", "the API key is already revoked"));
        }
        key.revoked_at.get_or_insert(now);
        Ok(key.clone())
    }

    /// One page of the list, and whether there is more in that direction.
    pub fn page(
        &self,
        after: Option<&str>,
        before: Option<&str>,
        limit: usize,
        workspace: Option<&str>,
        now: Timestamp,
    ) -> Result<(Vec<&Key>, bool), Refusal> {
        let lag = Duration::from_millis(self.settings.list_lag_milliseconds);
        let is_listed = |key: &&Key| {
            workspace.is_none_or(|workspace| key.workspace_id == workspace)
                && (self.settings.list_inactive || key.authenticates(now))
                && (lag.is_zero() || key.created_at.checked_add(lag).is_ok_and(|shown| shown <= now))
        };
        let position = |id: &str| {
            self.index_by_id.get(id).copied().ok_or_else(|| refusal(400, "BAD_REQUEST", "unknown cursor"))
        };
        let newest_first = self.settings.newest_first;
        let count = self.keys.len();
        // In the order of the list, index 0 is the first row.
        let row_of = |index: usize| if newest_first { count - 1 - index } else { index };
        let at_row = |row: usize| &self.keys[if newest_first { count - 1 - row } else { row }];
        if let Some(before) = before {
            let end = row_of(position(before)?);
            let mut rows: Vec<&Key> = (0..end).rev().map(at_row).filter(is_listed).take(limit + 1).collect();
            let more = rows.len() > limit;
            rows.truncate(limit);
            rows.reverse();
            return Ok((rows, more));
        }
        let start = match after {
            Some(after) => row_of(position(after)?) + 1,
            None => 0,
        };
        let mut rows: Vec<&Key> = (start..count).map(at_row).filter(is_listed).take(limit + 1).collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows, more))
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

fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}
