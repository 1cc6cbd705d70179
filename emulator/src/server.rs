//! The emulator as a value in this process.

use crate::{
    api,
    clock::Clock,
    connection::{self, Connection},
    control,
    fault::{Fault, Operation, StandingFault},
    key::{AdminKey, Key},
    listen,
    settings::Settings,
    state::{CreateRequest, LoggedRequest, Principal, SharedState, State},
};
use axum::{Router, extract::Extension};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc};
use tokio::task::JoinHandle;

/// How an emulator starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0: a free one.
    pub listen: SocketAddr,
    /// The only key that may call the admin API at first.
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
        /// Where it should have listened.
        address: SocketAddr,
        /// The error of the socket.
        source: std::io::Error,
    },
}

/// An emulator. One that listens stops, and closes every connection, when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    state: SharedState,
    address: SocketAddr,
    admin_key: String,
    server: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts on the current runtime.
    pub async fn start(options: Options) -> Result<Self, EmulatorError> {
        let Options { listen, admin_key, settings } = options;
        let failed = |source| EmulatorError::Listen { address: listen, source };
        let listener = listen::listen(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state: SharedState =
            Arc::new(Mutex::new(State::new(settings, vec![AdminKey::new(admin_key.clone())])));
        let router = api::routes().merge(control::routes()).with_state(Arc::clone(&state));
        let server = Some(tokio::spawn(connection::serve(listener, router)));
        Ok(Self { state, address, admin_key, server })
    }

    /// One that does not listen: its requests come through [`Emulator::routes`], its time from that clock. Cuts are
    /// left to the caller, who has the connection in hand.
    pub fn in_memory(options: Options, clock: Clock) -> Self {
        let Options { listen, admin_key, settings } = options;
        let mut state = State::new(settings, vec![AdminKey::new(admin_key.clone())]);
        state.clock = clock;
        Self { state: Arc::new(Mutex::new(state)), address: listen, admin_key, server: None }
    }

    /// Boltz's API as a service.
    pub fn routes(&self) -> Router {
        api::routes().layer(Extension(Connection::default())).with_state(Arc::clone(&self.state))
    }

    /// For `BOLTZ_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The admin key that it was started with.
    pub fn admin_key(&self) -> &str {
        &self.admin_key
    }

    /// The admin keys before are no longer accepted.
    pub fn set_admin_keys(&self, keys: Vec<AdminKey>) {
        self.state.lock().admin_keys = keys;
    }

    /// Every key that was ever created, oldest first.
    pub fn keys(&self) -> Vec<Key> {
        self.state.lock().keys.clone()
    }

    /// Neither revoked nor expired, by the emulator's clock.
    pub fn active_keys(&self) -> Vec<Key> {
        let state = self.state.lock();
        let now = state.clock.now();
        state.keys.iter().filter(|key| key.authenticates(now)).cloned().collect()
    }

    /// The key with the id.
    pub fn key(&self, id: &str) -> Option<Key> {
        self.state.lock().key(id).cloned()
    }

    /// The id of the workspace key that authenticates with the plaintext now. Does not count as use.
    pub fn authenticate(&self, plaintext: &str) -> Option<String> {
        let state = self.state.lock();
        match state.authenticate(plaintext, state.clock.now())? {
            Principal::Workspace(id) => Some(id),
            Principal::Admin(..) => None,
        }
    }

    /// A fault for requests to come.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push_back(fault);
    }

    /// From now on every request is answered truthfully.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// A fault that stays until it is lifted. Another one of that name is replaced.
    pub fn stand(&self, name: &str, fault: StandingFault) {
        self.state.lock().standing.insert(name.to_owned(), fault);
    }

    /// The fault of that name stands no longer.
    pub fn lift(&self, name: &str) {
        self.state.lock().standing.remove(name);
    }

    /// How many requests the faults that wait are for.
    pub fn faults_waiting(&self) -> usize {
        self.state.lock().faults.iter().map(|fault| fault.times as usize).sum()
    }

    /// How many requests are held, by [`Outcome::Hold`](crate::Outcome::Hold) or
    /// [`Effect::OnRelease`](crate::Effect::OnRelease).
    pub fn held(&self) -> usize {
        self.state.lock().release.receiver_count()
    }

    /// How many effects are still to come, by [`Effect::After`](crate::Effect::After).
    pub fn late(&self) -> usize {
        self.state.lock().late
    }

    /// Lets the held requests go on.
    pub fn release(&self) {
        self.state.lock().release.send_replace(());
    }

    /// Changes how it answers from now on.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state.lock().settings);
    }

    /// How many requests of the kind came.
    pub fn count(&self, operation: Operation) -> usize {
        self.state.lock().count(operation)
    }

    /// All requests since the start, in the order of their arrival.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.state.lock().requests.clone()
    }

    /// As if a person revoked the key in Boltz's console.
    pub fn deactivate(&self, id: &str) {
        self.change_key(id, |key, now| {
            key.revoked_at.get_or_insert(now);
        });
    }

    /// As if the key's time were over.
    pub fn expire_now(&self, id: &str) {
        self.change_key(id, |key, now| key.expires_at = Some(now));
    }

    /// As if the key were used now.
    pub fn use_key(&self, id: &str) {
        self.change_key(id, |key, now| key.last_used_at = Some(now));
    }

    fn change_key(&self, id: &str, change: impl FnOnce(&mut Key, Timestamp)) {
        let mut state = self.state.lock();
        let now = state.clock.now();
        if let Some(key) = state.key_mut(id) {
            change(key, now);
        }
    }

    /// A key that somebody else made. Answers its id; none if the name is refused.
    pub fn create_foreign(&self, name: &str) -> Option<String> {
        let request = CreateRequest { name: Some(name.to_owned()), ..CreateRequest::default() };
        let mut state = self.state.lock();
        let now = state.clock.now();
        state.create(&request, now).ok().map(|key| key.id)
    }

    /// Forgets keys, faults and requests, and releases what is held. Settings and admin keys stay.
    pub fn reset(&self) {
        self.state.lock().reset();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
