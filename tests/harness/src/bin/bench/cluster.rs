//! The control plane, and what users do on it.

use crate::BenchError;
use boltz_harness::{AuditEvent, ControlPlane, ControlPlaneOptions, OPERATOR_USER};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, PartialObjectMeta},
};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// Objects are spread over so many namespaces.
const NAMESPACES: usize = 4;
/// Calls of the user in flight.
const CALLS: usize = 16;
/// Where the operator keeps what it remembers.
const OPERATOR_NAMESPACE: &str = "boltz-system";

/// etcd and kube-apiserver of this run, without controllers: nothing else uses the cores.
pub struct Cluster {
    pub control_plane: ControlPlane,
    pub client: Client,
}

impl Cluster {
    pub async fn start() -> Result<Self, BenchError> {
        eprintln!("starting etcd and kube-apiserver");
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        control_plane.install_operator().await.map_err(BenchError::Unexpected)?;
        let client = control_plane.admin_client().await?;
        let cluster = Self { control_plane, client };
        cluster.create_namespaces().await?;
        Ok(cluster)
    }

    pub async fn create_namespaces(&self) -> Result<(), BenchError> {
        each(0..NAMESPACES, async |number| create_namespace(&self.client, &namespace_of(number)).await).await
    }

    /// Deletes the namespaces with all that is in them, and waits until they are gone.
    pub async fn delete_namespaces(&self, at_most: Duration) -> Result<(), BenchError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        each(0..NAMESPACES, async |number| {
            namespaces.delete(&namespace_of(number), &DeleteParams::default()).await.map(drop)
        })
        .await?;
        let deadline = tokio::time::Instant::now() + at_most;
        for number in 0..NAMESPACES {
            while namespaces.get_metadata_opt(&namespace_of(number)).await?.is_some() {
                if tokio::time::Instant::now() > deadline {
                    return Err(BenchError::Unexpected("the namespaces do not go".to_owned()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    pub fn objects(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }

    /// Creates the objects with these numbers.
    pub async fn create(&self, numbers: std::ops::Range<usize>) -> Result<(), BenchError> {
        let create = async |number: usize| {
            let object = DynamicObject::new(&name_of(number), &resource());
            let object = DynamicObject { data: json!({"spec": {"expiresInDays": 90}}), ..object };
            self.objects(&namespace_of(number)).create(&PostParams::default(), &object).await.map(drop)
        };
        each(numbers, create).await
    }

    /// Gives the objects with these numbers an annotation.
    pub async fn annotate(
        &self,
        numbers: std::ops::Range<usize>,
        name: &str,
        value: &str,
    ) -> Result<(), BenchError> {
        let annotate = async |number: usize| {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {name: value}}}));
            let objects = self.objects(&namespace_of(number));
            objects.patch_metadata(&name_of(number), &PatchParams::default(), &patch).await.map(drop)
        };
        each(numbers, annotate).await
    }

    /// Deletes the objects with these numbers, one call for each: many in one call are deleted one after the other, and
    /// that would be measured.
    pub async fn delete(&self, numbers: std::ops::Range<usize>) -> Result<(), BenchError> {
        let delete = async |number: usize| {
            let objects = self.objects(&namespace_of(number));
            objects.delete(&name_of(number), &DeleteParams::default()).await.map(drop)
        };
        each(numbers, delete).await
    }

    async fn delete_all(&self) -> Result<(), BenchError> {
        each(0..NAMESPACES, async |number| {
            let objects = self.objects(&namespace_of(number));
            objects.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop)
        })
        .await
    }

    /// Removes all that earlier measurements left: objects, whoever has a finalizer on them, Secrets, what the operator
    /// remembers.
    pub async fn clean(&self) -> Result<(), BenchError> {
        self.delete_all().await?;
        for number in 0..NAMESPACES {
            let namespace = namespace_of(number);
            let objects = self.objects(&namespace);
            let left = objects.list_metadata(&ListParams::default()).await?;
            let free = async |name: String| {
                let patch: Json = json!({"metadata": {"finalizers": []}});
                objects.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            };
            each(left.items.into_iter().filter_map(|object| object.metadata.name), free).await?;
            let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.client.clone(), &namespace);
            secrets.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        }
        let remembered: Api<ConfigMap> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        remembered.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        Ok(())
    }

    /// What the operator, or the loop, has asked of the API server since then.
    pub fn calls_since(&self, from: jiff::Timestamp) -> Vec<AuditEvent> {
        self.control_plane
            .audit_events_where(|event| event.received >= from && event.user.username == OPERATOR_USER)
    }
}

/// Does it with each, a few at a time.
async fn each<T>(
    all: impl IntoIterator<Item = T>,
    one: impl AsyncFn(T) -> Result<(), kube::Error>,
) -> Result<(), BenchError> {
    let calls = stream::iter(all).map(|item| one(item)).buffer_unordered(CALLS);
    calls.try_collect::<()>().await.map_err(BenchError::from)
}

pub fn namespace_of(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}

pub fn name_of(number: usize) -> String {
    format!("key-{number:05}")
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("boltz.bio", "v1alpha1", "BoltzApiKey"),
        "boltzapikeys",
    )
}

async fn create_namespace(client: &Client, name: &str) -> Result<(), kube::Error> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// Asks every 20 ms until it is so.
pub async fn until(
    at_most: Duration,
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let deadline = tokio::time::Instant::now() + at_most;
    while !is_so()? {
        if tokio::time::Instant::now() >= deadline {
            return Err(BenchError::Unexpected(format!("not within {} s: {what}", at_most.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
