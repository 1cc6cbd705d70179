//! The reasons of `Ready`.

use super::Texts;
use crate::plan::Reason;

/// The reasons of `Ready`. `Reconciling`, `Stalled` and `RevocationFailing` have many of them too.
pub(super) fn of_ready(reason: Reason) -> Texts {
    match reason {
        Reason::Issued => (
            "The Secret contains a valid key.",
            &["kubectl boltz status NAME --namespace NAMESPACE"],
            "Nothing.",
            "Do not edit the Secret: a key or field that is altered costs the object a new key.",
        ),
        Reason::Pending => (
            "A key is being issued. If `Ready` is Unknown, no operator has worked on the object yet.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz doctor --operator-namespace OPERATOR_NAMESPACE",
            ],
            "Wait. The message says for what. If it stays Unknown: does an operator run, and does it watch this namespace?",
            "Do not delete the object to create it again: it then begins from the start, at the end of the queue.",
        ),
        Reason::Rotating => (
            "The key is no longer valid and is being replaced.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "Wait.",
            "Do not set `boltz.bio/rotate-now`: a new key is already on its way.",
        ),
        Reason::SecretConflict => (
            "Another Secret has the name. The operator does not change it.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get secret SECRET --namespace NAMESPACE --show-labels",
                "kubectl get secret SECRET --namespace NAMESPACE -o jsonpath='{.metadata.ownerReferences}'",
            ],
            "Choose another `secret.name`, delete the Secret, or have it adopted: set `secret.adopt`, and give the Secret the annotation `boltz.bio/adoptable-by`. If the Secret has the operator's label, the operator continues immediately; otherwise it checks again after 60 s, then less often, at least every 5 min.",
            "Do not delete the Secret before you know who uses it. Do not give it the operator's label or annotation by hand: the operator does not believe them.",
        ),
        Reason::SecretWriteFailed => (
            "The API server rejects the Secret: quota, permissions, an admission webhook.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl describe resourcequotas --namespace NAMESPACE",
                "kubectl auth can-i patch secrets --namespace NAMESPACE --as system:serviceaccount:OPERATOR_NAMESPACE:boltz-operator",
            ],
            "Fix what the message names.",
            "Do not create the Secret yourself: it would be in the way (`SecretConflict`).",
        ),
        Reason::ObjectWriteFailed => (
            "The API server rejects a write of the object itself: its annotations, finalizer or status.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl auth can-i patch boltzapikeys --namespace NAMESPACE --as system:serviceaccount:OPERATOR_NAMESPACE:boltz-operator",
                "kubectl auth can-i patch boltzapikeys --subresource status --namespace NAMESPACE --as system:serviceaccount:OPERATOR_NAMESPACE:boltz-operator",
            ],
            "Fix what the message names.",
            "Do not remove the annotation `boltz.bio/attempts` or the finalizer: they are how the operator finds keys that have to be revoked.",
        ),
        Reason::RestartFailed => (
            "Only in `Reconciling` and `Stalled`: a workload cannot be restarted.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get deployments,statefulsets,daemonsets --namespace NAMESPACE",
                "kubectl auth can-i patch deployments --namespace NAMESPACE --as system:serviceaccount:OPERATOR_NAMESPACE:boltz-operator",
            ],
            "Fix what the message names, or remove the target.",
            "Do not set `boltz.bio/rotate-now` meanwhile: workloads that were not restarted would lose the key that they use.",
        ),
        Reason::InvalidSpec => (
            "A part of the spec cannot be used: for example a schedule or time zone that does not exist, or a name in `secret.data` that no Secret can have. If the CRD is older than the operator, it can be any field.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl explain boltzapikey.spec.rotation",
            ],
            "Fix the field that the message names. If the CRD is older, apply `crds/`.",
            "Do not delete the object to correct it: this revokes its keys. Edit it.",
        ),
        Reason::BoltzRejected => (
            "Boltz rejects the request. The message has Boltz's words and the time of the next try.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz logs NAME --namespace NAMESPACE --operator-namespace OPERATOR_NAMESPACE",
            ],
            "Fix what the message names: the spec, the workspace, the bill. The operator retries at growing intervals of at most 10 min (400 and 422: an hour). It retries immediately when the spec or the annotation `boltz.bio/retry` changes.",
            "Do not set `boltz.bio/retry` again and again: each try is a call, and the limit of calls is shared by all objects.",
        ),
        Reason::BoltzUnavailable => (
            "Calls to Boltz fail.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz doctor --operator-namespace OPERATOR_NAMESPACE",
                "kubectl boltz logs NAME --namespace NAMESPACE --operator-namespace OPERATOR_NAMESPACE",
            ],
            "Wait. Check the network if it lasts.",
            "Do not delete objects meanwhile: they stay until their keys are revoked. Do not restart the operator: it tries by itself.",
        ),
        Reason::BoltzUnauthorized => (
            "The operator's admin key cannot be used for this object. Boltz rejects it; or it is a test-mode key and the object asks for a live key; or it is not known to belong to the organization of the object's keys.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz doctor --operator-namespace OPERATOR_NAMESPACE",
                "kubectl describe secret boltz-admin-key --namespace OPERATOR_NAMESPACE",
            ],
            "Do what the message says. The operator uses a new admin key seconds after its file changes.",
            "Do not set `--accept-organization` only to end this: the operator then gives up the keys of the former organization, which stay valid there.",
        ),
        Reason::KeyDoubtful => (
            "Boltz's list does not show the key as active, and it is not certain that this is true. Only in `Reconciling` and `Stalled`; also in `Ready` if the check of the key itself gave no clear answer.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz explain BoltzOperatorListSuspect",
            ],
            "Look at Boltz's console. If somebody revoked many keys on purpose, confirm it: see the runbook BoltzOperatorListSuspect. To get a new key now, set `boltz.bio/rotate`. `boltz.bio/rotate-now` would revoke a key that may still work.",
            "Do not delete the Secret and do not set `boltz.bio/rotate-now`. Do not restart the operator: the hour after which it believes the list begins anew.",
        ),
        Reason::NamesAltered => (
            "Boltz changed the name of a new key. No keys are issued any more.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get configmap LEASE-account --namespace OPERATOR_NAMESPACE -o yaml",
            ],
            "Ask Boltz. Then restart the operator with `--retry-altered-names`.",
            "Do not use `--retry-altered-names` before Boltz has confirmed the mending: a key whose response is lost could not be found again.",
        ),
        Reason::ClockSkew => (
            "New keys had expired when they arrived, so they are revoked.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl debug node/NODE -it --image=busybox -- date -u",
                "date -u",
            ],
            "Set the clocks.",
            "Do not raise `expiresInDays` to get around it: everything that has to do with time stays wrong.",
        ),
        Reason::RateLimited => (
            "Boltz limits the request rate, and asks to wait for 5 s or longer.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz explain BoltzOperatorRateLimited",
            ],
            "Wait.",
            "Do not set `boltz.bio/retry` on many objects, and do not rotate many at once: each call makes the wait longer for all.",
        ),
        Reason::MintBudgetExceeded => (
            "Other objects are first: the limit of new keys (`--max-mints-per-minute`, `--max-mints-per-namespace`) is reached, or Boltz limits the rate of calls.",
            &["kubectl boltz explain NAME --namespace NAMESPACE", "kubectl boltz list --not-ready -A"],
            "Wait, or raise the limit. No event reports it.",
            "Do not rotate all objects at once: `kubectl boltz rotate --all --batch 5` does five at a time.",
        ),
        Reason::Expired => (
            "The key has expired and could not be replaced.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "The message says why.",
            "Do not restart workloads before the object is ready: they would load the expired key again.",
        ),
        Reason::Suspended => (
            "`spec.suspend` is true.",
            &[
                "kubectl boltz status NAME --namespace NAMESPACE",
                "kubectl get boltzapikey NAME --namespace NAMESPACE --show-managed-fields -o yaml",
            ],
            "Set it to false when you want a key.",
            "Do not forget it: when the key expires, nothing replaces it. Do not resume it before you know why somebody suspended it.",
        ),
        Reason::Paused => (
            "The annotation `boltz.bio/paused` is `true`: no key is issued or revoked, the Secret and the workloads stay as they are.",
            &[
                "kubectl boltz status NAME --namespace NAMESPACE",
                "kubectl get boltzapikey NAME --namespace NAMESPACE -o jsonpath='{.metadata.annotations}'",
            ],
            "Remove the annotation when the operator may go on.",
            "Do not leave it for long: an expired or leaked key is not replaced either.",
        ),
        Reason::Deleting => (
            "The keys are being revoked.",
            &["kubectl boltz explain NAME --namespace NAMESPACE"],
            "Wait. If Boltz is gone for good, set the annotation `boltz.bio/deletion-policy=Retain`.",
            "Do not remove the finalizer: the keys would stay valid, and become orphans.",
        ),
        Reason::PreviousKeyStillUsed => (
            "Ready is True, but a previous key is still in use after its overlap.",
            &[
                "kubectl boltz users NAME --namespace NAMESPACE",
                "kubectl boltz status NAME --namespace NAMESPACE",
            ],
            "Find the workload that has not loaded the new key. Restart it, or add it to `rolloutRestartTargets`. If a restart has not \
             ended, `kubectl boltz status NAME` says why: a paused workload has to be resumed, for example.",
            "Do not revoke the previous key in Boltz's console before the workload has the new one: it would fail at once.",
        ),
        Reason::PolicyDenied => (
            "An admission policy denies a write, or the object's account does not allow what it asks for.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get boltzaccounts",
                "kubectl get validatingadmissionpolicies",
                "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations",
            ],
            "Change the policy or the object. To use another account, create a new object: an object cannot change its account.",
            "Do not switch the policy off for everybody: exempt the operator's ServiceAccount, or what it writes.",
        ),
    }
}
