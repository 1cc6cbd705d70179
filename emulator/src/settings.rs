//! What is not known of Boltz, and what a test wants to be different.

use serde::{Deserialize, Serialize};

/// How the emulator behaves. The defaults are guesses; a client has to survive every value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The length of a day, in milliseconds: keys expire after so many of these.
    pub day_milliseconds: u64,
    /// Whether the list holds revoked and expired keys.
    pub list_inactive: bool,
    /// Whether the list of all workspaces holds the admin keys too, which have no workspace.
    pub list_admin_keys: bool,
    /// Whether the list begins with the newest key.
    pub newest_first: bool,
    /// Whether `is_active` turns false on expiry.
    pub expiry_deactivates: bool,
    /// Whether a second key with the name of an active one is refused.
    pub unique_names: bool,
    /// The longest name, in characters; absent: no limit.
    pub longest_name: Option<usize>,
    /// Longer names are cut to so many characters; absent: names stay as they are.
    pub names_cut_to: Option<usize>,
    /// How long a new key is missing from the list, in milliseconds.
    pub list_lag_milliseconds: u64,
    /// The most keys on a page, whatever the client asks for.
    pub page_size: usize,
    /// How many requests per second are taken, and at once after a pause, before 429; absent: no limit.
    pub requests_per_second: Option<u32>,
    /// How long every answer is held back, in milliseconds.
    pub latency_milliseconds: u64,
    /// The largest `limit` of a list that is not refused.
    pub largest_limit: usize,
    /// The status that refuses a larger one.
    pub larger_limit_status: u16,
    /// The id of the organization, as `auth/me` says it; absent: it says none.
    pub organization_id: Option<String>,
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
            list_admin_keys: false,
            newest_first: true,
            expiry_deactivates: true,
            unique_names: false,
            longest_name: None,
            names_cut_to: None,
            list_lag_milliseconds: 0,
            page_size: 1000,
            requests_per_second: None,
            latency_milliseconds: 0,
            largest_limit: 1000,
            larger_limit_status: 422,
            organization_id: Some("org_example".to_owned()),
            has_auth_me: true,
            revoking_twice_fails: false,
        }
    }
}
