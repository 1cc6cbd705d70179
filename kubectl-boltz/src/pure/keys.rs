//! Every key of the cluster: current, previous, orphaned.

use super::object::View;
use crate::words::{or_dash, plain, relative, table};
use boltz_operator::{api::WatchedApiKey, controller::orphan_list::PublishedOrphan};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownKey {
    #[serde(rename = "keyID")]
    pub key_id: String,
    pub prefix: String,
    pub state: State,
    /// `namespace/name`; of an orphan, what its name says of its object.
    pub object: String,
    /// Its `BoltzAccount`. Absent: the account of the operator's flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke_after: Option<Timestamp>,
    /// The day; the operator does not say it more precisely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_on: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Orphan,
    Previous,
    Current,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Previous => "previous",
            Self::Current => "current",
        }
    }
}

/// All keys: orphans first, then by object.
pub fn join(objects: &[WatchedApiKey], orphans: &[PublishedOrphan]) -> Vec<KnownKey> {
    let mut keys: Vec<KnownKey> = orphans.iter().map(of_orphan).collect();
    for object in objects {
        let Some(status) = &object.status else { continue };
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let current = status.key_id.iter().map(|id| KnownKey {
            key_id: id.clone(),
            prefix: status.key_prefix.clone().unwrap_or_default(),
            state: State::Current,
            object: name.clone(),
            account: status.account_name.clone(),
            expires_at: status.expires_at.as_ref().map(|time| time.0),
            revoke_after: None,
            last_used_on: View::new(object, Timestamp::UNIX_EPOCH).current_key_last_used_at().map(day),
        });
        let previous = status.previous_keys.iter().map(|previous| KnownKey {
            key_id: previous.key_id.clone(),
            prefix: previous.key_prefix.clone().unwrap_or_default(),
            state: State::Previous,
            object: name.clone(),
            account: status.account_name.clone(),
            expires_at: None,
            revoke_after: Some(previous.revoke_after.0),
            last_used_on: previous.last_used_at.as_ref().map(|time| day(time.0)),
        });
        keys.extend(current.chain(previous));
    }
    keys.sort_by(|one, other| {
        let order = |key: &KnownKey| (key.state != State::Orphan, key.object.clone(), key.state);
        order(one).cmp(&order(other))
    });
    keys
}

fn of_orphan(orphan: &PublishedOrphan) -> KnownKey {
    KnownKey {
        key_id: orphan.key_id.clone(),
        prefix: orphan.key_prefix.clone(),
        state: State::Orphan,
        object: format!("(uid {}…)", orphan.object),
        account: orphan.account.name().map(str::to_owned),
        expires_at: orphan.expires_at,
        revoke_after: None,
        last_used_on: orphan.last_used_on.map(|date| date.to_string()),
    }
}

fn day(time: Timestamp) -> String {
    time.strftime("%F").to_string()
}

pub fn render(keys: &[KnownKey], now: Timestamp) -> String {
    let row = |key: &KnownKey| {
        let end = match (key.revoke_after, key.expires_at) {
            // The status names only keys that are still valid.
            (Some(at), _) if at <= now => format!("not revoked, due {}", relative(at, now)),
            (Some(at), _) => format!("revoked {}", relative(at, now)),
            (None, Some(at)) => format!("expires {}", relative(at, now)),
            (None, None) if key.state == State::Previous => "-".to_owned(),
            (None, None) => "never expires".to_owned(),
        };
        let used = or_dash(key.last_used_on.as_deref(), str::to_owned);
        let texts = [&key.key_id, key.state.text(), &key.object, &key.prefix, &end, &used];
        texts.map(|text| if text.is_empty() { "-".to_owned() } else { plain(text) }).to_vec()
    };
    let rows = keys.iter().map(row).collect();
    let accounts: Vec<_> = keys.iter().map(|key| key.account.as_deref()).collect();
    table_with_accounts(&["KEY ID", "STATE", "OBJECT", "PREFIX", "END", "LAST USED"], rows, &accounts)
}

/// A table that names the account of each row, if there are others than that of the operator's flags.
fn table_with_accounts(header: &[&str], mut rows: Vec<Vec<String>>, accounts: &[Option<&str>]) -> String {
    let mut header = header.to_vec();
    if accounts.iter().any(Option::is_some) {
        header.push("ACCOUNT");
        for (row, account) in rows.iter_mut().zip(accounts) {
            row.push(or_dash(*account, plain));
        }
    }
    table(&header, &rows)
}

pub fn render_orphans(orphans: &[PublishedOrphan], now: Timestamp) -> String {
    let row = |orphan: &PublishedOrphan| {
        vec![
            plain(&orphan.key_id),
            plain(&orphan.key_prefix),
            relative(orphan.orphaned_since, now),
            orphan.expires_at.map_or("never".to_owned(), |at| relative(at, now)),
            or_dash(orphan.last_used_on, |date| date.to_string()),
            plain(&orphan.object),
        ]
    };
    let rows = orphans.iter().map(row).collect();
    let accounts: Vec<_> = orphans.iter().map(|orphan| orphan.account.name()).collect();
    let header = ["KEY ID", "PREFIX", "ORPHANED", "EXPIRES", "LAST USED", "UID OF ITS OBJECT"];
    table_with_accounts(&header, rows, &accounts)
}

/// Those that have been orphans for longer than this.
pub fn older(
    mut orphans: Vec<PublishedOrphan>,
    than: Option<SignedDuration>,
    now: Timestamp,
) -> Vec<PublishedOrphan> {
    orphans.retain(|orphan| than.is_none_or(|than| now.duration_since(orphan.orphaned_since) >= than));
    orphans
}

/// The orphans that are to be revoked: those with these ids, or all, and only old ones. `Err`: the ids of no such orphan.
pub fn chosen<'a>(
    orphans: &'a [PublishedOrphan],
    ids: &[String],
    older_than: SignedDuration,
    now: Timestamp,
) -> Result<Vec<&'a PublishedOrphan>, Vec<String>> {
    let is_wanted = |orphan: &&PublishedOrphan| {
        let is_named = ids.is_empty() || ids.contains(&orphan.key_id);
        is_named && now.duration_since(orphan.orphaned_since) >= older_than
    };
    let chosen: Vec<&PublishedOrphan> = orphans.iter().filter(is_wanted).collect();
    let is_left_out = |id: &&String| chosen.iter().all(|orphan| orphan.key_id != **id);
    let others: Vec<String> = ids.iter().filter(is_left_out).cloned().collect();
    if others.is_empty() { Ok(chosen) } else { Err(others) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, object};
    use boltz_operator::protocol::account_name::AccountName;
    use serde_json::json;

    fn orphan(id: &str, since: &str) -> PublishedOrphan {
        PublishedOrphan {
            key_id: id.to_owned(),
            key_prefix: "sk_0".to_owned(),
            account: AccountName::OF_FLAGS,
            object: "0123456789abcdef".to_owned(),
            attempt: "0123456789ab".to_owned(),
            orphaned_since: since.parse().unwrap(),
            expires_at: None,
            last_used_on: None,
        }
    }

    #[test]
    fn an_id_that_is_not_revoked_is_named() {
        let orphans = [orphan("old", "2026-11-20T12:00:00Z"), orphan("young", NOW)];
        let day = SignedDuration::from_hours(24);
        for (ids, older_than, expected) in [
            (&[][..], day, Ok(vec!["old"])),
            (&[], SignedDuration::ZERO, Ok(vec!["old", "young"])),
            (&["old"], day, Ok(vec!["old"])),
            (&["old", "young"], day, Err(vec!["young"])),
            (&["unknown", "old"], day, Err(vec!["unknown"])),
        ] {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let found = chosen(&orphans, &ids, older_than, NOW.parse().unwrap());
            let found =
                found.map(|found| found.iter().map(|orphan| orphan.key_id.clone()).collect::<Vec<_>>());
            let owned = |ids: Vec<&str>| ids.into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(found, expected.map(owned).map_err(owned), "{ids:?}");
        }
    }

    #[test]
    fn the_list_can_leave_out_young_orphans() {
        let orphans = || vec![orphan("old", "2026-11-20T12:00:00Z"), orphan("young", NOW)];
        for (than, left) in
            [(None, 2), (Some(SignedDuration::ZERO), 2), (Some(SignedDuration::from_hours(1)), 1)]
        {
            assert_eq!(older(orphans(), than, NOW.parse().unwrap()).len(), left, "{than:?}");
        }
    }

    #[test]
    fn orphans_come_first_and_no_key_is_left_out() {
        let status = json!({
            "keyID": "key-2", "keyPrefix": "sk_2", "lastUsedAt": "2026-11-25T12:00:00Z",
            "previousKeys": [
                {"keyID": "key-1", "revokeAfter": "2026-11-26T13:00:00Z"},
                {"keyID": "key-late", "revokeAfter": "2026-11-26T09:00:00Z"},
            ],
        });
        let objects = [object("design", json!({}), status), object("new", json!({}), json!({}))];
        let orphan = orphan("key-0", NOW);
        let text = render(&join(&objects, &[orphan]), NOW.parse().unwrap());
        assert_eq!(
            text,
            "KEY ID     STATE      OBJECT                    PREFIX   END                       LAST USED\n\
             key-0      orphan     (uid 0123456789abcdef…)   sk_0     never expires             -\n\
             key-1      previous   team/design               -        revoked in 60m            -\n\
             key-late   previous   team/design               -        not revoked, due 3h ago   -\n\
             key-2      current    team/design               sk_2     never expires             2026-11-25\n"
        );
    }
}
