//! Calls to the API server, with timeouts, without retries, with typed errors.

use super::error::{KubernetesError, TIMEOUT};
use crate::{
    api::{BoltzApiKey, WatchedAccount, WatchedApiKey, WorkloadKind},
    kubernetes::secret_metadata::SecretMetadata,
    plan::{Verdict, Workload},
};
use http::{HeaderValue, Response, header::ACCEPT};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::Secret,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request},
    client::Body,
    core::PartialObjectMeta,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, time::Duration};

/// Timeout of a watcher's list and of the start of a watch. The API server ends a list after 60 s.
const LIST_TIMEOUT: Duration = Duration::from_secs(65);
/// Timeout of a restart of a workload, and of a read of it. Both can be repeated, and the status and revocations of the object
/// wait meanwhile.
const RESTART_TIMEOUT: Duration = Duration::from_secs(3);
/// Secrets on a page of a list with values: a Secret may have 1 MiB.
const SECRETS_PER_PAGE: u32 = 50;
/// Objects on a page of a list.
const OBJECTS_PER_PAGE: u32 = 500;
/// The name in managedFields.
const FIELD_MANAGER: &str = "boltz-operator";
/// Requests a response with the metadata only, without the value of the Secret.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The values of a Secret.
pub(crate) type Data = BTreeMap<String, k8s_openapi::ByteString>;

/// A Secret with its values. Deliberately without `Debug`.
#[derive(Deserialize)]
pub(crate) struct SecretWithData {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    #[serde(default)]
    data: Data,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
}

impl SecretWithData {
    /// Its metadata and its values.
    pub fn into_parts(self) -> Option<(SecretMetadata, Data)> {
        let metadata = SecretMetadata::from_object_meta(self.metadata)?;
        let (kind, immutable) = (self.kind, self.immutable == Some(true));
        Some((SecretMetadata { kind, immutable, ..metadata }, self.data))
    }
}

/// The calls that the operator makes. Each has a timeout.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// Expects a client that does not retry.
    pub fn new(client: Client) -> Self {
        Self { client: with_timeouts(client) }
    }

    /// The client, for watches and leases.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn objects(&self, namespace: &str) -> Api<WatchedApiKey> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn request<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, KubernetesError> {
        let request = request.map_err(kube::Error::BuildRequest).map_err(KubernetesError::new)?;
        bounded(self.client.request::<T>(request)).await
    }

    pub(crate) async fn get_object(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<WatchedApiKey>, KubernetesError> {
        bounded(self.objects(namespace).get_opt(name)).await
    }

    /// Sends a merge patch of the object. The patch contains the resourceVersion as precondition.
    pub async fn patch_object(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<WatchedApiKey, KubernetesError> {
        bounded(self.objects(namespace).patch(name, &parameters(false), &Patch::Merge(patch))).await
    }

    /// Sends a merge patch of the status.
    pub async fn patch_status(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<WatchedApiKey, KubernetesError> {
        let objects = self.objects(namespace);
        bounded(objects.patch_status(name, &parameters(false), &Patch::Merge(patch))).await
    }

    fn accounts(&self) -> Api<WatchedAccount> {
        Api::all(self.client.clone())
    }

    /// Sends a merge patch of a `BoltzAccount`, with its UID and resourceVersion as preconditions.
    pub(crate) async fn patch_account(
        &self,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<(), KubernetesError> {
        bounded(self.accounts().patch(name, &parameters(false), &Patch::Merge(patch))).await.map(drop)
    }

    /// Sends a merge patch of the status of a `BoltzAccount`.
    pub(crate) async fn patch_account_status(
        &self,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<(), KubernetesError> {
        bounded(self.accounts().patch_status(name, &parameters(false), &Patch::Merge(patch))).await.map(drop)
    }

    pub(crate) async fn get_secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretWithData>, KubernetesError> {
        let request = secrets(namespace).get(name, &kube::api::GetParams::default());
        match self.request(request).await {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if error.verdict() == Verdict::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a Secret; fails if it exists. The response to a dry run has the values, because an admission webhook may
    /// change them; the response to a real write has none.
    pub(crate) async fn create_secret(
        &self,
        namespace: &str,
        body: Vec<u8>,
        dry_run: bool,
    ) -> Result<(SecretMetadata, Data), KubernetesError> {
        let parameters = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
        let request = secrets(namespace).create(&parameters, body);
        self.write_secret(request, dry_run).await
    }

    /// Sends a merge patch of a Secret. The patch contains UID and resourceVersion as preconditions.
    pub async fn patch_secret(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
        dry_run: bool,
    ) -> Result<(SecretMetadata, Data), KubernetesError> {
        let request = secrets(namespace).patch(name, &parameters(dry_run), &Patch::Merge(patch));
        self.write_secret(request, dry_run).await
    }

    async fn write_secret(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
        dry_run: bool,
    ) -> Result<(SecretMetadata, Data), KubernetesError> {
        let request = request.map(|mut request| {
            if !dry_run {
                request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA_ONLY));
            }
            request
        });
        let mut answer: SecretWithData = self.request(request).await?;
        if dry_run {
            // The response to a dry run of a create has neither.
            answer.metadata.uid.get_or_insert_default();
            answer.metadata.resource_version.get_or_insert_default();
        }
        answer.into_parts().ok_or(KubernetesError::NoMetadata)
    }

    /// Deletes the Secret with this UID. A missing Secret, or one with another UID, counts as deleted.
    pub async fn delete_secret(&self, namespace: &str, name: &str, uid: &str) -> Result<(), KubernetesError> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), namespace);
        bounded(api.delete(name, &parameters)).await.map(|_| ())
    }

    /// One page of the Secrets with our label, with their values, and the token of the next page.
    pub(crate) async fn list_secrets(
        &self,
        namespace: Option<&str>,
        page: Option<String>,
    ) -> Result<(Vec<SecretWithData>, Option<String>), KubernetesError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta,
            items: Vec<SecretWithData>,
        }
        let parameters = kube::api::ListParams {
            label_selector: Some(crate::api::annotations::OWNER_LABEL.to_owned()),
            limit: Some(SECRETS_PER_PAGE),
            continue_token: page,
            ..kube::api::ListParams::default()
        };
        let request = Request::new(Secret::url_path(&(), namespace)).list(&parameters);
        let page: Page = self.request(request).await?;
        Ok((page.items, page.metadata.continue_.filter(|token| !token.is_empty())))
    }

    /// Changes the pod template of a workload, which restarts it.
    pub(crate) async fn patch_workload(
        &self,
        namespace: &str,
        kind: WorkloadKind,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<(), KubernetesError> {
        let request =
            workloads(kind, namespace).patch_metadata(name, &parameters(false), &Patch::Merge(patch));
        let request = request.map_err(kube::Error::BuildRequest).map_err(KubernetesError::new)?;
        let call = self.client.request::<PartialObjectMeta>(request);
        bounded_by(RESTART_TIMEOUT, call).await.map(drop)
    }

    /// Reads a workload, to see how far its restart is.
    pub(crate) async fn get_workload(
        &self,
        namespace: &str,
        kind: WorkloadKind,
        name: &str,
    ) -> Result<Workload, KubernetesError> {
        let request = workloads(kind, namespace).get(name, &kube::api::GetParams::default());
        let request = request.map_err(kube::Error::BuildRequest).map_err(KubernetesError::new)?;
        bounded_by(RESTART_TIMEOUT, self.client.request(request)).await
    }

    /// Reads the objects of one namespace, or of all, from the API server, and keeps some.
    pub(crate) async fn list_objects(
        &self,
        namespace: Option<&str>,
        is_kept: impl Fn(&WatchedApiKey) -> bool,
    ) -> Result<Vec<WatchedApiKey>, KubernetesError> {
        let api: Api<WatchedApiKey> = match namespace {
            Some(namespace) => self.objects(namespace),
            None => Api::all(self.client.clone()),
        };
        let mut parameters = kube::api::ListParams::default().limit(OBJECTS_PER_PAGE);
        let mut objects = Vec::new();
        loop {
            let page = bounded(api.list(&parameters)).await?;
            objects.extend(page.items.into_iter().filter(&is_kept));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }
}

fn secrets(namespace: &str) -> Request {
    Request::new(Secret::url_path(&(), Some(namespace)))
}

fn workloads(kind: WorkloadKind, namespace: &str) -> Request {
    Request::new(match kind {
        WorkloadKind::Deployment => Deployment::url_path(&(), Some(namespace)),
        WorkloadKind::StatefulSet => StatefulSet::url_path(&(), Some(namespace)),
        WorkloadKind::DaemonSet => DaemonSet::url_path(&(), Some(namespace)),
    })
}

fn parameters(dry_run: bool) -> PatchParams {
    PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Adds timeouts to the client: for the start of watches and for the whole of other calls. kube's watchers limit the
/// silence of a running watch, but not the wait for a list: a list without a response would block the controller forever.
fn with_timeouts(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|parameter| parameter.starts_with("watch="));
        async move {
            let call = async {
                let answer = client.send(request).await?;
                if is_watch {
                    return Ok(answer);
                }
                let (head, body) = answer.into_parts();
                Ok::<_, kube::Error>(Response::from_parts(head, Body::from(body.collect_bytes().await?)))
            };
            match tokio::time::timeout(LIST_TIMEOUT, call).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
            }
        }
    });
    Client::new(service, namespace)
}

pub(super) async fn bounded<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubernetesError> {
    bounded_by(TIMEOUT, call).await
}

async fn bounded_by<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubernetesError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map_err(KubernetesError::new),
        Err(_) => Err(KubernetesError::Timeout),
    }
}

/// The group and version of the resource, for ownerReferences and events.
pub fn api_version() -> String {
    BoltzApiKey::api_version(&()).into_owned()
}
