//! The inventory: the newest passes over Boltz's list of keys, shared by all objects.
//!
//! One paginated pass serves all objects that request a pass not older than a given time.

use super::{
    account_data::Remembered,
    cluster_names::ClusterNames,
    fuse::{Fuse, Judgment},
    inventory_progress::{Activity, Progress},
    list_failure::ListFailure,
    pages::{PAGE_SIZE, Pages},
    pass::{AfterPage, InconsistentList, PassInProgress},
    snapshot::Snapshot,
};
use crate::{
    boltz::{
        BoltzError,
        account::{Account, Call, UnknownOrganization},
    },
    clock::Clock,
    observability::metrics::{Metrics, PassGauges},
    plan::{Block, Doubt, Monotonic},
    protocol::{account_name::AccountName, marker::ObjectMark},
    retry_delay,
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Minimum time between passes, so that requests by many objects are served by one pass.
const MIN_SPACING: Duration = Duration::from_millis(500);
/// A pass that takes longer has failed.
const MAX_PASS_DURATION: Duration = Duration::from_secs(15 * 60);
/// While a pass is doubtful, the next one follows at least this soon: three have to agree over an hour.
const INTERVAL_IN_DOUBT: Duration = Duration::from_secs(15 * 60);
/// A list without end must not be read at full speed.
const UNSPACED_PAGES: u32 = 20;
const PAGE_SPACING: Duration = Duration::from_millis(50);

/// The two newest complete passes, and the request for a newer one.
#[derive(Debug)]
pub struct Inventory {
    names: ClusterNames,
    /// The ids that each object refers to: a pass remembers whether Boltz lists them under other names.
    named: Mutex<HashMap<ObjectMark, Vec<String>>>,
    snapshots: Mutex<VecDeque<Arc<Snapshot>>>,
    fuse: Mutex<Fuse>,
    /// The limit of a page. `None`: a page with it failed, and no pass was complete since then.
    page_size: Mutex<Option<u32>>,
    list_failure: ListFailure,
    progress: Mutex<Progress>,
    requested: watch::Sender<Monotonic>,
    completed: watch::Sender<u64>,
}

/// Why a pass failed. It then proves nothing.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Boltz(#[from] BoltzError),
    #[error(transparent)]
    Inconsistent(#[from] InconsistentList),
    #[error("the admin key changed while Boltz's list of keys was read")]
    AdminKeyChanged,
    #[error("the organization of the admin key changed while Boltz's list of keys was read")]
    OrganizationChanged,
    #[error("Boltz's list of keys was not read completely within 15 minutes")]
    TooLong,
}

impl Inventory {
    /// An inventory without any pass yet.
    pub fn new(names: ClusterNames) -> Self {
        Self {
            names,
            named: Mutex::default(),
            snapshots: Mutex::default(),
            fuse: Mutex::default(),
            page_size: Mutex::new(Some(PAGE_SIZE)),
            progress: Mutex::default(),
            list_failure: ListFailure::default(),
            requested: watch::Sender::new(Monotonic::default()),
            completed: watch::Sender::new(0),
        }
    }

    /// The cluster names of our keys.
    pub fn names(&self) -> &ClusterNames {
        &self.names
    }

    /// The newest complete passes, newest first; at most two.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        self.snapshots.lock().iter().cloned().collect()
    }

    /// Whether the newest pass is doubtful.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.snapshots.lock().front().is_some_and(|pass| pass.doubt != Doubt::None)
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Why the list cannot be read, if that has lasted.
    pub(crate) fn list_failing(&self) -> Option<Block> {
        self.list_failure.block()
    }

    /// Changes with [`Inventory::list_failing`].
    pub(crate) fn list_failing_changes(&self) -> watch::Receiver<bool> {
        self.list_failure.changes()
    }

    fn is_now(&self, activity: Activity, clock: Clock) {
        let mut progress = self.progress.lock();
        (progress.activity, progress.since) = (Some(activity), clock.now().monotonic);
    }

    /// The ids that an object refers to. Passes that begin from now on know whether Boltz lists them under other names.
    pub fn set_named(&self, object: &ObjectMark, ids: &[String]) {
        let mut named = self.named.lock();
        if named.get(object).is_none_or(|known| known != ids) {
            named.insert(*object, ids.to_vec());
        }
    }

    /// Whether a key with this id exists already: one of these passes shows it, or an object refers to it.
    pub(crate) fn is_known(&self, id: &str, passes: &[Arc<Snapshot>]) -> bool {
        passes.iter().any(|pass| pass.lists(id))
            || self.named.lock().values().flatten().any(|known| known == id)
    }

    /// The object does not exist any more.
    pub(crate) fn forget(&self, object: &ObjectMark) {
        self.named.lock().remove(object);
    }

    /// Call after a revocation whose result is not known: a pass that shows the key as inactive does not lack it.
    pub(crate) fn mark_perhaps_revoked(&self, id: &str) {
        self.fuse.lock().record_possible_revocation(id);
    }

    /// Call after a successful revocation: later passes do not lack this key.
    /// Returns the number of keys that should be active.
    pub(crate) fn mark_revoked(&self, id: &str) -> usize {
        let mut fuse = self.fuse.lock();
        fuse.record_revocation(id);
        fuse.expected()
    }

    /// Requests a pass that begins at this time or later. Does not wait for it: see [`Inventory::completions`].
    pub fn request_pass_since(&self, since: Monotonic) {
        self.requested.send_if_modified(|requested| {
            let newer = since > *requested;
            *requested = (*requested).max(since);
            newer
        });
    }

    /// Changes with every completed pass.
    pub fn completions(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    /// Makes passes: one immediately, then one per interval, and one for each request. Does not end.
    pub async fn run(&self, account: &Account, interval: Duration, clock: Clock, metrics: &Metrics) {
        // Another leader may have revoked keys since this process led last.
        self.snapshots.lock().clear();
        *self.fuse.lock() = Fuse::default();
        let mut requested = self.requested.subscribe();
        let mut failures = 0;
        loop {
            self.is_now(Activity::WaitingForPermission, clock);
            let call = account.list_call(clock).await;
            self.is_now(Activity::Reading, clock);
            let started = clock.now().monotonic;
            let doubt = match self.pass(account, clock, call).await {
                Ok((mut snapshot, organization)) => {
                    failures = 0;
                    *self.progress.lock() = Progress::default();
                    self.list_failure.record_success();
                    // A large page may be possible again.
                    *self.page_size.lock() = Some(PAGE_SIZE);
                    let judgment = self.judge(&mut snapshot, organization, account, clock);
                    metrics.set_inventory(
                        account.name(),
                        PassGauges {
                            keys: snapshot.rows,
                            is_doubtful: judgment.doubt != Doubt::None,
                            missing: judgment.missing,
                            started_at: snapshot.started_at,
                        },
                    );
                    self.push(Arc::new(snapshot));
                    judgment.doubt
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        "failed to read the list of keys"
                    );
                    metrics.pass_failed();
                    self.list_failure.record_failure(error.to_string(), clock.now().monotonic);
                    {
                        let mut progress = self.progress.lock();
                        (progress.failures, progress.error) = (failures, Some(error.to_string()));
                    }
                    self.is_now(Activity::Idle, clock);
                    tokio::time::sleep(retry_delay::delay(failures, None)).await;
                    continue;
                }
            };
            self.is_now(Activity::Idle, clock);
            tokio::time::sleep(MIN_SPACING).await;
            let interval = if doubt == Doubt::None { interval } else { interval.min(INTERVAL_IN_DOUBT) };
            let next = clock.instant(started.plus(interval));
            let newer_requested = requested.wait_for(|since| *since > started);
            // The sender cannot be dropped here: the wait ends with a request or at the deadline.
            let _ = tokio::time::timeout_at(next, newer_requested).await;
        }
    }

    /// Says what the pass does not prove. The list of an organization that is not known teaches the fuse nothing.
    fn judge(
        &self,
        snapshot: &mut Snapshot,
        organization: Result<Option<String>, UnknownOrganization>,
        account: &Account,
        clock: Clock,
    ) -> Judgment {
        let mut fuse = self.fuse.lock();
        match organization {
            Ok(organization) => snapshot.organization = organization,
            Err(error @ UnknownOrganization) => {
                tracing::warn!("Boltz's list of keys cannot show that keys are missing: {error}");
                snapshot.doubt = Doubt::Many;
                return Judgment { doubt: Doubt::Many, missing: 0, expected: fuse.expected() };
            }
        }
        // What is remembered may be read late.
        let remembered = account.remembered();
        if let Some(remembered) = &remembered {
            fuse.remember(remembered.active_keys);
        }
        let confirmed = remembered.map_or(0, |remembered| remembered.confirmed_missing_keys);
        let judgment = fuse.judge(snapshot, confirmed, clock.now());
        if judgment.doubt == Doubt::None {
            account.end_confirmation();
            account.set_active_keys(fuse.expected());
        }
        snapshot.doubt = judgment.doubt;
        if snapshot.unreadable() > 0 {
            tracing::warn!(objects = snapshot.unreadable(), "Boltz's list shows keys without a readable id");
        }
        report(judgment, &self.names, account.name());
        judgment
    }

    /// One pass, and the organization whose list it is. Complete only if the list says so consistently, and if Boltz names
    /// the same organization before and after.
    async fn pass(
        &self,
        account: &Account,
        clock: Clock,
        first: Call,
    ) -> Result<(Snapshot, Result<Option<String>, UnknownOrganization>), PassError> {
        let admin_key = account.client().admin_key_changes();
        let mut organization = account.organization();
        if !matches!(organization, Ok(Some(_))) {
            account.ask_organization().await;
            organization = account.organization();
        }
        let named: HashSet<String> = self.named.lock().values().flatten().cloned().collect();
        let now = clock.now();
        let mut pass = PassInProgress::begin(now, &self.names, named);
        let pages = async {
            let mut pages = Pages::new(account, clock, &self.page_size, &self.list_failure, first);
            let mut after = None;
            for number in 0_u32.. {
                if number > UNSPACED_PAGES {
                    tokio::time::sleep(PAGE_SPACING).await;
                }
                let page = pages.page(after.as_deref()).await?;
                account.look_for_admin_key(&page.data, clock.now().wall);
                match pass.add(page)? {
                    AfterPage::Next(cursor) => after = Some(cursor),
                    AfterPage::Complete => break,
                }
            }
            Ok(())
        };
        let deadline = clock.instant(now.monotonic.plus(MAX_PASS_DURATION));
        tokio::time::timeout_at(deadline, pages).await.unwrap_or(Err(PassError::TooLong))?;
        // An error means that the key can never change again.
        if admin_key.has_changed().unwrap_or_default() {
            return Err(PassError::AdminKeyChanged);
        }
        account.ask_organization().await;
        if account.organization() != organization {
            return Err(PassError::OrganizationChanged);
        }
        let before = self.snapshots.lock().front().cloned();
        Ok((pass.complete(before.as_deref()), organization))
    }

    fn push(&self, snapshot: Arc<Snapshot>) {
        {
            let mut snapshots = self.snapshots.lock();
            snapshots.push_front(snapshot);
            snapshots.truncate(2);
        }
        self.completed.send_modify(|count| *count += 1);
    }
}

fn report(judgment: Judgment, names: &ClusterNames, account: &AccountName) {
    let Judgment { doubt, missing, expected } = judgment;
    if doubt != Doubt::None {
        tracing::warn!(
            missing,
            expected,
            confirm_with = format!("{}={missing}", Remembered::confirmation_key(names, account)),
            "Boltz's list of keys lacks keys that it showed before; it is not believed until three passes over an hour \
             agree, or until somebody confirms it in the operator's account ConfigMap"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boltz::{BoltzClient, BoltzClientOptions, KeyDetails, MintLimits},
        plan::Now,
        protocol::marker::{AttemptId, MarkerFormat},
    };
    use serde_json::json;

    fn account(metrics: &Arc<Metrics>) -> Account {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = BoltzClientOptions {
            base_url: "http://boltz.example".to_owned(),
            extra_roots_pem: None,
            request_timeout: MIN_SPACING,
        };
        let client = BoltzClient::new(options, watch::channel(None).1, Arc::clone(metrics)).unwrap();
        let limits = MintLimits { per_minute: 1, per_namespace: None, at_once: 1 };
        let account = Account::new(client, limits, Arc::clone(metrics)).unread(None, false);
        account.remember(Remembered::default());
        account
    }

    fn row(number: u64, names: &ClusterNames) -> KeyDetails {
        let name = names.marker(ObjectMark::from_uid("uid"), AttemptId::from_random(number)).to_string();
        serde_json::from_value(json!({"id": format!("key_{number}"), "name": name})).unwrap()
    }

    fn names() -> ClusterNames {
        ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    fn pass(count: u64) -> Snapshot {
        let now = Now { wall: jiff::Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
        Snapshot::of(now, (0..count).map(|number| row(number, &names())), &names(), HashSet::new())
    }

    #[test]
    fn the_list_of_an_unknown_organization_teaches_nothing() {
        let account = account(&Arc::new(Metrics::new()));
        let (inventory, clock) = (Inventory::new(names()), Clock::simulated(jiff::Timestamp::UNIX_EPOCH));
        let judge = |count, organization| inventory.judge(&mut pass(count), organization, &account, clock);
        assert_eq!(judge(12, Ok(None)).doubt, Doubt::None);
        account.confirm_missing_keys(12);
        assert_eq!(judge(0, Err(UnknownOrganization)).doubt, Doubt::Many);
        let confirmed = account.remembered().unwrap().confirmed_missing_keys;
        assert_eq!(confirmed, 12, "what a person confirmed is for a pass that counts");
        account.confirm_missing_keys(0);
        let judgment = judge(0, Ok(None));
        assert_eq!((judgment.doubt, judgment.missing), (Doubt::Many, 12));
    }

    #[test]
    fn a_key_is_known_if_a_pass_lists_it_or_an_object_names_it() {
        let inventory = Inventory::new(names());
        inventory.set_named(&ObjectMark::from_uid("another"), &["named".to_owned()]);
        let passes = [Arc::new(pass(2))];
        for (id, is_known) in [("key_1", true), ("named", true), ("key_2", false)] {
            assert_eq!(inventory.is_known(id, &passes), is_known, "{id}");
        }
    }
}
