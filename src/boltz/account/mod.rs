//! The state of the Boltz organization: client, validity of the admin key, pauses, limits, and whose turn it is to get a
//! new key.

mod admin_key_check;
mod calls;
mod describe;
mod expiry;
mod new_admin_key;
mod remembered;
mod share;

pub use calls::Call;
pub(crate) use describe::MOST;
pub(crate) use remembered::UnknownOrganization;

use self::expiry::AdminKeyExpiry;
use super::{
    breaker::{Breaker, Scope},
    limiter::{LONGEST_WAIT, Limiter, rate_limit_block},
    organization::Organization,
    queue::{MintLimits, MintQueue},
    waiters::Waiter,
};
use share::Slots;

use crate::{
    api::Mode,
    boltz::BoltzClient,
    observability::metrics::{AdminKeyState, Metrics},
    plan::{AccountFacts, Block, Monotonic, ObjectFacts, Reason},
    protocol::{account_name::AccountName, record::IssueReason},
};
use parking_lot::{Mutex, MutexGuard};
use secrecy::SecretString;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// One Boltz organization: the client, and what all objects share when they call Boltz.
#[derive(Debug)]
pub struct Account {
    name: AccountName,
    client: BoltzClient,
    limits: Mutex<MintLimits>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    organization: Mutex<Organization>,
    /// Changes when something is to be remembered.
    remembered: watch::Sender<u64>,
    /// Whether the admin key was checked at least once, and whether what is remembered was read.
    prepared: watch::Sender<(bool, bool)>,
    /// Changes with the admin key. Waiting objects are then reconciled.
    recovered: watch::Sender<u64>,
    queued: watch::Sender<u64>,
    revocations: Arc<Slots>,
    /// Requests a check of the admin key.
    check: Notify,
    /// The admin key that was checked last.
    checked_key: Mutex<Option<watch::Receiver<Option<SecretString>>>>,
    admin_key_expiry: Mutex<AdminKeyExpiry>,
}

#[derive(Debug)]
struct State {
    admin_key: AdminKey,
    /// The admin key has changed, and it is not known yet whose it is.
    is_unchecked: bool,
    lacks_auth_me: bool,
    limiter: Limiter,
    breaker: Breaker,
    queue: MintQueue,
}

/// What is known about the admin key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AdminKey {
    /// Valid, or not checked yet.
    Usable,
    /// Can create test-mode keys only.
    TestMode,
    /// Rejected by Boltz, or not an admin key.
    Refused(String),
    /// It belongs to another organization than the keys.
    WrongOrganization(String),
}

impl AdminKey {
    /// Why it must not be used.
    fn refusal(&self) -> Option<&String> {
        match self {
            Self::Refused(message) | Self::WrongOrganization(message) => Some(message),
            Self::Usable | Self::TestMode => None,
        }
    }

    fn state(&self) -> AdminKeyState {
        match self {
            Self::Usable => AdminKeyState::Valid,
            Self::TestMode => AdminKeyState::TestMode,
            Self::Refused(_) => AdminKeyState::Refused,
            Self::WrongOrganization(_) => AdminKeyState::WrongOrganization,
        }
    }
}

impl State {
    /// Why Boltz must not be called at all.
    fn calls_blocked(&self, now: Monotonic) -> Option<Block> {
        if self.is_unchecked {
            let message = "The admin key has changed. The operator checks it first.".to_owned();
            return Some(Block { reason: Reason::BoltzUnauthorized, message, until: None });
        }
        match self.admin_key.refusal() {
            Some(message) => {
                Some(Block { reason: Reason::BoltzUnauthorized, message: message.clone(), until: None })
            }
            None => self.breaker.block_of(&Scope::Account, now),
        }
    }

    /// Gives turns, as many as there may be now.
    fn advance(&mut self, now: Monotonic) {
        for turn in self.queue.lost(now) {
            self.breaker.withdraw(&workspace(&turn.waiter), turn.began);
        }
        while self.calls_blocked(now).is_none() && self.limiter.next_at() <= now {
            let Self { breaker, queue, .. } = self;
            let is_open = |workspace: Option<&str>| {
                breaker.block_of(&Scope::Workspace(workspace.map(str::to_owned)), now).is_none()
            };
            let Some(waiter) = queue.grant(now, is_open) else { return };
            breaker.enter(&workspace(waiter), now);
            self.limiter.take(now);
        }
    }

    /// Whether it is the object's turn. A turn is postponed when calls are paused after it was given.
    fn has_turn(&mut self, uid: &str, now: Monotonic) -> bool {
        let is_refused = self.is_unchecked || self.admin_key.refusal().is_some();
        let Some(turn) = self.queue.turn(uid, now) else { return false };
        let (scope, began) = (workspace(&turn.waiter), turn.began);
        let is_closed = is_refused || self.breaker.is_paused_since(&scope, began, now);
        if is_closed {
            self.queue.postpone(uid);
            // Another call may try.
            self.breaker.withdraw(&scope, began);
        }
        !is_closed
    }

    fn leave(&mut self, uid: &str) {
        if let Some(turn) = self.queue.leave(uid) {
            self.breaker.withdraw(&workspace(&turn.waiter), turn.began);
        }
    }
}

fn workspace(waiter: &Waiter) -> Scope {
    Scope::Workspace(waiter.workspace.clone())
}

fn workspace_of(object: &ObjectFacts) -> Option<String> {
    object.spec.as_ref().ok()?.workspace_id.clone().filter(|id| !id.is_empty())
}

impl Account {
    /// The account of the flags, whose admin key has not been checked yet.
    pub fn new(client: BoltzClient, limits: MintLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            name: AccountName::OF_FLAGS,
            client,
            limits: Mutex::new(limits),
            metrics,
            state: Mutex::new(State {
                admin_key: AdminKey::Usable,
                is_unchecked: false,
                lacks_auth_me: false,
                limiter: Limiter::default(),
                breaker: Breaker::default(),
                queue: MintQueue::new(limits, Monotonic::default()),
            }),
            organization: Mutex::default(),
            remembered: watch::Sender::new(0),
            prepared: watch::Sender::new((false, true)),
            recovered: watch::Sender::new(0),
            queued: watch::Sender::new(0),
            revocations: Arc::new(Slots::new(limits.at_once)),
            check: Notify::new(),
            checked_key: Mutex::default(),
            admin_key_expiry: Mutex::default(),
        }
    }

    /// The account of this name.
    #[must_use]
    pub fn named(self, name: AccountName) -> Self {
        Self { name, ..self }
    }

    /// The name of the account.
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// Each call needs a permission first (`calls.rs`), and its result is reported afterwards.
    pub fn client(&self) -> &BoltzClient {
        &self.client
    }

    /// A new leader begins with an empty queue and a tenth of the tokens.
    pub(crate) fn lead(&self, now: Monotonic) {
        let state = &mut self.lock();
        let limits = *self.limits.lock();
        state.queue = MintQueue::new(limits, now);
        state.queue.set_most_turns(self.revocations.share());
        self.metrics.set_waiting(&self.name, state.queue.lengths());
    }

    /// Changes with the admin key.
    pub(crate) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// Why Boltz must not be called at all.
    pub(crate) fn calls_blocked(&self, now: Monotonic) -> Option<Block> {
        self.lock().calls_blocked(now)
    }

    /// The facts for this object.
    pub fn facts(&self, object: &ObjectFacts, now: Monotonic) -> AccountFacts {
        let mut state = self.lock();
        // The check of the key before it may still be in progress.
        state.is_unchecked |= self.is_admin_key_new();
        let has_turn = state.has_turn(&object.uid, now);
        let mode = object.spec.as_ref().map_or(Mode::default(), |spec| spec.mode);
        let organization = self.organization.lock();
        let names_altered = organization.names_altered().cloned();
        let names_altered =
            names_altered.map(|message| Block { reason: Reason::NamesAltered, message, until: None });
        let unknown = organization.mints_blocked().map(|message| Block {
            reason: Reason::BoltzUnauthorized,
            message: message.to_owned(),
            until: None,
        });
        let mints_blocked = (state.admin_key == AdminKey::TestMode && mode == Mode::Live).then(|| Block {
            reason: Reason::BoltzUnauthorized,
            message: "The operator's admin key is a test-mode key. It cannot create live keys.".to_owned(),
            until: None,
        });
        let busy_until = Some(state.limiter.next_at()).filter(|at| at.since(now) > LONGEST_WAIT);
        let calls_blocked = state.calls_blocked(now);
        let turn_blocked = (!has_turn).then(|| {
            let refused = calls_blocked.clone().filter(|block| block.until.is_none());
            let paused = state.breaker.reported_block(&Scope::Workspace(workspace_of(object))).cloned();
            let is_paused = state.breaker.block_of(&Scope::Workspace(workspace_of(object)), now).is_some();
            let is_short =
                !is_paused && state.limiter.next_at() <= now && state.queue.is_short(&object.namespace, now);
            refused.or(paused).unwrap_or_else(|| if is_short { being_issued() } else { wait_for_turn() })
        });
        // A turn includes the permission to call.
        let calls_blocked = calls_blocked.or_else(|| busy_until.map(rate_limit_block)).filter(|_| !has_turn);
        AccountFacts {
            name: self.name.clone(),
            calls_blocked,
            mints_blocked: unknown.or(mints_blocked).or(names_altered),
            base_url: self.client().base_url().to_owned(),
            lacks_auth_me: state.lacks_auth_me,
            organization: organization.current().cloned(),
            accepts_organization: organization.is_accepted(),
            turn_blocked,
            ..AccountFacts::default()
        }
    }

    /// The object wants a key for this reason, or no key. Returns whether its turn has come just now.
    pub fn wants_key(&self, object: &ObjectFacts, reason: Option<IssueReason>, now: Monotonic) -> bool {
        let mut state = self.lock();
        let Some(reason) = reason else {
            state.leave(&object.uid);
            self.queue_changed(state, now);
            return false;
        };
        if state.has_turn(&object.uid, now) {
            return false;
        }
        state.queue.join(Waiter {
            uid: object.uid.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            workspace: workspace_of(object),
            class: reason.into(),
        });
        state.advance(now);
        let has_turn = state.has_turn(&object.uid, now);
        self.queue_changed(state, now);
        has_turn
    }

    /// The object with this UID is gone.
    pub(crate) fn object_gone(&self, uid: &str, now: Monotonic) {
        let mut state = self.lock();
        state.leave(uid);
        self.queue_changed(state, now);
    }

    /// The names of the objects in this namespace, or in all, who have news; and when
    /// to look again.
    pub(crate) fn turns(
        &self,
        namespace: Option<&str>,
        now: Monotonic,
    ) -> (Vec<(String, String)>, Option<Monotonic>) {
        let mut state = self.lock();
        state.advance(now);
        let news = state.queue.with_news().filter(|waiter| namespace.is_none_or(|it| it == waiter.namespace));
        let news = news.map(|waiter| (waiter.namespace.clone(), waiter.name.clone())).collect();
        let limiter = Some(state.limiter.next_at()).filter(|at| *at > now);
        let times = [state.queue.next_at(now), state.breaker.next_at(now), limiter];
        (news, times.into_iter().flatten().min().filter(|_| state.queue.len() > 0))
    }

    pub(crate) fn queue_changes(&self) -> watch::Receiver<u64> {
        self.queued.subscribe()
    }

    fn queue_changed(&self, mut state: MutexGuard<'_, State>, now: Monotonic) {
        state.advance(now);
        self.metrics.set_waiting(&self.name, state.queue.lengths());
        let has_news = state.queue.len() > 0 || state.queue.with_news().next().is_some();
        drop(state);
        if has_news {
            self.queued.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn being_issued() -> Block {
    Block { reason: Reason::Pending, message: "A key is being issued.".to_owned(), until: None }
}

fn wait_for_turn() -> Block {
    Block {
        reason: Reason::MintBudgetExceeded,
        message: "Other objects are first. The number of new keys per minute is limited \
                  (--max-mints-per-minute, --max-mints-per-namespace)."
            .to_owned(),
        until: None,
    }
}
