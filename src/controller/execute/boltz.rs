//! Calls to Boltz.

use super::Execution;
use crate::{
    api::{BoltzApiKeySpec, Mode},
    boltz::{CreateKeyRequest, KeyMode, Revocation, accounts::ServedAccount, live_keys::WantedKey},
    controller::{Context, observe::Shown},
    kubernetes::client::SecretWithData,
    plan::{
        AccountPolicy, Answer, BoltzErrorKind, Effect, KeyCheck, MintedKey, ObjectFacts, Requested,
        RevokeReason, Unusable, outlasts_limit,
    },
    protocol::{
        marker::{AttemptId, Marker, ObjectMark},
        record::value_sha256,
    },
};
use secrecy::{ExposeSecret, SecretString};

/// Revokes a key. The only place that does so. Callers must have decided on live facts (rule 8).
pub async fn revoke_key(
    context: &Context,
    served: &ServedAccount,
    key_id: &str,
    reason: RevokeReason,
) -> Answer {
    let ServedAccount { account, inventory, .. } = served;
    tracing::debug!(key_id, reason = reason.as_str(), "revoking a key");
    let call = match account.short_call(context.clock).await {
        Ok(call) => call,
        Err(block) => return Answer::Postponed(block),
    };
    match account.client().revoke_key(key_id).await {
        Ok(revocation) => {
            account.record_success(&call, context.clock.now().monotonic);
            let answer = match revocation {
                Revocation::Revoked(_) => Answer::Done,
                Revocation::AlreadyRevoked => Answer::AlreadyRevoked,
                Revocation::NotFound => Answer::KeyNotFound,
            };
            if answer == Answer::KeyNotFound {
                inventory.mark_perhaps_revoked(key_id);
            } else {
                served.key_revoked(key_id, context.clock.now().monotonic);
                account.set_active_keys(inventory.mark_revoked(key_id));
                // They list the key too.
                for other in context.accounts.of_same_organization(served) {
                    other.inventory.mark_revoked(key_id);
                }
            }
            answer
        }
        Err(error) => {
            account.record_failure(&call, &error, context.clock.now().monotonic);
            let failure = error.failure();
            if failure.may_have_revoked() {
                inventory.mark_perhaps_revoked(key_id);
            }
            Answer::BoltzFailed(failure)
        }
    }
}

impl Execution<'_> {
    /// R5, D1: revokes a key of the object's account.
    pub(super) async fn revoke(&mut self, key_id: &str, reason: RevokeReason) -> Answer {
        match self.context.account_of(self.facts) {
            Some(served) => revoke_key(self.context, &served, key_id, reason).await,
            None => Answer::Stale,
        }
    }

    /// C2, R2: sends the POST of the attempt.
    pub(super) async fn mint(&mut self, attempt: &AttemptId) -> Answer {
        let now = self.context.clock.now().monotonic;
        let Some(served) = self.context.account_of(self.facts) else { return Answer::Stale };
        let ServedAccount { account, inventory, .. } = served.as_ref();
        if !self.has_room(&served, attempt) {
            return Answer::Stale;
        }
        let Some(call) = account.create_call(&self.facts.object.uid, now) else {
            served.live_keys.end_request(attempt);
            return Answer::Stale;
        };
        let Some((known, intent)) = self.state.memory.mark_posting(attempt) else {
            served.live_keys.end_request(attempt);
            return Answer::Stale;
        };
        let left = known.written.plus(self.context.settings.window()).since(now);
        let timeout = self.context.request_timeout.min(left);
        let object = ObjectMark::from_uid(&self.facts.object.uid);
        let marker = inventory.names().marker(object, attempt.clone());
        let request = create_request(&self.facts.object, &intent.spec, &marker, &self.facts.account.policy);
        // Passes that end later may show the new key.
        let passes = inventory.snapshots();
        match account.client().create_key(&request, timeout).await {
            Ok(created) => {
                account.record_success(&call, self.context.clock.now().monotonic);
                let details = created.details;
                served.live_keys.set_created(attempt, &details.id);
                let requested = Requested {
                    marker: &marker,
                    workspace: request.workspace_id.as_deref(),
                    livemode: request.mode == KeyMode::Live,
                };
                let received_at = self.context.clock.now().wall;
                let key = MintedKey {
                    id: details.id,
                    prefix: details.key_prefix,
                    value_sha256: value_sha256(created.key.expose_secret().as_bytes()),
                    received_at,
                    created_at: details.created_at.unwrap_or(received_at),
                    expires_at: details.expires_at,
                    // What is missing proves nothing.
                    livemode: details.livemode.unwrap_or(requested.livemode),
                    workspace_id: details.workspace_id,
                    organization: self.facts.account.organization.clone(),
                };
                let answer = match inventory.is_known(&key.id, &passes) {
                    true => Answer::MintedUnusable(Box::new(key), Unusable::known(&details.name)),
                    false => {
                        let (name, is_active) = (&details.name, details.is_active);
                        Answer::key_created(requested, name, is_active, key, received_at)
                    }
                };
                match &answer {
                    Answer::Minted(_) => drop(self.state.values.insert(attempt.clone(), created.key)),
                    Answer::MintedUnusable(_, Unusable::OtherName(name)) => {
                        account.mark_names_altered(&request.name, name);
                    }
                    _ => {}
                }
                answer
            }
            Err(error) => {
                account.record_failure(&call, &error, self.context.clock.now().monotonic);
                if error.effect() == Effect::None {
                    served.live_keys.end_request(attempt);
                }
                Answer::BoltzFailed(error.failure())
            }
        }
    }

    /// Whether the namespace may have one more live key. Other objects may have requested one since the decision.
    fn has_room(&self, served: &ServedAccount, attempt: &AttemptId) -> bool {
        let Some(keys) = self.facts.account.policy.live_keys else { return true };
        let intent = self.facts.memory.attempts.get(attempt).and_then(|known| known.intent.as_ref());
        let most = Some(keys.most).filter(|_| !intent.is_some_and(|intent| outlasts_limit(intent.reason)));
        let (object, now) = (&self.facts.object, self.context.clock.now());
        let wanted = WantedKey {
            namespace: &object.namespace,
            object: ObjectMark::from_uid(&object.uid),
            attempt,
            settled_at: now.monotonic.plus(self.context.settings.settle_time),
        };
        served.live_keys.request(&wanted, most, &served.inventory.snapshots(), now)
    }

    /// Reads the Secret and asks Boltz with its value. The only use of a stored value (rule 12).
    pub(super) async fn check_key(&mut self, secret: &str, key_id: &str) -> (Answer, Shown) {
        let read = match self.context.kubernetes.get_secret(&self.facts.object.namespace, secret).await {
            Ok(read) => read.and_then(SecretWithData::into_parts),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let value = read.and_then(|(metadata, mut data)| {
            let record = metadata.record.filter(|record| record.key_id == key_id)?;
            let value = data.remove(&record.secret_key)?;
            let is_intact = value_sha256(&value.0) == record.value_sha256;
            // Any value gets an answer, also one that is no text.
            is_intact.then(|| SecretString::from(String::from_utf8_lossy(&value.0).into_owned()))
        });
        let Some(value) = value else { return (Answer::Stale, Shown::Nothing) };
        let Some(served) = self.context.account_of(self.facts) else {
            return (Answer::Stale, Shown::Nothing);
        };
        let account = &served.account;
        let call = match account.short_call(self.context.clock).await {
            Ok(call) => call,
            Err(block) => return (Answer::Postponed(block), Shown::Nothing),
        };
        let answer = account.client().auth_me_with(&value).await;
        let now = self.context.clock.now().monotonic;
        match &answer {
            // A 401 or 403 is about this key, not about the admin key.
            Err(error) if error.kind() != BoltzErrorKind::Unauthorized => {
                account.record_failure(&call, error, now)
            }
            _ => account.record_success(&call, now),
        }
        let check = match answer {
            Ok(Some(me)) if me.api_key_id.as_deref() == Some(key_id) => KeyCheck::Valid,
            Ok(Some(me)) if me.api_key_id.is_some() => KeyCheck::OtherKey,
            Ok(Some(_)) => KeyCheck::Unclear("Boltz responded without the id of the key".to_owned()),
            Ok(None) => KeyCheck::Unclear("Boltz responded with 404".to_owned()),
            Err(error) if error.is_invalid_key() => KeyCheck::Invalid,
            Err(error) => KeyCheck::Unclear(error.to_string()),
        };
        (Answer::Checked(check), Shown::Nothing)
    }
}

fn create_request(
    object: &ObjectFacts,
    spec: &BoltzApiKeySpec,
    marker: &Marker,
    policy: &AccountPolicy,
) -> CreateKeyRequest {
    let display_name = spec.display_name.as_deref().filter(|name| !name.is_empty());
    CreateKeyRequest {
        name: match display_name {
            Some(display_name) => marker.name_with(display_name),
            None => marker.name_of(&object.namespace, &object.name),
        },
        allowed_ips: spec.allowed_ips.clone(),
        expires_in_days: spec.expires_in_days,
        mode: match spec.mode {
            Mode::Live => KeyMode::Live,
            Mode::Test => KeyMode::Test,
        },
        workspace_id: policy.workspace_of(spec).map(str::to_owned),
    }
}
