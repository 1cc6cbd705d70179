//! The keys of the emulated organization.

use jiff::Timestamp;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A workspace key, also after its revocation or expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// What a revocation names.
    pub id: String,
    /// The full key: this emulator tells tests what Boltz tells nobody.
    pub plaintext: String,
    /// The addresses that may use it; empty: all.
    pub allowed_ips: Vec<String>,
    /// By the emulator's clock.
    pub created_at: Timestamp,
    /// When it expires; absent: never.
    pub expires_at: Option<Timestamp>,
    /// By the emulator's clock. Absent: not revoked.
    pub revoked_at: Option<Timestamp>,
    /// False for test-mode keys.
    pub livemode: bool,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// As the client wrote it.
    pub name: String,
    /// The default workspace, if the client named none.
    pub workspace_id: String,
}

impl Key {
    /// Whether it authenticates at that time.
    pub fn authenticates(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// The first 12 characters, as Boltz shows them. The same for every live key.
    pub fn prefix(&self) -> &str {
        &self.plaintext[..12]
    }

    /// The SHA-256 of the full key, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.plaintext).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A key that may call the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminKey {
    /// What clients send in `x-api-key`.
    pub plaintext: String,
    /// `admin`; or `workspace`, to try what a client makes of the wrong kind.
    #[serde(default = "admin")]
    pub key_type: String,
    /// `live`; or `test`, which creates test-mode keys only.
    #[serde(default = "live")]
    pub mode: String,
    /// The organization that it belongs to. Absent: that of the settings.
    #[serde(default)]
    pub organization_id: Option<String>,
    /// From then on it is refused. Absent: never. The list shows it.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

fn admin() -> String {
    "admin".to_owned()
}

fn live() -> String {
    "live".to_owned()
}

impl AdminKey {
    /// Of type `admin`, in mode `live`.
    pub fn new(plaintext: impl Into<String>) -> Self {
        Self {
            plaintext: plaintext.into(),
            key_type: admin(),
            mode: live(),
            organization_id: None,
            expires_at: None,
        }
    }
}

/// Unpredictable letters and digits.
pub fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}
