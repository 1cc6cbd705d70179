//! The state of each watch: for `/readyz`, the log and a metric.

use crate::observability::metrics::Metrics;
use http::StatusCode;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The namespace of a watch on all namespaces.
pub const ALL_NAMESPACES: &str = "*";
/// Minimum time between two warnings about one watch.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// A watch that is resumed says nothing. One that has not failed for so long works: longer than the longest wait before a retry,
/// and the timeout of its request.
const FAILURE_LASTS: Duration = Duration::from_secs(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
pub(crate) enum Resource {
    /// `boltzapikeys.boltz.bio`.
    #[strum(serialize = "boltzapikeys")]
    ApiKeys,
    /// `secrets` with the operator's label.
    #[strum(serialize = "secrets")]
    Secrets,
}

impl Resource {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Its first list is complete.
    has_synced: bool,
    /// Why it does not work now.
    failure: Option<String>,
    failed_at: Option<Instant>,
    warned_at: Option<Instant>,
}

type States = BTreeMap<(String, Resource), State>;

/// The states of all watches. Empty while this process does not lead.
#[derive(Debug)]
pub struct Watches {
    states: watch::Sender<States>,
    metrics: Arc<Metrics>,
}

impl Watches {
    /// Empty: there is nothing to watch until this process leads.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { states: watch::Sender::default(), metrics }
    }

    /// The watches of these namespaces begin.
    pub fn begin<'a>(&self, namespaces: impl IntoIterator<Item = &'a str>) {
        let watches = namespaces.into_iter().flat_map(|namespace| {
            [Resource::ApiKeys, Resource::Secrets].map(|resource| (namespace.to_owned(), resource))
        });
        self.states.send_replace(watches.map(|watch| (watch, State::default())).collect());
    }

    /// This process does not lead any more. Reports that come late change nothing.
    pub fn end(&self) {
        self.states.send_replace(States::new());
        self.metrics.forget_watches();
    }

    /// The list is complete, and the watch works.
    pub(crate) fn mark_synced(&self, namespace: &str, resource: Resource) {
        self.change(namespace, resource, |state| {
            state.has_synced = true;
            if state.failure.take().is_some() {
                tracing::info!(namespace, resource = resource.as_str(), "the watch works again");
            }
        });
    }

    /// The list or the watch could not begin.
    pub(crate) fn record_failure(
        &self,
        namespace: &str,
        resource: Resource,
        code: Option<u16>,
        message: &str,
    ) {
        let failure = describe(resource, code, message);
        self.change(namespace, resource, |state| {
            if state.warned_at.is_none_or(|warned_at| warned_at.elapsed() >= WARN_INTERVAL) {
                state.warned_at = Some(Instant::now());
                tracing::warn!(
                    namespace,
                    resource = resource.as_str(),
                    error = failure,
                    "cannot watch; the operator will retry"
                );
            }
            state.failure = Some(failure);
            state.failed_at = Some(Instant::now());
        });
    }

    /// Watches that were resumed work again.
    pub(crate) fn forget_old_failures(&self, now: Instant) {
        let is_old = |state: &State| {
            state.has_synced
                && state.failure.is_some()
                && state.failed_at.is_some_and(|at| now.saturating_duration_since(at) >= FAILURE_LASTS)
        };
        let states = self.states.borrow().clone();
        for (namespace, resource) in states.iter().filter(|(_, state)| is_old(state)).map(|(watch, _)| watch)
        {
            self.mark_synced(namespace, *resource);
        }
    }

    fn change(&self, namespace: &str, resource: Resource, change: impl FnOnce(&mut State)) {
        self.states.send_if_modified(|states| {
            // Absent: this process does not lead any more.
            let Some(state) = states.get_mut(&(namespace.to_owned(), resource)) else { return false };
            change(state);
            self.metrics.set_watch_healthy(namespace, resource.as_str(), state.failure.is_none());
            true
        });
    }

    /// Whether the first list that covers this namespace is complete.
    pub(crate) fn has_synced(&self, namespace: &str, resource: Resource) -> bool {
        let states = self.states.borrow();
        [namespace, ALL_NAMESPACES].into_iter().any(|namespace| {
            states.get(&(namespace.to_owned(), resource)).is_some_and(|state| state.has_synced)
        })
    }

    /// Waits until all first lists are complete.
    pub(crate) async fn until_all_synced(&self) {
        let have_all_synced =
            |states: &States| !states.is_empty() && states.values().all(|state| state.has_synced);
        // The sender lives as long as `self`.
        let _ = self.states.subscribe().wait_for(have_all_synced).await;
    }

    /// Waits until what can be served is served: each watch has synced or failed, and at least one namespace is complete.
    pub(crate) async fn until_served(&self) {
        let served = |states: &States| {
            let is_complete = |namespace: &str| {
                states.iter().all(|((known, _), state)| known != namespace || state.has_synced)
            };
            states.values().all(|state| state.has_synced || state.failure.is_some())
                && states.keys().any(|(namespace, _)| is_complete(namespace))
        };
        // The sender lives as long as `self`.
        let _ = self.states.subscribe().wait_for(served).await;
    }

    /// A line for each first list that is not complete yet, and has not failed.
    pub fn missing(&self) -> String {
        let states = self.states.borrow();
        if states.is_empty() {
            return "the process starts: it reads its ConfigMap and checks the admin key first\n".to_owned();
        }
        let missing = states.iter().filter(|(_, state)| !state.has_synced && state.failure.is_none());
        let lines = missing.map(|((namespace, resource), _)| {
            format!("{}the list of {} is not complete yet\n", place(namespace), resource.as_str())
        });
        lines.collect()
    }

    /// A line for each watch that fails.
    pub fn failures(&self) -> String {
        let states = self.states.borrow();
        let failing = states.iter().filter_map(|((namespace, resource), state)| {
            let failure = state.failure.as_ref()?;
            Some(format!("{}cannot watch {}: {failure}\n", place(namespace), resource.as_str()))
        });
        failing.collect()
    }
}

fn place(namespace: &str) -> String {
    match namespace {
        ALL_NAMESPACES => String::new(),
        namespace => format!("namespace {namespace}: "),
    }
}

/// What failed, and what to do about it. Without a code there was no response.
fn describe(resource: Resource, code: Option<u16>, message: &str) -> String {
    match code.map(StatusCode::from_u16) {
        Some(Ok(StatusCode::NOT_FOUND)) if resource == Resource::ApiKeys => {
            "the CustomResourceDefinition boltzapikeys.boltz.bio is not installed. Install the chart with \
             crds.install=true, or run kubectl apply --server-side -f crds/boltzapikeys.yaml"
                .to_owned()
        }
        Some(Ok(StatusCode::FORBIDDEN)) => {
            format!("{message}. Grant the operator the permissions that docs/install.md lists")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn is_served(watches: &Watches) -> bool {
        watches.until_served().now_or_never().is_some()
    }

    fn have_all_synced(watches: &Watches) -> bool {
        watches.until_all_synced().now_or_never().is_some()
    }

    #[test]
    fn one_namespace_that_fails_does_not_keep_others_from_being_served() {
        let metrics = Arc::new(Metrics::new());
        metrics.set_leader(true);
        let watches = Watches::new(Arc::clone(&metrics));
        watches.begin(["a", "b"]);
        watches.mark_synced("b", Resource::ApiKeys);
        watches.mark_synced("b", Resource::Secrets);
        assert!(!is_served(&watches), "a may still be served");
        watches.mark_synced("a", Resource::ApiKeys);
        watches.record_failure("a", Resource::Secrets, Some(403), "secrets is forbidden");
        assert!(is_served(&watches));
        assert!(!watches.has_synced("a", Resource::Secrets) && watches.has_synced("b", Resource::Secrets));
        assert!(!have_all_synced(&watches));
        assert!(watches.failures().starts_with("namespace a: cannot watch secrets: secrets is forbidden"));
        let line = r#"boltz_watch_healthy{namespace="a",resource="secrets"} "#;
        assert!(metrics.to_text().contains(&format!("{line}0")));
        watches.mark_synced("a", Resource::Secrets);
        assert!(have_all_synced(&watches) && watches.failures().is_empty());
        assert!(metrics.to_text().contains(&format!("{line}1")));
        // One that is resumed says nothing.
        watches.record_failure("a", Resource::Secrets, Some(403), "secrets is forbidden");
        watches.forget_old_failures(Instant::now());
        assert!(!watches.failures().is_empty());
        watches.forget_old_failures(Instant::now() + FAILURE_LASTS);
        assert!(watches.failures().is_empty());
        watches.end();
        // A late report of an aborted task changes nothing.
        watches.mark_synced("a", Resource::Secrets);
        assert!(!metrics.to_text().contains("boltz_watch_healthy{"));
    }

    #[test]
    fn with_nothing_to_serve_it_is_not_ready() {
        for namespaces in [&[ALL_NAMESPACES][..], &["a", "b"]] {
            let watches = Watches::new(Arc::new(Metrics::new()));
            watches.begin(namespaces.iter().copied());
            for namespace in namespaces {
                watches.record_failure(namespace, Resource::ApiKeys, Some(404), "not found");
                watches.mark_synced(namespace, Resource::Secrets);
            }
            assert!(!is_served(&watches));
            assert!(watches.failures().contains("kubectl apply"), "{}", watches.failures());
        }
    }
}
