//! `whose`.

use super::Session;
use crate::{
    failure::Failure,
    output::Format,
    pure::whose::{self, Owner, Question},
    words::plain,
};
use boltz_operator::api::WatchedApiKey;
use serde_json::json;
use std::io::Read;

/// Longer than any key, and what stands around it.
const MAX_TEXT: usize = 64 * 1024;
pub async fn whose(session: &Session, key: &str) -> Result<u8, Failure> {
    let question = if key == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        if read.is_err() || text.trim().is_empty() {
            return Err(Failure::Other(
                "standard input has no text\nnext: kubectl boltz whose - < FILE".to_owned(),
            ));
        }
        if bytes.len() > MAX_TEXT {
            return Err(Failure::Other(format!(
                "standard input has more than {MAX_TEXT} bytes, and a key may be in the rest\n\
                 next: kubectl boltz whose - < PART  # made by: grep sk_ FILE > PART"
            )));
        }
        Question::from_text(&text)
    } else {
        Question::from_argument(key).map_err(|whose::IsAValue| {
            Failure::Other(
                "this looks like the value of a key, and a command line is kept in the shell's history\n\
                 next: kubectl boltz whose - < FILE  # on standard input"
                    .to_owned(),
            )
        })?
    };
    // Everywhere, if that is allowed.
    let (objects, everywhere) = match session.cluster.list(None, None).await {
        Ok(objects) => (objects, true),
        Err(Failure::Forbidden { .. }) => {
            (session.cluster.list(Some(&session.cluster.namespace), None).await?, false)
        }
        Err(error) => return Err(error),
    };
    let read: Vec<WatchedApiKey> = objects.into_iter().map(|object| object.read).collect();
    let owners = whose::owners(&question, &read);
    if owners.is_empty() {
        let lists = super::orphans::published(session, &super::orphans::Publisher::default())
            .await
            .unwrap_or_default();
        let orphans: Vec<_> = lists.into_iter().flat_map(|list| list.list.orphans).collect();
        if let Some(orphan) = whose::orphan(&question, &orphans) {
            let text = || {
                if session.format == Format::Name {
                    return format!("{}\n", plain(&orphan.key_id));
                }
                format!(
                    "an orphan: no BoltzApiKey and no Secret refers to the key {}\nnext: kubectl boltz orphans\n",
                    plain(&orphan.key_id)
                )
            };
            session.format.write(&json!({"owners": [], "orphan": orphan}), text)?;
            return Ok(0);
        }
        let place = if everywhere {
            "in this cluster".to_owned()
        } else {
            format!(
                "in the namespace {}, the only one that was looked at: you may not list boltzapikeys in all",
                session.cluster.namespace
            )
        };
        let status = |object: &WatchedApiKey| object.status.clone().unwrap_or_default();
        let is_old =
            read.iter().map(status).any(|status| status.key_id.is_some() && status.value_sha256.is_none());
        let hint = match question {
            Question::Hashes(_) if is_old => {
                " Not every status has valueSHA256: the operator or its CRD is older."
            }
            Question::Hashes(_) => " Only current keys can be found by their value.",
            _ => "",
        };
        return Err(Failure::NotReady(format!(
            "no BoltzApiKey {place} has this key.{hint}\nnext: kubectl boltz keys -A"
        )));
    }
    let text = || {
        let line = |owner: &Owner| {
            let Owner { namespace, name, key_id, .. } = owner;
            if session.format == Format::Name {
                return format!("{namespace}/{name}\n");
            }
            let id = key_id.as_deref().map(|id| format!(" ({})", plain(id))).unwrap_or_default();
            format!(
                "{namespace}/{name}: {}{id}\nnext: kubectl boltz status {name} --namespace {namespace}  # if the key has leaked: \
                 kubectl boltz revoke-leaked {name} --namespace {namespace}\n",
                owner.text(session.now())
            )
        };
        owners.iter().map(line).collect()
    };
    session.format.write(&json!({"owners": owners}), text)?;
    Ok(0)
}
