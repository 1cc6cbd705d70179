//! The objects of one store, and the way to have them reconciled.

use crate::{api::CachedApiKey, protocol::marker::ObjectMark};
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::mpsc;

/// The objects of one store, which can be reconciled without an event.
#[derive(Clone)]
pub(super) struct Triggered {
    pub store: Store<CachedApiKey>,
    pub trigger: mpsc::UnboundedSender<ObjectRef<CachedApiKey>>,
}

impl Triggered {
    /// Reconciles those whose mark is wanted.
    pub(super) fn reconcile_where(&self, is_wanted: impl Fn(&ObjectMark) -> bool) {
        for object in self.store.state().iter().filter(|object| is_wanted(&object.mark())) {
            self.reconcile(ObjectRef::from_obj(object.as_ref()));
        }
    }

    /// Reconciles those in these namespaces.
    pub(super) fn reconcile_in(&self, namespaces: &HashSet<String>) {
        let is_there =
            |object: &&Arc<CachedApiKey>| namespaces.contains(&object.namespace().unwrap_or_default());
        for object in self.store.state().iter().filter(is_there) {
            self.reconcile(ObjectRef::from_obj(object.as_ref()));
        }
    }

    pub(super) fn reconcile(&self, object: ObjectRef<CachedApiKey>) {
        // Fails only if the controller has stopped.
        let _ = self.trigger.send(object);
    }
}
