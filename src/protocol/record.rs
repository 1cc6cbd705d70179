//! The record: the annotation on the Secret that names the current key and the previous keys. It is written together with
//! the key's value, in one write.

pub use super::secret_data::value_sha256;

use super::{
    OtherFields,
    account_name::AccountName,
    is_id,
    marker::AttemptId,
    secret_data::{self, RecordedData},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};

/// Maximum number of previous keys of an object.
pub const MAX_PREVIOUS: usize = 4;
/// Maximum number of previous keys that are read from a record or a status. Concurrent writers exceed [`MAX_PREVIOUS`] by
/// a few. What comes after them is a forgery; if it names a key of the object, the ledger lists that key's attempt.
pub const MAX_PREVIOUS_READ: usize = 64;
/// Maximum length of the unknown fields of a record.
const MAX_OTHER_LENGTH: usize = 4096;
/// The same for a previous key.
const MAX_OTHER_OF_PREVIOUS: usize = 512;
/// Maximum length of a proof: the operator's own are shorter.
const MAX_PROOF: usize = 128;

/// Why a key was issued. Used in records, status, events and metrics.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum IssueReason {
    /// The object had no key.
    Initial,
    /// The Secret does not exist any more.
    SecretMissing,
    /// The value in the Secret was changed, or the record cannot be trusted.
    SecretAltered,
    /// Boltz reports that the key is inactive, or does not list it.
    KeyInactive,
    /// Workspace, mode, addresses or days changed.
    ParametersChanged,
    /// The annotation `boltz.bio/rotate-now` has a new value.
    RotateNow,
    /// The renewal time has come.
    Renewal,
    /// The annotation `boltz.bio/rotate` has a new value.
    RotateRequested,
    /// `spec.rotation.interval` has passed since the key was issued.
    Interval,
}

impl IssueReason {
    /// With the maximum number of previous keys, optional rotations wait; other rotations revoke the oldest previous key
    /// early.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::RotateRequested | Self::Interval)
    }

    /// As in the record and in the label `reason` of metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The annotation `boltz.bio/record`: which key the Secret holds, and which keys it held before. Written with the
/// value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The UID of the object that the Secret belongs to.
    #[serde(rename = "ownerUID")]
    pub owner_uid: String,
    /// The current key's id at Boltz.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The first 12 characters, as Boltz returned them. They may be the same for every key.
    pub key_prefix: String,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// Why it was issued.
    pub reason: IssueReason,
    /// When it was received, by the operator's clock.
    pub issued_at: Timestamp,
    /// When Boltz created it, as returned by Boltz.
    pub created_at: Timestamp,
    /// When it expires, as returned by Boltz. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// False for test-mode keys, as returned by Boltz.
    pub livemode: bool,
    /// Its workspace, as returned by Boltz.
    #[serde(default, rename = "workspaceID", skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The organization that it belongs to. Absent: Boltz did not say, or 0.1.0 wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The account with which it was created. Absent: that of the flags.
    #[serde(default, skip_serializing_if = "AccountName::is_of_flags")]
    pub account: AccountName,
    /// The SHA-256 of the stored value, hexadecimal.
    pub value_sha256: String,
    /// The `parameters_hash` of the spec that the key was issued for.
    pub parameters_hash: String,
    /// The value of the rotate annotation when the attempt was written: this request is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// The same for the rotate-now annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_now: Option<String>,
    /// The data key of the value.
    pub secret_key: String,
    /// Labels of the template that the operator set, so that it can remove them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub template_labels: BTreeSet<String>,
    /// Annotations of the template that the operator set.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub template_annotations: BTreeSet<String>,
    /// The `template_hash` of the template that the operator applied.
    pub template_hash: String,
    /// The fields of the Secret beside the key. Absent: there are none, or 0.1.0 wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<RecordedData>,
    /// How many times the object's key has been replaced.
    #[serde(default)]
    pub rotations: i64,
    /// It is the object's first key, and it replaced a value that workloads may have loaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced_value: bool,
    /// Previous keys that may still be active, oldest first. At most [`MAX_PREVIOUS`]; concurrent writers can exceed the
    /// limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PreviousKey>,
    /// What later releases wrote into the record: it survives a rewrite.
    #[serde(flatten)]
    pub other: OtherFields,
    /// The annotation has more than is read. It is to be written anew.
    #[serde(skip)]
    pub is_cut: bool,
}

/// A previous key in its overlap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKey {
    /// What its revocation names.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The first 12 characters. Absent if only the status named the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// Its attempt. Absent if only the status named the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptId>,
    /// The end of its overlap, by the wall clock.
    pub revoke_after: Timestamp,
    /// When it expires. Absent: never, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The key may have leaked: revoke it even if it is in use, also with `UntilIdle`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub even_if_used: bool,
    /// The organization that it belongs to, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// It was in the Secret when the object adopted it: the operator's proof that it may be revoked. Empty: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// What later releases wrote into this entry: it survives a rewrite.
    #[serde(flatten)]
    pub other: OtherFields,
}

impl Record {
    /// A record without a key, for the dry run before one is issued.
    pub fn placeholder(owner_uid: &str) -> Self {
        Self {
            owner_uid: owner_uid.to_owned(),
            key_id: String::new(),
            key_prefix: String::new(),
            attempt: AttemptId::from_random(0),
            reason: IssueReason::Initial,
            issued_at: Timestamp::UNIX_EPOCH,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            livemode: true,
            workspace_id: None,
            organization: None,
            account: AccountName::OF_FLAGS,
            value_sha256: String::new(),
            parameters_hash: String::new(),
            rotate: None,
            rotate_now: None,
            secret_key: String::new(),
            template_labels: BTreeSet::new(),
            template_annotations: BTreeSet::new(),
            template_hash: String::new(),
            data: None,
            rotations: 0,
            replaced_value: false,
            previous: Vec::new(),
            other: OtherFields::default(),
            is_cut: false,
        }
    }

    /// Adds the hash of the fields with which the record is written.
    pub(crate) fn seal<'a>(&mut self, field: impl Fn(&str) -> Option<&'a [u8]>) {
        if let Some(data) = &mut self.data {
            let names = data.names.iter().map(String::as_str).chain([self.secret_key.as_str()]);
            data.hash = secret_data::fields_hash(names.map(|name| (name, field(name))));
        }
    }

    /// The hash of the key's value in the Secret, unless it is the recorded one beside another field that was altered. A
    /// record of 0.1.0 says nothing of other fields, and neither does one whose key an operator replaced that does not know
    /// them.
    pub(crate) fn hash_of<'a>(&self, field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<String> {
        let data = self.data.as_ref().filter(|data| data.key_id == self.key_id);
        let is_intact = data.is_none_or(|data| data.is_intact(&self.secret_key, &field));
        field(&self.secret_key).map(value_sha256).filter(|hash| is_intact || *hash != self.value_sha256)
    }

    /// Reads the annotation; `None` if it is absent or invalid. Users can edit it, so its lists are bounded.
    pub fn parse(annotation: Option<&str>) -> Option<Self> {
        let record: Self = serde_json::from_str(annotation?).ok()?;
        is_id(&record.key_id).then(|| record.bounded())
    }

    fn bounded(mut self) -> Self {
        let count = self.previous.len();
        let mut seen = HashSet::new();
        self.previous.retain(|key| is_id(&key.key_id) && seen.insert(key.key_id.clone()));
        self.previous.truncate(MAX_PREVIOUS_READ);
        self.is_cut = self.previous.len() < count;
        self.other.bound(MAX_OTHER_LENGTH);
        if let Some(data) = &mut self.data {
            data.bound();
        }
        for key in &mut self.previous {
            key.adopted.take_if(|proof| proof.len() > MAX_PROOF);
            key.other.bound(MAX_OTHER_OF_PREVIOUS);
        }
        self
    }

    /// JSON, as release 0.1.0 reads it.
    pub fn to_annotation(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The ids of the keys that the record names.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.key_id).chain(self.previous.iter().map(|previous| &previous.key_id))
    }

    /// Whether the record names the key, as current or previous.
    pub fn names(&self, key_id: &str) -> bool {
        self.key_id == key_id || self.previous.iter().any(|previous| previous.key_id == key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_no_record() {
        for text in ["", "{}", "null", "{\"keyID\":1}"] {
            assert_eq!(Record::parse(Some(text)), None, "{text}");
        }
        let long = Record { key_id: "k".repeat(257), ..Record::placeholder("uid") };
        assert_eq!(Record::parse(Some(&long.to_annotation())), None);
    }

    #[test]
    fn of_forged_previous_keys_the_first_are_read() {
        let key = |id: String| PreviousKey {
            key_id: id,
            key_prefix: None,
            attempt: None,
            revoke_after: Timestamp::UNIX_EPOCH,
            expires_at: None,
            even_if_used: false,
            organization: None,
            adopted: None,
            other: OtherFields::default(),
        };
        let read = |ids: &mut dyn Iterator<Item = String>| {
            let record = Record { previous: ids.map(key).collect(), ..Record::placeholder("uid") };
            let read = Record::parse(Some(&record.to_annotation())).unwrap();
            (read.previous.len(), read.is_cut)
        };
        assert_eq!(read(&mut (0..64).map(|id| id.to_string())), (64, false));
        assert_eq!(read(&mut (0..2200).map(|id| id.to_string())), (64, true));
        assert_eq!(read(&mut (0..2200).map(|_| "same".to_owned())), (1, true));
        assert_eq!(read(&mut std::iter::once("k".repeat(257))), (0, true));
    }
}
