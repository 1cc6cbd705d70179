//! The reasons of events and of revocations, as far as conditions do not have them too.

use super::Texts;

const LOOK: &[&str] = &["kubectl boltz events NAME --namespace NAMESPACE"];
const LOOK_AT_KEYS: &[&str] =
    &["kubectl boltz status NAME --namespace NAMESPACE", "kubectl boltz events NAME --namespace NAMESPACE"];
const LOOK_AT_PODS: &[&str] =
    &["kubectl boltz users NAME --namespace NAMESPACE", "kubectl boltz status NAME --namespace NAMESPACE"];
const LOOK_AT_STRAYS: &[&str] = &[
    "kubectl boltz events NAME --namespace NAMESPACE",
    "kubectl boltz logs NAME --namespace NAMESPACE | grep -E 'NotStored|Stray|Store'",
];

/// Names and texts.
pub(super) const EVENTS: [(&str, Texts); 16] = [
    (
        "Rotated",
        (
            "A key replaced another one. The event names the reason, and when the overlap of the old key ends.",
            LOOK_AT_PODS,
            "Restart workloads that read the key from an environment variable, or list them in `rolloutRestartTargets`.",
            "Do not wait for the end of the overlap: workloads with the old key fail then.",
        ),
    ),
    (
        "Adopted",
        (
            "The object took over a Secret that existed (`secret.adopt`): a new key is in it. The event says what becomes of the key before.",
            LOOK_AT_PODS,
            "Restart workloads that read the key from an environment variable. If the event says so, revoke the key before yourself.",
            "Do not add the annotation `boltz.bio/adoptable-by` again: it was for this once.",
        ),
    ),
    (
        "Revoked",
        (
            "A key was revoked. The event names the key and the reason. As a Warning, a workload may have had it.",
            LOOK_AT_PODS,
            "If a workload fails with 401 since then, restart it, so that it loads the current key.",
            "Do not look for the old key: Boltz does not make a revoked key valid again.",
        ),
    ),
    (
        "Restarted",
        (
            "A workload of `rolloutRestartTargets` was restarted for a new key.",
            LOOK_AT_PODS,
            "Nothing. `status.restarts` says how far its rollout is.",
            "Do not restart it once more: its new pods have the new key.",
        ),
    ),
    (
        "RolledOut",
        (
            "All pods of a restarted workload have the current key. As the reason of a revocation: that is so for all workloads, and \
             the old key was not used since, so its overlap ended early (`UntilRolledOut`).",
            LOOK_AT_PODS,
            "Nothing.",
            "Do not use the old key elsewhere: it is revoked.",
        ),
    ),
    (
        "NotRolledOut",
        (
            "The rollout of a restarted workload does not end by itself: it is paused, failed, or was changed back. Its pods may still \
             run with the old key, which is revoked when the overlap ends.",
            LOOK_AT_PODS,
            "The event says why. See the runbook BoltzApiKeyRestartUnfinished.",
            "Do not wait for the end of the overlap: pods with the old key fail then.",
        ),
    ),
    (
        "NotReady",
        (
            "`Ready` became False: workloads have no valid key, or are about to have none. The event has the reason and the message.",
            LOOK_AT_KEYS,
            "See what the reason in the event means: `kubectl boltz explain REASON`.",
            "Do not delete the object to begin anew: this revokes its keys.",
        ),
    ),
    (
        "KeysLeftBehind",
        (
            "The object moved to another Boltz organization. The keys that the event lists stay valid in the former one, because the \
             operator's admin key cannot revoke them.",
            LOOK,
            "Revoke them in the console of the former organization. Write the ids down: events are kept for an hour.",
            "Do not expect `kubectl boltz orphans` to show them: they are not in the list of the present organization.",
        ),
    ),
    (
        "KeysRetained",
        (
            "The object was deleted with `Retain`, or without its finalizer. The keys that the event lists stay valid, and nobody rotates \
             or revokes them.",
            &["kubectl boltz events --namespace NAMESPACE", "kubectl boltz orphans"],
            "If nobody needs them, revoke them in Boltz's console, or as orphans once their Secret is gone.",
            "Do not delete the Secret while a workload uses it.",
        ),
    ),
    (
        "OverlapOver",
        (
            "A previous key was revoked because its overlap ended.",
            LOOK_AT_PODS,
            "Nothing. Workloads that fail with 401 since then have the old key: restart them.",
            "Do not shorten `rotation.overlap` below the time that your workloads need to load a new key.",
        ),
    ),
    (
        "OverlapCut",
        (
            "The overlap of a previous key was cut short, because four previous keys were active, the maximum.",
            LOOK_AT_PODS,
            "Find out why keys are replaced so often: `kubectl boltz events`. Make `rotation.overlap` shorter than the time between \
             rotations.",
            "Do not ask for rotations in quick succession: each one needs a place.",
        ),
    ),
    (
        "Deleted",
        (
            "A key was revoked because its object was deleted.",
            LOOK,
            "Nothing. To keep the keys of an object that is deleted: `kubectl boltz release`.",
            "Do not delete and create an object to rotate its key: there is no overlap.",
        ),
    ),
    (
        "Stray",
        (
            "A key was revoked because its value was lost before it was in the Secret: a process ended, or a response was lost. No \
             workload ever had it.",
            LOOK_AT_STRAYS,
            "Nothing, if it is rare. If it goes on, see the runbook BoltzApiKeyMintLoop.",
            "Do not look for the value: nobody has it.",
        ),
    ),
    (
        "NotStored",
        (
            "A new key was revoked because it could not be stored in the Secret. No workload ever had it.",
            LOOK_AT_STRAYS,
            "`Ready` or `Reconciling` says why the Secret cannot be written: see `SecretWriteFailed`, `PolicyDenied`, `SecretConflict`.",
            "Do not create the Secret yourself: it would be in the way.",
        ),
    ),
    (
        "Orphan",
        (
            "A key was revoked because no BoltzApiKey and no Secret referred to it: by `config.orphanPolicy=revoke`, or because somebody \
             asked for it.",
            &["kubectl boltz orphans", "kubectl boltz explain BoltzOperatorOrphanedKeys"],
            "Nothing. If a workload fails since then, it had a copy of the key: give it a Secret of a BoltzApiKey.",
            "Do not use `config.orphanPolicy=revoke` where two clusters have the same `clusterName`.",
        ),
    ),
    (
        "RevocationFailing",
        (
            "A key that should be revoked is still valid, because its revocation fails. Its message names the key, and quotes Boltz.",
            LOOK_AT_KEYS,
            "See the runbook BoltzApiKeyRevocationOverdue: `kubectl boltz explain BoltzApiKeyRevocationOverdue`. If the key has leaked, \
             revoke it in Boltz's console now.",
            "Do not remove finalizers: the key lives on then, and nothing says so.",
        ),
    ),
];
