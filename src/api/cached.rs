//! A `BoltzApiKey` as the caches hold it: what finds it, and the rest compressed.

use super::{
    status::BoltzApiKeyStatus,
    v1alpha1::{BoltzApiKey, BoltzApiKeySpec},
    watched::WatchedApiKey,
};
use crate::{
    at_rest::{AtRest, Dictionary},
    protocol::marker::ObjectMark,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize};

static DICTIONARY: Dictionary = Dictionary::new();

/// A [`WatchedApiKey`] in the cache.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = BoltzApiKey)]
pub struct CachedApiKey {
    /// Namespace, name, UID, version, and whether it is being deleted.
    pub metadata: ObjectMeta,
    /// Its Secret's name, if that is not its own.
    secret_name: Option<Box<str>>,
    rest: AtRest<Rest>,
}

#[derive(Serialize, Deserialize)]
struct Rest {
    metadata: ObjectMeta,
    spec: Result<BoltzApiKeySpec, String>,
    status: Option<BoltzApiKeyStatus>,
}

impl CachedApiKey {
    /// Decompresses it: as costly as reading it from JSON.
    pub(crate) fn open(&self) -> WatchedApiKey {
        let Rest { mut metadata, spec, status } = self.rest.open(&DICTIONARY).unwrap_or_else(|| Rest {
            metadata: ObjectMeta::default(),
            spec: Err("the operator cannot read it from its cache".to_owned()),
            status: None,
        });
        let ObjectMeta { namespace, name, uid, resource_version, deletion_timestamp, .. } =
            self.metadata.clone();
        metadata = ObjectMeta { namespace, name, uid, resource_version, deletion_timestamp, ..metadata };
        WatchedApiKey { metadata, spec, status }
    }

    /// Its mark in the names of its keys.
    pub(crate) fn mark(&self) -> ObjectMark {
        ObjectMark::from_uid(self.metadata.uid.as_deref().unwrap_or_default())
    }

    /// The name of the Secret that its spec asks for.
    pub(crate) fn secret_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.secret_name.as_deref().unwrap_or(own)
    }
}

impl From<WatchedApiKey> for CachedApiKey {
    fn from(object: WatchedApiKey) -> Self {
        let WatchedApiKey { mut metadata, spec, status } = object;
        let found_by = ObjectMeta {
            namespace: metadata.namespace.take(),
            name: metadata.name.take(),
            uid: metadata.uid.take(),
            resource_version: metadata.resource_version.take(),
            deletion_timestamp: metadata.deletion_timestamp.take(),
            ..ObjectMeta::default()
        };
        let own = found_by.name.as_deref().unwrap_or_default();
        let secret_name = spec.as_ref().ok().map(|spec| spec.secret_name(own)).filter(|name| *name != own);
        Self {
            secret_name: secret_name.map(Into::into),
            rest: AtRest::new(&Rest { metadata, spec, status }, &DICTIONARY),
            metadata: found_by,
        }
    }
}

impl<'de> Deserialize<'de> for CachedApiKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WatchedApiKey::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn object(spec: Json) -> WatchedApiKey {
        let condition = json!({"type": "Ready", "status": "True", "reason": "Issued", "message": "valid",
            "lastTransitionTime": "2026-11-24T00:00:00Z", "observedGeneration": 2});
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "team", "name": "key", "uid": "uid", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-11-24T00:00:00Z", "deletionTimestamp": "2026-11-25T00:00:00Z",
                "annotations": {"boltz.bio/rotate": "1"}, "finalizers": ["boltz.bio/revoke-keys"],
            },
            "spec": spec,
            "status": {"keyID": "key_1", "conditions": [condition], "rotations": 3},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_lost_in_the_cache() {
        for spec in [json!({}), json!({"secret": {"name": "other"}, "expiresInDays": 90}), json!({"mode": 1})]
        {
            let object = object(spec.clone());
            assert_eq!(CachedApiKey::from(object.clone()).open(), object, "{spec}");
        }
    }

    #[test]
    fn the_name_of_its_secret_is_known_without_opening_it() {
        for (spec, expected) in [
            (json!({}), "key"),
            (json!({"secret": {"name": "other"}}), "other"),
            (json!({"secret": {"name": ""}}), "key"),
            (json!({"mode": 1}), "key"),
        ] {
            assert_eq!(CachedApiKey::from(object(spec.clone())).secret_name(), expected, "{spec}");
        }
    }
}
