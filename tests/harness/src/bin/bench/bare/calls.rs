//! The calls.

use crate::BenchError;
use futures::Stream;
use http::{HeaderValue, Request, header::ACCEPT};
use k8s_openapi::ByteString;
use kube::{Client, core::WatchEvent};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const MERGE_PATCH: &str = "application/merge-patch+json";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces";
const OBJECTS: &str = "/apis/boltz.bio/v1alpha1/boltzapikeys";
const SECRETS: &str = "/api/v1/secrets";
const FINALIZER: &str = "boltz.bio/revoke-keys";
const ROTATE_NOW: &str = "boltz.bio/rotate-now";
const ATTEMPT: &str = "0123456789ab";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Of an object or a Secret, only what the next call needs.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub metadata: SeenMetadata,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenMetadata {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub resource_version: String,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    finalizers: Vec<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A list, or one page of it.
pub struct Listed {
    pub items: Vec<Seen>,
    pub version: String,
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: PageMetadata,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// What the loop keeps of an object.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub is_busy: bool,
    is_gone: bool,
    key: Option<String>,
    secret: String,
    secret_version: String,
    rotate_now: Option<String>,
}

impl Held {
    /// Whether the object needs anything.
    pub fn needs_work(&self, object: &Seen) -> bool {
        let metadata = &object.metadata;
        match metadata.deletion_timestamp {
            Some(_) => !self.is_gone && !metadata.finalizers.is_empty(),
            None => self.key.is_none() || self.rotate_now.as_ref() != metadata.annotations.get(ROTATE_NOW),
        }
    }
}

/// Clients for both sides.
pub struct Calls {
    kubernetes: Client,
    boltz: reqwest::Client,
    base_url: String,
    admin_key: String,
}

#[derive(Deserialize)]
struct Created {
    key: String,
    key_details: Details,
}

#[derive(Deserialize)]
struct Details {
    id: String,
    created_at: Option<String>,
    expires_at: Option<String>,
}

impl Calls {
    pub async fn new() -> Result<Self, BenchError> {
        boltz_harness::install_tls_provider();
        let setting = |name: &str| {
            std::env::var(name).map_err(|_| BenchError::Unexpected(format!("{name} is not set")))
        };
        let mut config =
            kube::Config::infer().await.map_err(|error| BenchError::Unexpected(error.to_string()))?;
        config.default_retry = false;
        Ok(Self {
            kubernetes: Client::try_from(config)?,
            boltz: reqwest::Client::builder().no_proxy().build()?,
            base_url: format!("{}/compute/v1/admin/api-keys", setting("BOLTZ_BASE_URL")?),
            admin_key: setting("BOLTZ_API_KEY")?,
        })
    }

    /// All calls that the object needs now; what there is to keep afterwards.
    pub async fn work(&self, object: &Seen, held: Held) -> Result<Held, BenchError> {
        let held = match (&object.metadata.deletion_timestamp, &held.key) {
            (Some(_), key) => {
                self.delete(object, key.as_deref()).await?;
                Held { is_gone: true, ..held }
            }
            (None, None) => self.issue(object).await?,
            (None, Some(key)) => self.rotate(object, key, &held).await?,
        };
        Ok(Held { is_busy: false, ..held })
    }

    async fn issue(&self, object: &Seen) -> Result<Held, BenchError> {
        let metadata = &object.metadata;
        let secrets = format!("/api/v1/namespaces/{}/secrets", metadata.namespace);
        let body = secret_body(metadata, &json!(""), "preflight", &[]);
        self.write::<Json>(
            "POST",
            &format!("{secrets}?&dryRun=All&fieldManager=boltz-operator"),
            &body,
            None,
        )
        .await?;
        let attempted = self.patch_object(metadata, "", attempt(metadata)).await?;
        let created = self.create_key(metadata).await?;
        let body = secret_body(metadata, &json!(created.key_details.id), &created.key, &[]);
        let accept = Some(METADATA_ONLY);
        let secret: Seen =
            self.write("POST", &format!("{secrets}?&fieldManager=boltz-operator"), &body, accept).await?;
        let status = json!({"status": status(&created.key_details, &metadata.name)});
        self.patch_object(&attempted.metadata, "/status", status).await?;
        Ok(held(object, created.key_details.id, &secret))
    }

    async fn rotate(&self, object: &Seen, old: &str, known: &Held) -> Result<Held, BenchError> {
        let metadata = &object.metadata;
        let secret = format!("/api/v1/namespaces/{}/secrets/{}", metadata.namespace, metadata.name);
        let guard = json!({"uid": known.secret, "resourceVersion": known.secret_version});
        let patch = |id: &str, key: &str, previous: &[&str]| {
            let mut body = secret_body(metadata, &json!(id), key, previous);
            let own =
                json!({"annotations": body["metadata"]["annotations"], "labels": body["metadata"]["labels"]});
            body = json!({"data": body["data"], "metadata": own});
            with_guard(body, &guard)
        };
        let uri = format!("{secret}?&dryRun=All&fieldManager=boltz-operator");
        self.write::<Json>("PATCH", &uri, &patch("", "preflight", &[]), None).await?;
        let attempted = self.patch_object(metadata, "", attempt(metadata)).await?;
        let created = self.create_key(metadata).await?;
        let uri = format!("{secret}?&fieldManager=boltz-operator");
        let body = patch(&created.key_details.id, &created.key, &[old]);
        let stored: Seen = self.write("PATCH", &uri, &body, Some(METADATA_ONLY)).await?;
        let with_previous = json!({"status": status(&created.key_details, &metadata.name)});
        let reported = self.patch_object(&attempted.metadata, "/status", with_previous).await?;
        self.read_live(metadata).await?;
        self.revoke(old).await?;
        let without = json!({"status": status(&created.key_details, &metadata.name)});
        self.patch_object(&reported.metadata, "/status", without).await?;
        Ok(held(object, created.key_details.id, &stored))
    }

    async fn delete(&self, object: &Seen, key: Option<&str>) -> Result<(), BenchError> {
        // In a namespace that is being deleted, the Secret may be gone before the object, and no event can be created.
        let _ = self.read_live(&object.metadata).await;
        if let Some(key) = key {
            self.revoke(key).await?;
            let _ = self.publish(&object.metadata, "KeyRevoked").await;
        }
        self.patch_object(&object.metadata, "", json!({"metadata": {"finalizers": []}})).await.map(drop)
    }

    /// The operator does so beside its other calls.
    async fn publish(&self, metadata: &SeenMetadata, reason: &str) -> Result<(), BenchError> {
        let SeenMetadata { namespace, name, uid, .. } = metadata;
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{:016x}", rand::random::<u64>()), "namespace": namespace},
            "action": "Reconcile",
            "eventTime": format!("{:.6}", jiff::Timestamp::now()),
            "reason": reason,
            "note": "Revoked the key key_0123456789abcdefghij, because the object is deleted.",
            "type": "Normal",
            "reportingController": "boltz.bio/boltz-operator",
            "reportingInstance": "bench",
            "regarding": {
                "apiVersion": "boltz.bio/v1alpha1",
                "kind": "BoltzApiKey",
                "name": name,
                "namespace": namespace,
                "uid": uid,
            },
        });
        self.write::<IgnoredAny>("POST", &format!("{EVENTS}/{namespace}/events?"), &event, None)
            .await
            .map(drop)
    }

    /// Both reads before a revocation.
    async fn read_live(&self, metadata: &SeenMetadata) -> Result<(), BenchError> {
        let SeenMetadata { namespace, name, .. } = metadata;
        let object = format!("/apis/boltz.bio/v1alpha1/namespaces/{namespace}/boltzapikeys/{name}");
        let secret = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        self.get::<Seen>(&object, None).await?;
        self.get::<Seen>(&secret, None).await.map(drop)
    }

    async fn patch_object(
        &self,
        metadata: &SeenMetadata,
        part: &str,
        body: Json,
    ) -> Result<Seen, BenchError> {
        let SeenMetadata { namespace, name, uid, resource_version, .. } = metadata;
        let uri = format!(
            "/apis/boltz.bio/v1alpha1/namespaces/{namespace}/boltzapikeys/{name}{part}?&fieldManager=boltz-operator"
        );
        let guard = json!({"uid": uid, "resourceVersion": resource_version});
        self.write("PATCH", &uri, &with_guard(body, &guard), None).await
    }

    async fn create_key(&self, metadata: &SeenMetadata) -> Result<Created, BenchError> {
        let mark = metadata.uid.replace('-', "");
        let mark = mark.get(..16).unwrap_or_default();
        let name = format!("{}/{} bo.bench.{mark}.{ATTEMPT}", metadata.namespace, metadata.name);
        let body = json!({"name": name, "expires_in_days": 90, "mode": "live"});
        let request = self.boltz.post(&self.base_url).header("x-api-key", &self.admin_key).json(&body);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    async fn revoke(&self, key: &str) -> Result<(), BenchError> {
        let url = format!("{}/{key}/revoke", self.base_url);
        let request = self.boltz.post(url).header("x-api-key", &self.admin_key);
        request.send().await?.error_for_status()?.json::<Details>().await?;
        Ok(())
    }

    pub async fn list_keys(&self) -> Result<(), BenchError> {
        #[derive(Deserialize)]
        struct Keys {
            data: Vec<Id>,
            has_more: bool,
        }
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let mut after = None;
        loop {
            let mut request = self.boltz.get(&self.base_url).query(&[("limit", "1000")]);
            if let Some(after) = &after {
                request = request.query(&[("after_id", after)]);
            }
            let answer = request.header("x-api-key", &self.admin_key).send().await?.error_for_status()?;
            let keys: Keys = answer.json().await?;
            after = keys.data.into_iter().next_back().map(|key| key.id);
            if !keys.has_more {
                return Ok(());
            }
        }
    }

    pub async fn list_objects(&self, limit: u32) -> Result<Listed, BenchError> {
        self.all_pages(&format!("{OBJECTS}?&limit={limit}")).await
    }

    pub async fn list_secrets(&self, limit: u32) -> Result<Listed, BenchError> {
        self.all_pages(&format!("{SECRETS}?&limit={limit}&labelSelector=boltz.bio%2Fowner-uid")).await
    }

    async fn all_pages(&self, uri: &str) -> Result<Listed, BenchError> {
        let mut all = Listed { items: Vec::new(), version: String::new() };
        let mut next = String::new();
        loop {
            let page: Page<Seen> = self.get(&format!("{uri}{next}"), None).await?;
            all.items.extend(page.items);
            all.version = page.metadata.resource_version;
            if page.metadata.next.is_empty() {
                return Ok(all);
            }
            next = format!("&continue={}", page.metadata.next);
        }
    }

    /// Reads all pages of the objects or of their Secrets and keeps nothing.
    pub async fn read_pages(&self, objects: bool, limit: u32) -> Result<(), BenchError> {
        let uri = if objects {
            format!("{OBJECTS}?&limit={limit}")
        } else {
            format!("{SECRETS}?&limit={limit}&labelSelector=boltz.bio%2Fowner-uid")
        };
        let mut next = String::new();
        loop {
            let page: Page<IgnoredAny> = self.get(&format!("{uri}{next}"), None).await?;
            if page.metadata.next.is_empty() {
                return Ok(());
            }
            next = format!("&continue={}", page.metadata.next);
        }
    }

    pub async fn watch_objects(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Seen>, kube::Error>> + use<>, BenchError> {
        self.watch(&format!("{OBJECTS}?&resourceVersion={version}"), None).await
    }

    pub async fn watch_secrets(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Seen>, kube::Error>> + use<>, BenchError> {
        let uri = format!("{SECRETS}?&labelSelector=boltz.bio%2Fowner-uid&resourceVersion={version}");
        self.watch(&uri, Some(METADATA_ONLY)).await
    }

    async fn watch(
        &self,
        uri: &str,
        accept: Option<&'static str>,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Seen>, kube::Error>> + use<>, BenchError> {
        let uri = format!("{uri}&watch=true&timeoutSeconds=200&allowWatchBookmarks=true");
        Ok(self.kubernetes.request_events(request("GET", &uri, Vec::new(), accept)?).await?)
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        uri: &str,
        accept: Option<&'static str>,
    ) -> Result<T, BenchError> {
        Ok(self.kubernetes.request(request("GET", uri, Vec::new(), accept)?).await?)
    }

    async fn write<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        uri: &str,
        body: &Json,
        accept: Option<&'static str>,
    ) -> Result<T, BenchError> {
        Ok(self.kubernetes.request(request(method, uri, body.to_string().into_bytes(), accept)?).await?)
    }
}

fn request(
    method: &str,
    uri: &str,
    body: Vec<u8>,
    accept: Option<&'static str>,
) -> Result<Request<Vec<u8>>, BenchError> {
    let content = if method == "PATCH" { MERGE_PATCH } else { "application/json" };
    let mut request =
        Request::builder().method(method).uri(uri).header("content-type", content).body(body)?;
    if let Some(accept) = accept {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    }
    Ok(request)
}

fn held(object: &Seen, key: String, secret: &Seen) -> Held {
    Held {
        key: Some(key),
        secret: secret.metadata.uid.clone(),
        secret_version: secret.metadata.resource_version.clone(),
        rotate_now: object.metadata.annotations.get(ROTATE_NOW).cloned(),
        ..Held::default()
    }
}

/// UID and resourceVersion as preconditions of a patch.
fn with_guard(mut body: Json, guard: &Json) -> Json {
    let metadata = &mut body["metadata"];
    metadata["uid"] = guard["uid"].clone();
    metadata["resourceVersion"] = guard["resourceVersion"].clone();
    body
}

/// Finalizer and ledger.
fn attempt(metadata: &SeenMetadata) -> Json {
    let ledger = json!([{"attempt": ATTEMPT, "writtenAt": now(), "organization": "org_example"}]).to_string();
    json!({"metadata": {
        "finalizers": [FINALIZER],
        "annotations": {"boltz.bio/attempts": ledger},
        "uid": metadata.uid,
    }})
}

/// The Secret as the operator writes it: the same fields, as long as there.
fn secret_body(metadata: &SeenMetadata, key_id: &Json, value: &str, previous: &[&str]) -> Json {
    let previous: Vec<Json> = previous
        .iter()
        .map(|id| json!({"keyID": id, "keyPrefix": "sk_bc_ws_liv", "attempt": ATTEMPT, "revokeAfter": now()}))
        .collect();
    let record = json!({
        "ownerUID": metadata.uid,
        "keyID": key_id,
        "keyPrefix": "sk_bc_ws_liv",
        "attempt": ATTEMPT,
        "reason": "Initial",
        "issuedAt": now(),
        "createdAt": now(),
        "expiresAt": now(),
        "livemode": true,
        "workspaceID": "ws_default",
        "organization": "org_example",
        "valueSha256": HASH,
        "parametersHash": HASH,
        "secretKey": "BOLTZ_API_KEY",
        "templateHash": HASH,
        "rotations": 0,
        "previous": previous,
    });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": {"boltz.bio/owner-uid": metadata.uid},
            "annotations": {"boltz.bio/record": record.to_string()},
            "ownerReferences": [{
                "apiVersion": "boltz.bio/v1alpha1",
                "kind": "BoltzApiKey",
                "name": metadata.name,
                "uid": metadata.uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        },
        "data": {"BOLTZ_API_KEY": ByteString(value.as_bytes().to_vec())},
    })
}

/// The status as the operator writes it.
fn status(key: &Details, secret: &str) -> Json {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": now(),
            "observedGeneration": 1,
        })
    };
    json!({
        "observedGeneration": 1,
        "conditions": [
            condition("Ready", "True", "Issued", "The Secret contains a valid key."),
            condition("Reconciling", "False", "Issued", "Nothing is to be done."),
            condition("Stalled", "False", "Issued", "Nothing is to be done."),
        ],
        "keyID": key.id,
        "keyPrefix": "sk_bc_ws_liv",
        "valueSHA256": HASH,
        "isActive": true,
        "livemode": true,
        "workspaceID": "ws_default",
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "renewalTime": now(),
        "secretName": secret,
        "rotations": 0,
    })
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
