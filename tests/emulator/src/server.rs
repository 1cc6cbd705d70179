//! The emulator as a server in this process.

use crate::{
    api::{self, SharedState, lock},
    control,
    fault::{Fault, Operation},
    state::{AdminKey, CreateRequest, Key, LoggedRequest, Principal, Settings, State},
};
use jiff::Timestamp;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// How an emulator starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0: a free one.
    pub listen: SocketAddr,
    /// The admin key.
    pub admin_key: String,
    /// Everything else.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_key: "sk_bc_admin_live_emulated".to_owned(),
            settings: Settings::default(),
        }
    }
}

/// The emulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running emulator. It stops when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    state: SharedState,
    address: SocketAddr,
    admin_key: String,
    server: JoinHandle<()>,
}

impl Emulator {
    /// Starts on the current runtime.
    pub async fn start(options: Options) -> Result<Self, EmulatorError> {
        let address = options.listen;
        let failed = |source| EmulatorError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let admin = AdminKey {
            plaintext: options.admin_key.clone(),
            key_type: "admin".to_owned(),
            mode: "live".to_owned(),
        };
        let state: SharedState = Arc::new(Mutex::new(State::new(options.settings, vec![admin])));
        let router = api::routes().merge(control::routes()).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the emulator has ended");
            }
        });
        Ok(Self { state, address, admin_key: options.admin_key, server })
    }

    /// For `BOLTZ_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The admin key that it was started with.
    pub fn admin_key(&self) -> &str {
        &self.admin_key
    }

    /// Replaces the admin keys.
    pub fn set_admin_keys(&self, keys: Vec<AdminKey>) {
        lock(&self.state).admin_keys = keys;
    }

    /// Every key that was ever created, oldest first.
    pub fn keys(&self) -> Vec<Key> {
        lock(&self.state).keys.clone()
    }

    /// Those that authenticate now.
    pub fn active_keys(&self) -> Vec<Key> {
        let now = Timestamp::now();
        self.keys().into_iter().filter(|key| key.authenticates(now)).collect()
    }

    /// The key with the id.
    pub fn key(&self, id: &str) -> Option<Key> {
        lock(&self.state).key(id).cloned()
    }

    /// The id of the workspace key that authenticates with the plaintext now. Does not count as use.
    pub fn authenticate(&self, plaintext: &str) -> Option<String> {
        match lock(&self.state).authenticate(plaintext, Timestamp::now())? {
            Principal::Workspace(id) => Some(id),
            Principal::Admin(_) => None,
        }
    }

    /// A fault for requests to come.
    pub fn inject(&self, fault: Fault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        lock(&self.state).faults.clear();
    }

    /// Changes settings.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.state).settings);
    }

    /// How many requests of the kind came.
    pub fn count(&self, operation: Operation) -> usize {
        lock(&self.state).count(operation)
    }

    /// Every request.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.state).requests.clone()
    }

    /// As if a person revoked the key in Boltz's console.
    pub fn deactivate(&self, id: &str) {
        let _ = lock(&self.state).revoke(id, Timestamp::now());
    }

    /// As if the key were used now.
    pub fn use_key(&self, id: &str) {
        if let Some(key) = lock(&self.state).key_mut(id) {
            key.last_used_at = Some(Timestamp::now());
        }
    }

    /// A key that somebody else made. Answers its id.
    pub fn create_foreign(&self, name: &str) -> Option<String> {
        let request = CreateRequest {
            name: Some(name.to_owned()),
            allowed_ips: None,
            expires_in_days: None,
            mode: None,
            workspace_id: None,
        };
        lock(&self.state).create(&request, Timestamp::now()).ok().map(|key| key.id)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
