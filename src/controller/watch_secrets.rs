//! The list and the watch of the operator's Secrets, and which objects they reconcile.

use super::{
    Context,
    triggered::Triggered,
    watch_stream::{api_in, one_namespace, report, watch_with_relist, watcher_config},
};
use crate::{
    api::{CachedApiKey, annotations::OWNER_LABEL},
    kubernetes::{
        client::SecretWithData,
        error::KubernetesError,
        secret_metadata::{SecretMetadata, Value},
    },
    observability::watches::Resource,
    plan::Verdict,
    retry_delay,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// The longest wait before Secrets are listed again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The operator's Secrets in one namespace, or in all.
pub(super) struct Secrets {
    pub context: Arc<Context>,
    pub namespace: String,
    pub objects: Triggered,
}

impl Secrets {
    /// Lists the Secrets, then watches their metadata and reconciles their objects. Tells when reconciliations may begin:
    /// when the list is complete; or when it is refused, so that objects say so, and those that are deleted go.
    pub(super) async fn follow(self, begin: oneshot::Sender<()>) {
        let mut begin = Some(begin);
        let mut failures = 0;
        while let Err(error) = self.read_all().await {
            failures += 1;
            let (code, message) = match &error {
                KubernetesError::ApiStatus { code, message, .. } => (Some(*code), message.clone()),
                error => (None, error.to_string()),
            };
            self.context.watches.record_failure(&self.namespace, Resource::Secrets, code, &message);
            if matches!(error.verdict(), Verdict::Refused | Verdict::NotFound)
                && let Some(begin) = begin.take()
            {
                // Fails only if the operator stops.
                let _ = begin.send(());
            }
            tokio::time::sleep(retry_delay::delay(failures, None).min(LONGEST_WAIT)).await;
        }
        self.context.watches.mark_synced(&self.namespace, Resource::Secrets);
        match begin {
            Some(begin) => drop(begin.send(())),
            None => self.objects.reconcile_where(|_| true),
        }
        self.watch().await;
    }

    /// Keeps the hashes of the values, page by page.
    async fn read_all(&self) -> Result<(), KubernetesError> {
        let (index, mut page) = (&self.context.secrets, None);
        let namespace = one_namespace(&self.namespace);
        let relist = index.begin_relist();
        loop {
            let (secrets, next) = self.context.kubernetes.list_secrets(namespace, page).await?;
            for (metadata, data) in secrets.into_iter().filter_map(SecretWithData::into_parts) {
                let hash = metadata.hash_of_key(&data);
                index.observe_relisted(metadata, Value::Read(hash), relist);
            }
            page = next;
            if page.is_none() {
                index.end_relist(relist, namespace);
                return Ok(());
            }
        }
    }

    async fn watch(&self) {
        use watcher::Event;
        let index = &self.context.secrets;
        let namespace = one_namespace(&self.namespace);
        let api: Api<PartialObjectMeta<Secret>> = api_in(&self.context, &self.namespace);
        let config = watcher_config().labels(OWNER_LABEL);
        let mut events = watch_with_relist(api, config).default_backoff().boxed();
        let mut relist = 0;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => relist = index.begin_relist(),
                Ok(Event::InitApply(secret)) => {
                    let metadata = SecretMetadata::from_object_meta(secret.metadata);
                    if let Some(metadata) = metadata
                        .filter(|metadata| index.observe_relisted(metadata.clone(), Value::Unread, relist))
                    {
                        self.reconcile_owner(&metadata);
                    }
                }
                Ok(Event::Apply(secret)) => {
                    let metadata = SecretMetadata::from_object_meta(secret.metadata);
                    if let Some(metadata) = metadata.filter(|metadata| index.observe(metadata.clone())) {
                        self.reconcile_owner(&metadata);
                        self.offer(&metadata);
                    }
                }
                Ok(Event::InitDone) => {
                    self.context.watches.mark_synced(&self.namespace, Resource::Secrets);
                    for metadata in index.end_relist(relist, namespace) {
                        self.reconcile_owner(&metadata);
                        self.free_name(&metadata);
                    }
                }
                Ok(Event::Delete(secret)) => {
                    if let Some(metadata) = SecretMetadata::from_object_meta(secret.metadata) {
                        let version = Some(metadata.resource_version.as_str());
                        index.remove(&metadata.namespace, &metadata.name, version);
                        self.reconcile_owner(&metadata);
                        self.free_name(&metadata);
                    }
                }
                Err(error) => report(&self.context, &self.namespace, Resource::Secrets, &error),
            }
        }
    }

    fn reconcile_owner(&self, metadata: &SecretMetadata) {
        if let Some(object) = owner_of(metadata, &self.objects.store) {
            self.objects.reconcile(object);
        }
    }

    /// An object that waits for the consent of a Secret that another object left retries immediately.
    fn offer(&self, metadata: &SecretMetadata) {
        let Some(name) = &metadata.adoptable_by else { return };
        let object = ObjectRef::new(name).within(&metadata.namespace);
        let found = self.objects.store.get(&object).filter(|found| {
            found.secret_name() == metadata.name && found.metadata.uid != metadata.owner_label
        });
        if let Some(found) = found {
            self.context.mark_freed(found.metadata.uid.clone().unwrap_or_default());
            self.objects.reconcile(object);
        }
    }

    /// An object that waits for the name of a deleted Secret retries immediately.
    fn free_name(&self, metadata: &SecretMetadata) {
        let waits = |object: &Arc<CachedApiKey>| {
            object.metadata.namespace.as_ref() == Some(&metadata.namespace)
                && object.secret_name() == metadata.name
        };
        for object in self.objects.store.state().into_iter().filter(waits) {
            self.context.mark_freed(object.metadata.uid.clone().unwrap_or_default());
            self.objects.reconcile(ObjectRef::from_obj(object.as_ref()));
        }
    }
}

/// The object that a Secret belongs to: by its ownerReference, else by its label.
fn owner_of(metadata: &SecretMetadata, store: &Store<CachedApiKey>) -> Option<ObjectRef<CachedApiKey>> {
    let owner = metadata.owner_references.iter().find(|owner| owner.kind == "BoltzApiKey");
    if let Some(owner) = owner {
        return Some(ObjectRef::new(&owner.name).within(&metadata.namespace));
    }
    let object = store.find(|object| object.metadata.uid == metadata.owner_label)?;
    Some(ObjectRef::from_obj(object.as_ref()))
}
