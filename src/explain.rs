//! What reasons of conditions mean, how to look, what to do about each and what not to do. `kubectl boltz explain` shows these
//! words; `docs/runbooks/reasons.md` is made of them by `make reasons`, and `docs/reference/api.md` has the meanings.

use crate::{
    plan::{NO_KEY_OVERDUE, Reason},
    protocol::record::IssueReason,
};
use strum::VariantArray;

/// One entry. The texts are Markdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason, as conditions have it.
    pub reason: &'static str,
    /// Markdown, complete sentences: what has happened, without advice.
    pub meaning: &'static str,
    /// How to look: commands. `docs/runbooks/README.md` says what the words in capitals are.
    pub look: &'static [&'static str],
    /// Markdown, complete sentences: what a person can do about it, or that nothing has to be done.
    pub action: &'static str,
    /// What not to do.
    pub avoid: &'static str,
}

/// Explains the reason of a condition. `None`: no condition has it.
pub fn explain(reason: &str) -> Option<Explanation> {
    explanations().find(|known| known.reason.eq_ignore_ascii_case(reason))
}

/// All of them: those of `Ready`, then those that only other conditions have.
pub fn explanations() -> impl Iterator<Item = Explanation> {
    let of_ready = Reason::VARIANTS.iter().map(|reason| (reason.as_str(), of_ready(*reason)));
    of_ready.chain(explanations_of_progress()).map(|(reason, (meaning, look, action, avoid))| Explanation {
        reason,
        meaning,
        look,
        action,
        avoid,
    })
}

fn explanations_of_progress() -> impl Iterator<Item = (&'static str, Texts)> {
    let of_issues = IssueReason::VARIANTS.iter().map(|reason| (reason.as_str(), of_issue(*reason)));
    of_issues.chain([(NO_KEY_OVERDUE, NOTHING_OVERDUE)])
}

/// Meaning, look, action and avoid.
type Texts = (&'static str, &'static [&'static str], &'static str, &'static str);

/// The reasons of `Ready`. `Reconciling`, `Stalled` and `RevocationFailing` have many of them too.
fn of_ready(reason: Reason) -> Texts {
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
            "Choose another `secret.name`, or delete the Secret. If the Secret has the operator's label, the operator continues immediately; otherwise it checks again after 60 s, then less often, at least every 5 min.",
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
            "The spec is invalid: it names a schedule or time zone that does not exist. If the CRD is older than the operator, it can be any other field.",
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
            "Find the workload that has not loaded the new key. Restart it, or add it to `rolloutRestartTargets`.",
            "Do not revoke the previous key in Boltz's console before the workload has the new one: it would fail at once.",
        ),
        Reason::PolicyDenied => (
            "An admission policy denies a write.",
            &[
                "kubectl boltz explain NAME --namespace NAMESPACE",
                "kubectl get validatingadmissionpolicies",
                "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations",
            ],
            "Change the policy or the object.",
            "Do not switch the policy off for everybody: exempt the operator's ServiceAccount, or what it writes.",
        ),
    }
}

/// Why a key is being issued: the reason of `Reconciling` meanwhile.
fn of_issue(reason: IssueReason) -> Texts {
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

const NOTHING_OVERDUE: Texts = (
    "Only in `RevocationFailing` when it is False: revocations failed, and no key is overdue any more.",
    &["kubectl boltz explain NAME --namespace NAMESPACE"],
    "Nothing.",
    "Do not take it for an alarm: it says that one is over.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// The page. Headings are reasons, so that links find them.
    fn page() -> String {
        let mut page = "\
# Reasons

One section for each reason that a condition of a BoltzApiKey can have: what it means, how to look, what to do, what not to do.
`kubectl boltz explain REASON` shows the same. [The words in capitals](README.md) stand for names of yours. This page is generated from
src/explain.rs by `make reasons`.

The message of the condition says more than the reason: read it first, with `kubectl describe` or `kubectl boltz explain NAME`.
"
        .to_owned();
        let first_of_progress = explanations_of_progress().next().unwrap().0;
        for Explanation { reason, meaning, look, action, avoid } in explanations() {
            if reason == first_of_progress {
                page.push_str(
                    "\nThe following are no reasons of `Ready`. They are those of `Reconciling` while a key is issued, of events and \
                     of `status.lastRotationReason`; the last one is of `RevocationFailing`.\n",
                );
            }
            let look = look.join("\n");
            page.push_str(&format!(
                "\n## {reason}\n\n{meaning}\n\n```sh\n{look}\n```\n\n- What to do: {action}\n- What not to do: {avoid}\n"
            ));
        }
        page
    }

    /// The matches have every reason, or it does not compile. `REASONS=write` writes the page.
    #[test]
    fn the_runbook_of_reasons_is_what_is_generated() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/reasons.md");
        if std::env::var_os("REASONS").is_some() {
            fs::write(&file, page()).unwrap();
        }
        let found = fs::read_to_string(file).unwrap_or_default();
        assert_eq!(found, page(), "docs/runbooks/reasons.md is not what `make reasons` writes");
        for Explanation { reason, meaning, look, action, avoid } in explanations() {
            assert!(found.contains(&format!("\n## {reason}\n")), "{reason} has no section");
            let is_short = |text: &str| !text.is_empty() && text.len() < 450;
            assert!(!look.is_empty() && [meaning, action, avoid].into_iter().all(is_short), "{reason}");
        }
    }

    #[test]
    fn the_reference_has_the_meanings() {
        let reference = include_str!("../docs/reference/api.md");
        for reason in Reason::VARIANTS {
            let (name, (meaning, ..)) = (reason.as_str(), of_ready(*reason));
            let row = format!("| [`{name}`](../runbooks/reasons.md#{}) | {meaning} |", name.to_lowercase());
            assert!(
                reference.lines().any(|line| line == row),
                "docs/reference/api.md lacks this row:\n{row}"
            );
        }
    }

    #[test]
    fn a_reason_is_found_however_it_is_written() {
        assert_eq!(explain("secretconflict").unwrap().reason, "SecretConflict");
        assert_eq!(explain("NoKeyOverdue").unwrap().action, "Nothing.");
        assert_eq!(explain("Nonsense"), None);
    }

    #[test]
    fn no_two_reasons_have_the_same_name() {
        let mut names: Vec<String> = explanations().map(|known| known.reason.to_lowercase()).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
