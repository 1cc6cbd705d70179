//! All reads: collects the facts of a decision, from caches or from the API server.

use super::{Context, ObjectState, choose_account::choose_account};
use crate::{
    api::{
        BoltzApiKeyStatus, CachedApiKey, DeletionPolicy, WatchedApiKey,
        annotations::{
            DELETION_POLICY_ANNOTATION, FINALIZER, LEDGER_ANNOTATION, PAUSED_ANNOTATION, RETRY_ANNOTATION,
            ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION, ROTATE_OUTSIDE_WINDOW_ANNOTATION,
        },
    },
    boltz::{accounts::ServedAccount, snapshot::Snapshot},
    kubernetes::secret_metadata::{Ownership, SecretMetadata, Value},
    kubernetes::{client::SecretWithData, error::KubernetesError},
    observability::watches::Resource,
    plan::{self, Facts, Found, ObjectFacts, SecretFacts, Step},
    protocol::{ledger::Ledger, marker::ObjectMark},
};
use kube::ResourceExt;
use std::sync::Arc;

/// What a call showed of the cluster. It becomes a fact.
pub enum Shown {
    /// Nothing new.
    Nothing,
    /// The object and its Secrets, read from the API server.
    Everything(Box<Facts>),
    /// The object.
    Object(Box<WatchedApiKey>),
    /// The object, and the status as it was written: the API server may have normalized it.
    Reported(Box<WatchedApiKey>, Box<BoltzApiKeyStatus>),
    /// The Secret with the name in the spec, and the hash of its value.
    Secret(Box<SecretMetadata>, Option<String>),
    /// The Secret with this name does not exist any more.
    NoSecret(String),
    /// The dry run passed.
    Preflight,
}

/// The facts from the caches; [`refresh`] adds the others. Values that were not read yet are marked as unread.
pub fn from_caches(context: &Context, state: &mut ObjectState, cached: &Arc<CachedApiKey>) -> Facts {
    let latest = state.take_cached(cached, context.relists(&cached.namespace().unwrap_or_default()));
    from_latest(context, object_facts(&latest.open()))
}

/// The same for an object that the caches may not show any more.
pub(super) fn from_latest(context: &Context, object: ObjectFacts) -> Facts {
    let secrets = secret_names(context, &object)
        .into_iter()
        .filter_map(|name| Some((name.clone(), context.secrets.get(&object.namespace, &name)?)))
        .collect();
    assemble(object, secrets, None, false)
}

/// The same from the API server. `None`: the object was deleted, or another object has its name.
pub async fn live(
    context: &Context,
    state: &mut ObjectState,
    object: &ObjectFacts,
) -> Result<Option<Facts>, KubernetesError> {
    let read = context.kubernetes.get_object(&object.namespace, &object.name).await?;
    let Some(read) = read.filter(|read| read.metadata.uid.as_deref() == Some(object.uid.as_str())) else {
        return Ok(None);
    };
    let object = object_facts(&read);
    state.take_returned(read, context.relists(&object.namespace));
    let (mut secrets, mut adoption) = (Vec::new(), None);
    for name in secret_names(context, &object) {
        context.activity.goes_on(&object.uid);
        match read_secret(context, &object.namespace, &name).await {
            Ok(Some((metadata, hash))) if name == object.secret_name() && object.wants_to_adopt() => {
                adoption = adoptable(context, &object, &metadata, hash.clone()).await?;
                secrets.push((name, (metadata, Value::Read(hash))));
            }
            Ok(Some((metadata, hash))) => secrets.push((name, (metadata, Value::Read(hash)))),
            Ok(None) => {}
            // A deletion revokes the keys that the ledger, the status and Boltz's list lead to. It does not need the
            // Secret, and the rights to read it may have gone with the namespace.
            Err(_) if object.deleting && is_dispensable(context, &object, &name) => {
                if let Some((metadata, _)) = context.secrets.get(&object.namespace, &name) {
                    secrets.push((name, (metadata, Value::Read(None))));
                }
            }
            // Without the right to read the Secret, this operator cannot have written it since. The last version that it
            // saw counts, so that keys whose end has come are revoked all the same.
            Err(error) => match context.secrets.get(&object.namespace, &name) {
                Some((metadata, Value::Read(hash)))
                    if error.is_forbidden() && !state.memory.has_calls_in_doubt() =>
                {
                    secrets.push((name, (metadata, Value::Read(hash))));
                }
                _ => return Err(error),
            },
        }
    }
    Ok(Some(assemble(object, secrets, adoption, true)))
}

/// Whether the object may adopt the Secret of its name. `None`: the Secret is its own.
async fn adoptable(
    context: &Context,
    object: &ObjectFacts,
    metadata: &SecretMetadata,
    hash: Option<String>,
) -> Result<Option<Found>, KubernetesError> {
    if metadata.ownership(&object.uid) == Ownership::Ours {
        return Ok(None);
    }
    if let Err(why) = metadata.consents_to(object) {
        return Ok(Some(Found::Foreign(why)));
    }
    let (mut living, mut is_owner_gone) = (Vec::new(), false);
    if let Some(record) = &metadata.record {
        let owner = ObjectMark::from_uid(&record.owner_uid);
        let is_owner =
            |object: &WatchedApiKey| ObjectMark::from_uid(&object.uid().unwrap_or_default()) == owner;
        living = match context.kubernetes.list_objects(None, is_owner).await {
            Ok(living) => {
                is_owner_gone = living.is_empty();
                living
            }
            // Without the right to list all, nothing proves that the owner is gone. It may still be seen to live.
            Err(error) if error.is_forbidden() => {
                context.kubernetes.list_objects(Some(&object.namespace), is_owner).await?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(Some(match living.first() {
        Some(owner) => Found::Foreign(format!(
            "Secret {} belongs to the BoltzApiKey {}, which exists, so it cannot be adopted. Delete that BoltzApiKey with \
             deletionPolicy Retain first, or set spec.secret.name to another name.",
            metadata.name,
            owner.name_any()
        )),
        None => Found::Adoptable(Box::new(metadata.as_adoptable(&object.uid, hash, is_owner_gone))),
    }))
}

/// Whether the deletion of the object can do without the Secret: it goes with the object, or it is known to stay without.
fn is_dispensable(context: &Context, object: &ObjectFacts, name: &str) -> bool {
    let stays = || match context.secrets.get(&object.namespace, name) {
        Some((metadata, _)) => metadata.owner_references.iter().all(|owner| owner.uid != object.uid),
        None => context.watches.has_synced(&object.namespace, Resource::Secrets),
    };
    object.owns_its_secret() || stays()
}

/// After a step whose answer was applied: what the call showed of the cluster becomes a fact, and caches learn it.
pub fn absorb(context: &Context, state: &mut ObjectState, facts: &mut Facts, step: &Step, shown: Shown) {
    let namespace = facts.object.namespace.clone();
    let shown = match shown {
        Shown::Nothing => plan::Shown::Nothing,
        Shown::Everything(read) => plan::Shown::Everything(read),
        Shown::Preflight => plan::Shown::Preflight,
        Shown::Object(object) => {
            let shown = object_facts(&object);
            state.take_returned(*object, context.relists(&namespace));
            plan::Shown::Object(Box::new(shown))
        }
        Shown::Reported(object, status) => {
            let mut shown = object_facts(&object);
            state.memory.lacks_value_sha256 |=
                status.value_sha256.is_some() && shown.status.value_sha256.is_none();
            state.has_other_status = shown.status != *status;
            shown.status = *status;
            state.take_returned(*object, context.relists(&namespace));
            plan::Shown::Object(Box::new(shown))
        }
        Shown::Secret(metadata, value_sha256) => {
            let value = Value::Read(value_sha256);
            let own = metadata.as_own(&facts.object.uid, value.clone());
            context.secrets.put(*metadata, value);
            plan::Shown::Secret(Box::new(own))
        }
        Shown::NoSecret(name) => {
            context.secrets.remove(&namespace, &name, None);
            plan::Shown::NoSecret(name)
        }
    };
    facts.absorb(step, state.memory.must_read, shown);
}

/// Updates what can change independently of the object: Boltz's list, the account, process memory.
pub fn refresh(context: &Context, state: &mut ObjectState, facts: &mut Facts) {
    let now = context.clock.now();
    facts.memory = state.memory.clone();
    let ids: Vec<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
    let mark = ObjectMark::from_uid(&facts.object.uid);
    let served = choose_account(context, facts, &mark, now);
    let mut snapshots = Vec::new();
    if let Some(ServedAccount { inventory, .. }) = served.as_deref() {
        inventory.set_named(&mark, &ids);
        snapshots = inventory.snapshots();
    }
    let organization = facts.account.organization.as_ref();
    // The list of another organization says nothing about keys of this one.
    snapshots.retain(|snapshot| snapshot.is_of(organization));
    let proof_of = |id: &str| served.as_ref()?.account.client().adoption_proof(&facts.object.uid, id);
    let is_proof = |(id, proof): &(&str, &str)| proof_of(id).as_deref() == Some(*proof);
    let adopted: Vec<String> = facts.adopted_keys().filter(is_proof).map(|(id, _)| id.to_owned()).collect();
    let view = |snapshot: &Arc<Snapshot>| snapshot.view(&mark, ids.iter().map(String::as_str), &adopted);
    facts.passes = snapshots.iter().map(view).collect();
    state.memory.learn(facts, &context.settings, now);
    facts.memory = state.memory.clone();
    if let SecretFacts::Adoptable(found) = &mut facts.secret
        && let Some(record) = &found.record
    {
        let owner = ObjectMark::from_uid(&record.owner_uid);
        let listed = snapshots.first().and_then(|snapshot| snapshot.key_of(&owner, &record.key_id));
        found.listed = listed.filter(|key| key.is_active_at(now.wall)).cloned();
        let client = served.as_ref().map(|served| served.account.client());
        found.proof = client.and_then(|client| client.adoption_proof(&facts.object.uid, &record.key_id));
    }
}

/// Converts the object to facts. Invalid annotations are ignored.
pub fn object_facts(object: &WatchedApiKey) -> ObjectFacts {
    let annotation = |name: &str| object.annotations().get(name).cloned();
    let rotate = annotation(ROTATE_ANNOTATION);
    ObjectFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation,
        deleting: object.metadata.deletion_timestamp.is_some(),
        has_finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        finalizers: object.finalizers().to_vec(),
        spec: object.spec.clone(),
        ledger: Ledger::parse(object.annotations().get(LEDGER_ANNOTATION).map(String::as_str)),
        rotates_outside_window: rotate.is_some() && annotation(ROTATE_OUTSIDE_WINDOW_ANNOTATION) == rotate,
        rotate,
        retry: annotation(RETRY_ANNOTATION),
        rotate_now: annotation(ROTATE_NOW_ANNOTATION),
        is_paused: annotation(PAUSED_ANNOTATION).as_deref() == Some("true"),
        deletion_policy: match annotation(DELETION_POLICY_ANNOTATION).as_deref() {
            Some("Retain") => Some(DeletionPolicy::Retain),
            Some("Revoke") => Some(DeletionPolicy::Revoke),
            _ => None,
        },
        retain_is_forbidden: false,
        status: object.status.clone().unwrap_or_default(),
    }
}

/// The name in the spec first, then the names of the object's other Secrets.
fn secret_names(context: &Context, object: &ObjectFacts) -> Vec<String> {
    let wanted = object.secret_name();
    let mut names = vec![wanted.to_owned()];
    let others = context.secrets.names_of(&object.uid, &object.namespace);
    names.extend(others.into_iter().filter(|name| name != wanted));
    // A Secret without our label is not watched; the status still has its name.
    if let Some(reported) = object.status.secret_name.as_ref().filter(|name| !names.contains(name)) {
        names.push(reported.clone());
    }
    names
}

type ReadSecret = (SecretMetadata, Option<String>);

/// Reads a Secret and replaces its value by the hash.
pub async fn read_secret(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<ReadSecret>, KubernetesError> {
    let Some((metadata, data)) =
        context.kubernetes.get_secret(namespace, name).await?.and_then(SecretWithData::into_parts)
    else {
        context.secrets.remove(namespace, name, None);
        return Ok(None);
    };
    let hash = metadata.hash_of_key(&data);
    if metadata.owner_label.is_some() {
        context.secrets.put(metadata.clone(), Value::Read(hash.clone()));
    }
    Ok(Some((metadata, hash)))
}

/// `adoption`: whether the Secret of the wanted name may be adopted, if it is not the object's.
fn assemble(
    object: ObjectFacts,
    secrets: Vec<(String, (SecretMetadata, Value))>,
    mut adoption: Option<Found>,
    live: bool,
) -> Facts {
    let found = secrets.into_iter().map(|(name, (metadata, value))| {
        let found = match metadata.ownership(&object.uid) {
            Ownership::Ours => Found::Ours(Box::new(metadata.as_own(&object.uid, value))),
            Ownership::Foreign(whose) if name == object.secret_name() => {
                adoption.take().unwrap_or(Found::Foreign(whose))
            }
            Ownership::Foreign(whose) => Found::Foreign(whose),
        };
        (name, found)
    });
    let found = found.collect();
    Facts::assemble(object, found, live)
}
