//! What the watches of objects and of Secrets have in common.

use super::Context;
use crate::observability::watches::{ALL_NAMESPACES, Resource};
use futures::{StreamExt, stream};
use http::StatusCode;
use kube::{Api, runtime::watcher};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Shorter than the 240 s after which some load balancers drop silent connections.
const WATCH_TIMEOUT_SECONDS: u32 = 200;
/// Objects on a page of a list. Others may make each large.
const OBJECTS_PER_PAGE: u32 = 100;
pub(super) fn watcher_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS).page_size(OBJECTS_PER_PAGE)
}

/// Reports that a list or a watch could not begin. A watch that is interrupted begins again, which is usual.
pub(super) fn report(context: &Context, namespace: &str, resource: Resource, error: &watcher::Error) {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            let (code, message) = match error {
                kube::Error::Api(status) => (Some(status.code), status.message.clone()),
                error => (None, error.to_string()),
            };
            context.watches.record_failure(namespace, resource, code, &message);
        }
        error => tracing::info!(
            namespace,
            resource = resource.as_str(),
            error = error as &dyn std::error::Error,
            "a watch was interrupted"
        ),
    }
}

pub(super) fn api_in<K>(context: &Context, namespace: &str) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    let client = context.kubernetes.client().clone();
    match namespace {
        ALL_NAMESPACES => Api::all(client),
        namespace => Api::namespaced(client, namespace),
    }
}

/// The namespace, unless it stands for all of them.
pub(super) fn one_namespace(namespace: &str) -> Option<&str> {
    Some(namespace).filter(|namespace| *namespace != ALL_NAMESPACES)
}

/// A watch that lists again whenever it cannot be resumed. kube-runtime does so when a watch event reports 410. It would
/// repeat a watch request without end that is answered with 410 (the version is compacted), or whose version lies in the
/// future of an API server that was restored from a backup. Such a server may also accept the version and stay silent,
/// but it was unreachable before.
pub(super) fn watch_with_relist<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        let is_lost = match &event {
            // The version is not the reason.
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => !matches!(
                StatusCode::from_u16(status.code),
                Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
            ),
            Err(watcher::Error::WatchStartFailed(_) | watcher::Error::WatchError(_)) => true,
            _ => false,
        };
        if is_lost {
            events = begin();
        }
        Some((event, (events, begin)))
    })
}
