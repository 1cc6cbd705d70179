//! A `BoltzAccount` as the operator watches it: tolerant of invalid objects.

use super::{
    account::{BoltzAccount, BoltzAccountSpec, BoltzAccountStatus},
    annotations::{ACCOUNT_FINALIZER, DEFAULT_ACCOUNT_ANNOTATION},
    watched::lenient,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer};

/// A `BoltzAccount`. One that cannot be read must not make the whole list fail.
#[derive(Resource, Clone, Debug, PartialEq, Deserialize)]
#[resource(inherit = BoltzAccount)]
pub struct WatchedAccount {
    /// Its name, UID, version, finalizers and annotations.
    pub metadata: ObjectMeta,
    /// The spec, or why it is invalid.
    #[serde(deserialize_with = "lenient")]
    pub spec: Result<BoltzAccountSpec, String>,
    /// Absent if it is invalid: it can be rebuilt.
    #[serde(default, deserialize_with = "lenient_status")]
    pub status: Option<BoltzAccountStatus>,
}

fn lenient_status<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BoltzAccountStatus>, D::Error> {
    let status = lenient::<D, Option<BoltzAccountStatus>>(deserializer)?;
    Ok(status.ok().flatten())
}

impl WatchedAccount {
    /// Whether objects that name no account use it.
    pub fn is_default(&self) -> bool {
        self.annotations().get(DEFAULT_ACCOUNT_ANNOTATION).is_some_and(|value| value == "true")
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is kept until no key of it is left.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers().iter().any(|finalizer| finalizer == ACCOUNT_FINALIZER)
    }
}
