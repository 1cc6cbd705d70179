//! From a key to the object that it belongs to.

use super::object::View;
use crate::words::relative;
use boltz_operator::{
    api::WatchedApiKey,
    controller::orphan_list::PublishedOrphan,
    protocol::{
        marker::{Marker, ObjectMark},
        record::value_sha256,
    },
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::collections::BTreeSet;

/// Keys of Boltz begin so: one on the command line is in the shell's history.
const VALUE_PREFIX: &str = "sk_";

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Id(String),
    /// Its name at Boltz, with a marker.
    Name(Box<Marker>),
    /// The SHA-256 of its value, or of each value of a file.
    Hashes(BTreeSet<String>),
}

/// The text is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsAValue;

impl Question {
    pub fn from_argument(text: &str) -> Result<Self, IsAValue> {
        if text.starts_with(VALUE_PREFIX) {
            return Err(IsAValue);
        }
        let name = Marker::parse(text).map(|marker| Self::Name(Box::new(marker)));
        Ok(name.unwrap_or_else(|| Self::Id(text.to_owned())))
    }

    /// From what contains one or more values: the text may be a value, or any file.
    pub fn from_text(text: &str) -> Self {
        let mut hashes: BTreeSet<String> = values(text).map(|value| value_sha256(value.as_bytes())).collect();
        if hashes.is_empty() {
            hashes.insert(value_sha256(text.trim().as_bytes()));
        }
        Self::Hashes(hashes)
    }
}

/// Everything that looks like a value.
fn values(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let begins = text.match_indices(VALUE_PREFIX).map(|(begin, _)| begin);
    // As in `task_id`.
    let begins = begins
        .filter(|begin| !text[..*begin].chars().next_back().is_some_and(|before| before.is_alphanumeric()));
    begins.map(move |begin| {
        let rest = &text[begin..];
        &rest[..rest.find(|character| !is_part(character)).unwrap_or(rest.len())]
    })
}

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub namespace: String,
    pub name: String,
    /// What the key is to the object.
    pub role: Role,
    #[serde(rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// When the overlap of a previous key ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke_after: Option<Timestamp>,
}

impl Owner {
    /// What the key is to the object.
    pub fn text(&self, now: Timestamp) -> String {
        match (self.role, self.revoke_after) {
            (Role::Current, _) => "its current key".to_owned(),
            (Role::Previous, Some(end)) if end <= now => {
                format!("a previous key of it, not revoked although its overlap ended {}", relative(end, now))
            }
            (Role::Previous, Some(end)) => {
                format!("a previous key of it, whose overlap ends {}", relative(end, now))
            }
            (Role::Previous, None) => "a previous key of it".to_owned(),
            (Role::MadeForIt, _) => {
                "a key that was made for it; the status does not say whether it is the current one, a previous one or revoked. The \
                 key's id tells: kubectl boltz whose ID"
                    .to_owned()
            }
        }
    }
}

/// What a key is to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Current,
    Previous,
    /// The key was made for the object, by its name at Boltz. The status has no names of keys.
    MadeForIt,
}

/// The objects that the key belongs to. More than one only if somebody forged a status.
pub fn owners(question: &Question, objects: &[WatchedApiKey]) -> Vec<Owner> {
    objects.iter().filter_map(|object| owner(question, object)).collect()
}

fn owner(question: &Question, object: &WatchedApiKey) -> Option<Owner> {
    let status = object.status.as_ref();
    let current = status.and_then(|status| status.key_id.clone());
    let (role, key_id) = match question {
        Question::Id(id) if current.as_ref() == Some(id) => (Role::Current, current),
        Question::Id(id) if status.is_some_and(|status| status.names(id)) => {
            (Role::Previous, Some(id.clone()))
        }
        Question::Hashes(hashes) => {
            status.filter(|status| status.value_sha256.as_ref().is_some_and(|hash| hashes.contains(hash)))?;
            (Role::Current, current)
        }
        Question::Name(marker)
            if marker.object == ObjectMark::from_uid(&object.uid().unwrap_or_default()) =>
        {
            (Role::MadeForIt, None)
        }
        _ => return None,
    };
    let view = View::new(object, Timestamp::UNIX_EPOCH).object;
    let mut previous = status.iter().flat_map(|status| &status.previous_keys);
    let revoke_after =
        previous.find(|previous| role == Role::Previous && Some(&previous.key_id) == key_id.as_ref());
    let revoke_after = revoke_after.map(|previous| previous.revoke_after.0);
    let (namespace, name) = (view.namespace().unwrap_or_default(), view.name_any());
    Some(Owner { namespace, name, role, key_id, revoke_after })
}

/// The orphan that the key is.
pub fn orphan<'a>(question: &Question, orphans: &'a [PublishedOrphan]) -> Option<&'a PublishedOrphan> {
    orphans.iter().find(|orphan| match question {
        Question::Id(id) => orphan.key_id == *id,
        Question::Name(marker) => {
            orphan.object == marker.object.to_string() && orphan.attempt == marker.attempt.as_str()
        }
        Question::Hashes(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, object};
    use serde_json::json;

    const VALUE: &str = "sk_bc_work_live_secret";

    #[test]
    fn a_key_leads_to_its_object() {
        let status = json!({
            "keyID": "key-2", "valueSHA256": value_sha256(VALUE.as_bytes()),
            "previousKeys": [{"keyID": "key-1", "revokeAfter": "2026-11-26T13:00:00Z"}],
        });
        let objects = [object("design", json!({}), status)];
        let role = |question: Question| owners(&question, &objects).first().map(|owner| owner.role);
        let argument = |text: &str| role(Question::from_argument(text).unwrap());
        assert_eq!(argument("key-2"), Some(Role::Current));
        assert_eq!(argument("key-1"), Some(Role::Previous));
        assert_eq!(argument("key-0"), None);
        assert_eq!(argument("team/design bo.prod.550e8400e29b41d4.0123456789ab"), Some(Role::MadeForIt));
        assert_eq!(argument("team/design bo.prod.0000000000000000.0123456789ab"), None);
        assert_eq!(argument("team/design b2.am788072.5a3m403h9pgem.0123456789ab"), Some(Role::MadeForIt));
        assert_eq!(argument("team/design b2.am788072.0000000000000.0123456789ab"), None);
        for (text, is_found) in [
            (VALUE.to_owned(), true),
            (format!("{VALUE}\n"), true),
            (format!("KEY=\"{VALUE}\"\n"), true),
            (format!("  {VALUE} x"), true),
            (format!("a={VALUE}, b"), true),
            (format!("https://x/?k={VALUE}&y=1"), true),
            (format!("task_id=1 disk_sk_=2 {VALUE}"), true),
            (format!("sk_bc_work_live_other\n{VALUE}"), true),
            (format!("x{VALUE}"), false),
            (format!("é{VALUE}"), false),
            (format!("{VALUE}x"), false),
            ("sk_bc_work_live_other".to_owned(), false),
        ] {
            let found = role(Question::from_text(&text));
            assert_eq!(found, is_found.then_some(Role::Current), "{text}");
        }
    }

    #[test]
    fn what_a_key_is_to_its_object_is_not_guessed() {
        let previous = |id: &str, end: &str| json!({"keyID": id, "revokeAfter": end});
        let status = json!({"keyID": "key-3", "previousKeys": [
            previous("key-2", "2026-11-26T17:00:00Z"), previous("key-1", "2026-11-26T07:00:00Z"),
        ]});
        let objects = [object("design", json!({}), status)];
        for (argument, text) in [
            ("key-3", "its current key"),
            ("key-2", "a previous key of it, whose overlap ends in 5h"),
            ("key-1", "a previous key of it, not revoked although its overlap ended 5h ago"),
            // It may be any of them.
            (
                "team/design bo.prod.550e8400e29b41d4.0123456789ab",
                "a key that was made for it; the status does not say whether it is the current one",
            ),
        ] {
            let found = owners(&Question::from_argument(argument).unwrap(), &objects);
            let said = found[0].text(NOW.parse().unwrap());
            assert!(said.starts_with(text), "{argument}: {said}");
        }
    }

    #[test]
    fn a_value_is_not_taken_from_the_command_line() {
        assert_eq!(Question::from_argument(VALUE), Err(IsAValue));
    }
}
