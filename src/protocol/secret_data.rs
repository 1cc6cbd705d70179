//! The further fields of a Secret: the texts of `spec.secret.data`, and what the record says of them.

use super::{OtherFields, digits::hexadecimal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// How [`fields_hash`] is computed. Another version is one of a later release.
const VERSION: &str = "2:";
/// Maximum number of names that are read. The CRD allows fewer.
const MAX_NAMES_READ: usize = 64;
/// Maximum length of the unknown fields.
const MAX_OTHER_LENGTH: usize = 512;

/// What the record says of the Secret's fields beside the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedData {
    /// The key that the fields were written for. An operator that does not know this entry may have replaced the key since.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The names of the fields, so that they can be removed.
    pub names: BTreeSet<String>,
    /// The hash of the texts that the fields were made from.
    pub template_hash: String,
    /// The version of the hash, and the SHA-256 of all fields that the operator wrote, with the key.
    pub hash: String,
    /// What later releases wrote into this field: it survives a rewrite.
    #[serde(flatten)]
    pub other: OtherFields,
}

impl RecordedData {
    pub(super) fn bound(&mut self) {
        self.names = std::mem::take(&mut self.names).into_iter().take(MAX_NAMES_READ).collect();
        self.other.bound(MAX_OTHER_LENGTH);
    }

    /// Whether the fields are as they were written. What a later release wrote is not judged.
    pub(super) fn is_intact<'a>(&self, secret_key: &str, field: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
        let names = self.names.iter().map(String::as_str).chain([secret_key]);
        !self.hash.starts_with(VERSION) || self.hash == fields_hash(names.map(|name| (name, field(name))))
    }
}

/// The SHA-256 of a secret value, hexadecimal.
pub fn value_sha256(value: &[u8]) -> String {
    hexadecimal(&Sha256::digest(value))
}

/// Whether the text is what [`value_sha256`] returns: users can edit records and status.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hash of fields, with its version. A field that is missing counts too.
pub(super) fn fields_hash<'a>(fields: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> String {
    let fields: BTreeMap<&str, Option<String>> =
        fields.map(|(name, value)| (name, value.map(value_sha256))).collect();
    format!("{VERSION}{}", hexadecimal(&Sha256::digest(serde_json::json!(fields).to_string())))
}

/// The hash of the texts, with the address that they mention. 64 bits are enough, as for the parameters.
pub(crate) fn template_hash(texts: &BTreeMap<&str, &str>, base_url: &str) -> String {
    // Without the reference, another address changes nothing.
    let mentions = texts.values().any(|text| text.contains("$(baseURL)"));
    let text = serde_json::json!([texts, mentions.then_some(base_url)]).to_string();
    hexadecimal(&Sha256::digest(text)[..8])
}

/// Replaces `$(name)` in the text, as Kubernetes does in the arguments of a container: `$$` is one `$`, so that `$$(name)`
/// is the text `$(name)`, and a reference to something unknown stays as it is.
pub fn expand<'a>(text: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match value_of(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record::Record;

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        // From the tests of Kubernetes' third_party/forked/golang/expansion, with its values.
        let value_of = |name: &str| match name {
            "VAR_A" => Some("A"),
            "VAR_B" => Some("B"),
            "VAR_REF" => Some("$(VAR_A)"),
            "VAR_EMPTY" => Some(""),
            _ => None,
        };
        for (text, expanded) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_A)", "AA"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("foo$(VAR_EMPTY)bar", "foobar"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
            ("$VAR_A", "$VAR_A"),
            ("$(unknown)", "$(unknown)"),
            ("$()", "$()"),
            ("$(VAR_A", "$(VAR_A"),
            ("f000-$((VAR_A)", "f000-$((VAR_A)"),
            ("a$", "a$"),
            ("", ""),
            ("ü$(VAR_A)ü", "üAü"),
        ] {
            assert_eq!(expand(text, value_of), expanded, "{text}");
        }
    }

    /// As the record of 0.1.0, which says nothing of further fields, is judged: by the value alone.
    #[test]
    fn every_field_that_the_operator_wrote_counts() {
        const OF_0_1_0: &str = r#"{"ownerUID":"u","keyID":"key_1","keyPrefix":"sk","attempt":"0123456789ab","reason":"Initial","issuedAt":"2026-11-24T00:00:01Z","createdAt":"2026-11-24T00:00:01Z","livemode":false,"valueSha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","parametersHash":"0123456789abcdef","secretKey":"KEY","templateHash":"fedcba9876543210","rotations":0}"#;
        let intact = Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned());
        let hash = |record: &Record, fields: &[(&str, &str)]| {
            let find = |name: &str| fields.iter().find(|(known, _)| *known == name);
            record.hash_of(|name| find(name).map(|(_, value)| value.as_bytes()))
        };
        let old = Record::parse(Some(OF_0_1_0)).unwrap();
        assert_eq!(hash(&old, &[("KEY", "test"), (".env", "anything")]), intact);
        assert_eq!(hash(&old, &[(".env", "anything")]), None);

        let spec = serde_json::json!({"secret": {"key": "KEY", "data": {".env": "KEY=$(key)"}}});
        let spec = serde_json::from_value(spec).unwrap();
        let mut record = old.clone();
        record.take_shape(&spec, "https://boltz");
        record.seal(|name| Some(if name == "KEY" { b"test" } else { b"KEY=test" }));
        // Golden: a release that computes it in another way has to give it another version.
        assert_eq!(
            record.data.as_ref().unwrap().hash,
            "2:674170cd7078d192f19ae5b3ddb46912fd7fce60520d48658d1a3eaaa4a93728"
        );
        assert_eq!(Record::parse(Some(&record.to_annotation())), Some(record.clone()));
        assert!(record.has_shape_of(&spec, "https://boltz") && !old.has_shape_of(&spec, "https://boltz"));
        let rows: &[(&[(&str, &str)], bool)] = &[
            (&[("KEY", "test"), (".env", "KEY=test")], true),
            (&[("KEY", "test"), (".env", "KEY=test"), ("theirs", "x")], true),
            (&[("KEY", "test"), (".env", "KEY=other")], false),
            (&[("KEY", "test")], false),
            (&[(".env", "KEY=test")], false),
        ];
        for (fields, is_intact) in rows {
            assert_eq!(hash(&record, fields).is_some(), *is_intact, "{fields:?}");
        }
        // Another version, and another key: only the value counts, and the Secret is written anew.
        let later = Record {
            data: record.data.clone().map(|data| RecordedData { hash: "3:x".into(), ..data }),
            ..record.clone()
        };
        assert_eq!(hash(&later, &[("KEY", "test")]), intact);
        let rotated = Record { key_id: "key_2".to_owned(), ..record };
        assert_eq!(hash(&rotated, &[("KEY", "test"), (".env", "KEY=old")]), intact);
        assert!(!rotated.has_shape_of(&spec, "https://boltz"));
    }

    #[test]
    fn another_address_counts_only_where_it_is_mentioned() {
        let hash = |text: &str, base_url: &str| template_hash(&BTreeMap::from([("a", text)]), base_url);
        assert_eq!(hash("$(key)", "https://one"), hash("$(key)", "https://two"));
        assert_ne!(hash("$(baseURL)", "https://one"), hash("$(baseURL)", "https://two"));
        assert_ne!(hash("$(key)", "https://one"), hash("$(keyID)", "https://one"));
    }
}
