//! What a record says of the spec that its key was issued for.

use super::v1alpha1::BoltzApiKeySpec;
use crate::protocol::{
    digits::hexadecimal,
    record::Record,
    secret_data::{self, RecordedData},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, net::IpAddr};

impl Record {
    /// Sets the data key, the template and the further fields of the spec. Whoever has the value adds the hash of the fields
    /// (`seal`).
    pub fn take_shape(&mut self, spec: &BoltzApiKeySpec, base_url: &str) {
        self.secret_key = spec.secret.key.clone();
        self.template_labels = spec.secret.template.labels.keys().cloned().collect();
        self.template_annotations = spec.secret.template.annotations.keys().cloned().collect();
        self.template_hash = template_hash(spec);
        let other = self.data.take().map(|data| data.other).unwrap_or_default();
        self.data = data_hash(spec, base_url).map(|template_hash| RecordedData {
            key_id: self.key_id.clone(),
            names: names(spec),
            template_hash,
            hash: String::new(),
            other,
        });
    }

    /// Whether the Secret was written for this data key, template and further fields.
    pub(crate) fn has_shape_of(&self, spec: &BoltzApiKeySpec, base_url: &str) -> bool {
        let has_data = match (&self.data, data_hash(spec, base_url)) {
            (None, None) => true,
            (Some(data), Some(wanted)) => data.key_id == self.key_id && data.template_hash == wanted,
            _ => false,
        };
        has_data && self.secret_key == spec.secret.key && self.template_hash == template_hash(spec)
    }
}

/// The hash of the issuance parameters: workspace, mode, addresses as a set, days. Absent equals the default.
/// `displayName` does not count. 64 bits are enough: it is only compared with the previous hash.
pub(crate) fn parameters_hash(spec: &BoltzApiKeySpec) -> String {
    let addresses: BTreeSet<String> = spec
        .allowed_ips
        .iter()
        .map(|text| text.parse::<IpAddr>().map_or_else(|_| text.clone(), |address| address.to_string()))
        .collect();
    let workspace = spec.workspace_id.as_deref().unwrap_or_default();
    let days = spec.expires_in_days.unwrap_or_default();
    short_hash(&serde_json::json!([workspace, spec.mode, addresses, days]).to_string())
}

/// The hash of the Secret template's labels and annotations.
pub(crate) fn template_hash(spec: &BoltzApiKeySpec) -> String {
    let template = &spec.secret.template;
    short_hash(&serde_json::json!([template.labels, template.annotations]).to_string())
}

/// The names of the further fields.
fn names(spec: &BoltzApiKeySpec) -> BTreeSet<String> {
    let names = spec.secret.usable_data().into_keys();
    names.filter(|name| *name != spec.secret.key).map(str::to_owned).collect()
}

/// The hash of `spec.secret.data`; `None`: there is none.
pub(crate) fn data_hash(spec: &BoltzApiKeySpec, base_url: &str) -> Option<String> {
    let texts = spec.secret.usable_data();
    (!texts.is_empty()).then(|| secret_data::template_hash(&texts, base_url))
}

fn short_hash(text: &str) -> String {
    hexadecimal(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> BoltzApiKeySpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn absent_parameters_equal_their_defaults() {
        let empty = parameters_hash(&spec(serde_json::json!({})));
        for same in [
            serde_json::json!({"mode": "live"}),
            serde_json::json!({"workspaceID": ""}),
            serde_json::json!({"allowedIPs": []}),
            serde_json::json!({"displayName": "other"}),
            serde_json::json!({"secret": {"name": "other"}}),
        ] {
            assert_eq!(parameters_hash(&spec(same.clone())), empty, "{same}");
        }
        for other in [
            serde_json::json!({"mode": "test"}),
            serde_json::json!({"workspaceID": "ws"}),
            serde_json::json!({"allowedIPs": ["10.0.0.1"]}),
            serde_json::json!({"expiresInDays": 1}),
        ] {
            assert_ne!(parameters_hash(&spec(other.clone())), empty, "{other}");
        }
    }

    #[test]
    fn addresses_are_a_set() {
        let hash = |addresses: &[&str]| parameters_hash(&spec(serde_json::json!({"allowedIPs": addresses})));
        assert_eq!(hash(&["10.0.0.1", "2001:db8::1"]), hash(&["2001:DB8:0::1", "10.0.0.1", "10.0.0.1"]));
    }
}
