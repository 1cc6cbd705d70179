//! The reasons that only `Reconciling` and `RevocationFailing` have.

use super::Texts;
use crate::protocol::record::IssueReason;

/// Why a key is being issued: the reason of `Reconciling` meanwhile.
pub(super) fn of_issue(reason: IssueReason) -> Texts {
    match reason {
        IssueReason::Initial => (
            "The object has no key, and gets its first one.",
            &["kubectl boltz explain NAME --namespace NAMESPACE"],
            "Wait. If it lasts, the message of `Ready` says for what it waits.",
            "Do not create the Secret yourself: it would be in the way (`SecretConflict`).",
        ),
        IssueReason::SecretMissing => (
            "The Secret does not exist any more, so a new key is issued. The old one stays valid for the overlap.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get events --namespace NAMESPACE --field-selector involvedObject.name=SECRET",
            ],
            "Wait. Find out who deleted the Secret: a cleanup job, or a GitOps tool that prunes.",
            "Do not create the Secret yourself: it would be in the way (`SecretConflict`).",
        ),
        IssueReason::SecretAltered => (
            "The key in the Secret, or a field of `secret.data`, was changed by somebody else, so a new key is issued.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get secret SECRET --namespace NAMESPACE --show-managed-fields -o jsonpath='{range .metadata.managedFields[*]}{.manager} {.time}{\"\\n\"}{end}'",
            ],
            "Wait. Find out who writes the Secret. If it goes on, see the runbook BoltzApiKeyMintLoop.",
            "Do not write a key into the Secret by hand: the operator replaces what it did not write.",
        ),
        IssueReason::KeyInactive => (
            "Boltz reports that the key is inactive, or does not list it, so a new one is issued.",
            &["kubectl boltz explain NAME --namespace NAMESPACE", "kubectl boltz keys --namespace NAMESPACE"],
            "Wait. If nobody revoked the key in Boltz's console on purpose, ask who did.",
            "Do not revoke keys in Boltz's console to rotate them: there is no overlap then. Set `boltz.bio/rotate`.",
        ),
        IssueReason::ParametersChanged => (
            "Workspace, mode, addresses or days in the spec have changed, so a new key is issued.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "Wait. The old key stays valid for the overlap.",
            "Do not change the spec back to keep the old key: this issues one more.",
        ),
        IssueReason::RotateNow => (
            "The annotation `boltz.bio/rotate-now` has a new value: a new key is issued, and all older ones are revoked as soon as it is stored.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "Wait, and restart the workloads that have not loaded the new key.",
            "Do not set it again: a new value begins one more rotation.",
        ),
        IssueReason::Renewal => (
            "The renewal time has come: a new key is issued before the old one expires.",
            &["kubectl boltz explain NAME --namespace NAMESPACE"],
            "Wait. If it lasts, the message says why.",
            "Do not delete the old key in Boltz's console: workloads use it until they have the new one.",
        ),
        IssueReason::RotateRequested => (
            "The annotation `boltz.bio/rotate` has a new value: a new key is issued. The old one stays valid for the overlap.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "Wait. With four previous keys, or outside of `rotation.window`, it begins later: the message says when.",
            "Do not set it again: a new value begins one more rotation.",
        ),
        IssueReason::Interval => (
            "`rotation.interval` has passed: a new key is issued. The old one stays valid for the overlap.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl boltz users NAME --namespace NAMESPACE",
            ],
            "Wait. With four previous keys, or outside of `rotation.window`, it begins later: the message says when.",
            "Do not lower the interval to hurry: `kubectl boltz rotate NAME` asks for a rotation now.",
        ),
    }
}

pub(super) const NOTHING_OVERDUE: Texts = (
    "Only in `RevocationFailing` when it is False: revocations failed, and no key is overdue any more.",
    &["kubectl boltz explain NAME --namespace NAMESPACE"],
    "Nothing.",
    "Do not take it for an alarm: it says that one is over.",
);
