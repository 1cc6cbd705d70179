//! Calls to the API server, with the user's own rights.

use crate::{
    cli::Global,
    failure::{Failure, is_not_found},
};
use boltz_operator::api::{BoltzApiKey, WatchedApiKey};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Resource,
};
use serde_json::Value as Json;
use std::time::Duration;

const OBJECTS: &str = "boltzapikeys";

/// A call that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster of the kubeconfig.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// Of `--namespace`, else of the context.
    pub namespace: String,
    pub all_namespaces: bool,
    pub operator_namespace: String,
}

/// An object: as the API server returned it, and as it is read.
#[derive(Clone, Debug)]
pub struct Object {
    pub raw: Json,
    pub read: WatchedApiKey,
}

impl Cluster {
    pub async fn connect(global: &Global) -> Result<Self, Failure> {
        // Fails only if another provider was chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = match &global.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let kubeconfig = kubeconfig.map_err(|error| Failure::Config(error.to_string()))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| Failure::Config(error.to_string()))?;
        if let Some(user) = &global.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !global.impersonate_groups.is_empty() {
            config.auth_info.impersonate_groups = Some(global.impersonate_groups.clone());
        }
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Failure::Config(error.to_string()))?;
        Ok(Self {
            client,
            namespace,
            all_namespaces: global.all_namespaces,
            operator_namespace: global.operator_namespace.clone(),
        })
    }

    /// The namespace that is looked at; `None`: all.
    pub fn scope(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.namespace.as_str())
    }

    fn objects(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<BoltzApiKey>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The objects in that namespace, or in all.
    pub async fn list(
        &self,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<Object>, Failure> {
        let mut parameters = ListParams::default().limit(500);
        parameters.label_selector = selector.map(str::to_owned);
        let mut found = Vec::new();
        loop {
            let page = call(self.objects(namespace).list(&parameters), "list", OBJECTS, namespace).await?;
            for object in page.items {
                found.push(Object::read(object)?);
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    pub async fn get(&self, name: &str) -> Result<Object, Failure> {
        match self.get_opt(name).await? {
            Some(object) => Ok(object),
            None => Err(Failure::NotFound { namespace: self.namespace.clone(), name: name.to_owned() }),
        }
    }

    pub async fn get_opt(&self, name: &str) -> Result<Option<Object>, Failure> {
        let namespace = Some(self.namespace.as_str());
        match call(self.objects(namespace).get_opt(name), "get", OBJECTS, namespace).await? {
            Some(object) => Object::read(object).map(Some),
            None => {
                // Without the CRD everything is 404.
                self.has_crd().await?;
                Ok(None)
            }
        }
    }

    async fn has_crd(&self) -> Result<(), Failure> {
        let version = BoltzApiKey::api_version(&());
        match in_time(self.client.list_api_group_resources(&version)).await? {
            Ok(list) if list.resources.iter().any(|resource| resource.name == OBJECTS) => Ok(()),
            Ok(_) => Err(Failure::NoCrd),
            Err(kube::Error::Api(status)) if is_not_found(&status) => Err(Failure::NoCrd),
            Err(error) => Err(Failure::from_kube(error, "discover", OBJECTS, None)),
        }
    }

    /// A merge patch. With `dry_run`, the API server only checks it.
    pub async fn patch(&self, name: &str, patch: &Json, dry_run: bool) -> Result<Object, Failure> {
        let namespace = Some(self.namespace.as_str());
        let parameters = PatchParams {
            dry_run,
            field_manager: Some("kubectl-boltz".to_owned()),
            ..PatchParams::default()
        };
        let objects = self.objects(namespace);
        let patch = Patch::Merge(patch);
        match in_time(objects.patch(name, &parameters, &patch)).await? {
            Err(kube::Error::Api(status)) if is_not_found(&status) => {
                self.has_crd().await?;
                Err(Failure::NotFound { namespace: self.namespace.clone(), name: name.to_owned() })
            }
            Err(error) => Err(Failure::from_kube(error, "patch", OBJECTS, namespace)),
            Ok(object) => Object::read(object),
        }
    }

    /// Deletes the object with this UID.
    pub async fn delete(&self, name: &str, uid: Option<String>) -> Result<(), Failure> {
        let namespace = Some(self.namespace.as_str());
        let parameters = kube::api::DeleteParams {
            preconditions: Some(kube::api::Preconditions { uid, resource_version: None }),
            ..kube::api::DeleteParams::background()
        };
        call(self.objects(namespace).delete(name, &parameters), "delete", OBJECTS, namespace).await.map(drop)
    }

    pub async fn pods(&self) -> Result<Vec<Pod>, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let list = call(api.list(&ListParams::default()), "list", "pods", Some(&self.namespace)).await?;
        Ok(list.items)
    }

    /// Events of BoltzApiKeys in that namespace, or in all; of one object, if it is named. The oldest first.
    pub async fn events(&self, namespace: Option<&str>, name: Option<&str>) -> Result<Vec<Event>, Failure> {
        let api: Api<Event> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let kind = "involvedObject.kind=BoltzApiKey".to_owned();
        let selector = name.map_or(kind.clone(), |name| format!("{kind},involvedObject.name={name}"));
        let parameters = ListParams::default().fields(&selector);
        let mut events = call(api.list(&parameters), "list", "events", namespace).await?.items;
        events.sort_by_key(|event| crate::pure::explain::event_time(event).map(|time| time.0));
        Ok(events)
    }
}

impl Object {
    fn read(object: DynamicObject) -> Result<Self, Failure> {
        let unreadable = |error: serde_json::Error| {
            Failure::Other(format!("an object cannot be read: {error}\nnext: kubectl boltz doctor"))
        };
        let mut raw = serde_json::to_value(object).map_err(unreadable)?;
        if let Some(metadata) = raw.get_mut("metadata").and_then(Json::as_object_mut) {
            metadata.remove("managedFields");
        }
        if raw.get("spec").is_none() {
            raw["spec"] = Json::Object(serde_json::Map::new());
        }
        let read = serde_json::from_value(raw.clone()).map_err(unreadable)?;
        Ok(Self { raw, read })
    }
}

/// Makes the call, for at most half a minute.
pub async fn call<T>(
    call: impl Future<Output = kube::Result<T>>,
    verb: &'static str,
    resource: &'static str,
    namespace: Option<&str>,
) -> Result<T, Failure> {
    in_time(call).await?.map_err(|error| Failure::from_kube(error, verb, resource, namespace))
}

/// What the call returns within half a minute.
pub async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> Result<kube::Result<T>, Failure> {
    let too_late = |_| Failure::Unreachable(format!("no response within {} s", TIMEOUT.as_secs()));
    tokio::time::timeout(TIMEOUT, call).await.map_err(too_late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    /// Of an API server that takes connections and does not respond.
    async fn silent() -> (Cluster, tokio::net::TcpListener) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = Client::try_from(Config::new(url)).unwrap();
        let name = || "x".to_owned();
        (Cluster { client, namespace: name(), all_namespaces: false, operator_namespace: name() }, listener)
    }

    #[tokio::test]
    async fn no_call_waits_for_ever() {
        let (cluster, _listener) = silent().await;
        // The request has to be on its way: time that stands still would end the connection first.
        let mut patch = pin!(cluster.patch("a", &Json::Null, false));
        let mut discovery = pin!(cluster.has_crd());
        let soon = Duration::from_millis(200);
        assert!(tokio::time::timeout(soon, patch.as_mut()).await.is_err());
        assert!(tokio::time::timeout(soon, discovery.as_mut()).await.is_err());
        tokio::time::pause();
        tokio::time::advance(TIMEOUT).await;
        let limit = Duration::from_secs(1);
        let patched = tokio::time::timeout(limit, patch).await.unwrap();
        assert!(matches!(patched, Err(Failure::Unreachable(_))), "{patched:?}");
        let discovered = tokio::time::timeout(limit, discovery).await.unwrap();
        assert!(matches!(discovered, Err(Failure::Unreachable(_))), "{discovered:?}");
    }
}
