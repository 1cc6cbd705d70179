//! Lies: real answers, changed into nonsense.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// What is wrong with an answer of 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The list has no keys.
    NoKeys,
    /// The list, or the answer to a revocation, says that every key is inactive.
    Inactive,
    /// The names of keys lack their end: only so many characters are left.
    NamesCutTo(usize),
    /// The list always has one more page, with rows of others, all of them new.
    NoEnd,
    /// The page is empty, and there are more.
    EmptyPageAndMore,
    /// There are more pages, and no cursor.
    NoCursor,
    /// The first page again and again, with the same cursor.
    SamePage,
    /// Rows have a null name, an unknown key type and a date that is no date.
    OddRows,
    /// A key, or `auth/me`, belongs to the same id in another organization.
    OtherOrganization,
    /// `auth/me` does not say the organization.
    NoOrganization,
    /// A new key had expired a day before it was created.
    ExpiredOnArrival,
    /// A new key's `key_prefix` is the whole key.
    WholeKeyAsPrefix,
    /// A key is in another workspace.
    OtherWorkspace,
    /// A new key has the name of another request, as if a proxy repeated an old answer.
    NameOfAnother,
    /// A new key has this id.
    Id(String),
    /// The key with this id has another name.
    Renamed(String),
    /// The key with this id is inactive.
    OneInactive(String),
    /// The key with this id expired long ago, and is active.
    OneExpired(String),
    /// The list shows each key twice: first as inactive, then as it is.
    RowsTwice,
}

impl Lie {
    /// The answer with the lie in it.
    pub(crate) fn told(self, mut answer: Json, number: usize) -> Json {
        match self {
            Self::NoKeys => {
                answer = json!({"data": [], "first_id": null, "last_id": null, "has_more": false})
            }
            Self::Inactive => each_key(&mut answer, |key| key["is_active"] = json!(false)),
            Self::NamesCutTo(length) => each_key(&mut answer, |key| {
                let name: String = key["name"].as_str().unwrap_or_default().chars().take(length).collect();
                key["name"] = json!(name);
            }),
            Self::NoEnd => {
                let ids = (0..100).map(|row| format!("key_endless_{number}_{row}"));
                let rows: Vec<Json> =
                    ids.map(|id| json!({"id": id, "name": "of others", "is_active": true})).collect();
                answer["last_id"] = rows[rows.len() - 1]["id"].clone();
                answer["data"] = json!(rows);
                answer["has_more"] = json!(true);
            }
            Self::EmptyPageAndMore => {
                answer["data"] = json!([]);
                answer["has_more"] = json!(true);
                answer["last_id"] = json!(format!("key_empty_{number}"));
            }
            Self::NoCursor => {
                answer["has_more"] = json!(true);
                answer["last_id"] = Json::Null;
            }
            Self::SamePage => {
                answer["has_more"] = json!(true);
                if answer["last_id"].is_null() {
                    answer["last_id"] = json!("key_same");
                }
            }
            Self::OddRows => each_key(&mut answer, |key| {
                if !key["name"].as_str().is_some_and(|name| name.contains(" bo.") || name.contains(" b2.")) {
                    key["name"] = Json::Null;
                }
                key["key_type"] = json!("of another kind");
                key["created_at"] = json!("yesterday");
                key["livemode"] = Json::Null;
            }),
            Self::OtherOrganization => {
                answer["organization_id"] = json!("org_other");
                answer["selected_organization_id"] = json!("org_other");
            }
            Self::NoOrganization => {
                answer["organization_id"] = Json::Null;
                answer["selected_organization_id"] = Json::Null;
            }
            Self::ExpiredOnArrival => {
                each_key(&mut answer, |key| key["expires_at"] = json!("2020-01-01T00:00:00Z"));
            }
            Self::OtherWorkspace => each_key(&mut answer, |key| key["workspace_id"] = json!("ws_other")),
            Self::NameOfAnother => {
                // The attempt is the last word of the name.
                each_key(&mut answer, |key| {
                    let name = key["name"].as_str().unwrap_or_default();
                    let (rest, _) = name.rsplit_once('.').unwrap_or((name, ""));
                    key["name"] = json!(format!("{rest}.000000000000"));
                });
            }
            Self::Id(id) => each_key(&mut answer, |key| key["id"] = json!(id)),
            Self::Renamed(id) => one_key(&mut answer, &id, |key| key["name"] = json!("renamed")),
            Self::OneInactive(id) => one_key(&mut answer, &id, |key| key["is_active"] = json!(false)),
            Self::OneExpired(id) => one_key(&mut answer, &id, |key| {
                key["expires_at"] = json!("2020-01-01T00:00:00Z");
                key["is_active"] = json!(true);
            }),
            Self::RowsTwice => {
                if let Some(rows) = answer.get_mut("data").and_then(Json::as_array_mut) {
                    let mut first = rows.clone();
                    first.iter_mut().for_each(|key| key["is_active"] = json!(false));
                    first.append(rows);
                    *rows = first;
                }
            }
            Self::WholeKeyAsPrefix => {
                let whole = answer["key"].clone();
                each_key(&mut answer, |key| key["key_prefix"] = whole.clone());
            }
        }
        answer
    }
}

/// Changes the key object of the answer, or each of the list.
fn each_key(answer: &mut Json, change: impl Fn(&mut Json)) {
    if let Some(rows) = answer.get_mut("data").and_then(Json::as_array_mut) {
        rows.iter_mut().for_each(change);
    } else if let Some(details) = answer.get_mut("key_details") {
        change(details);
    } else {
        change(answer);
    }
}

/// Changes the key with this id, wherever it is.
fn one_key(answer: &mut Json, id: &str, change: impl Fn(&mut Json)) {
    each_key(answer, |key| {
        if key["id"] == id {
            change(key);
        }
    });
}
