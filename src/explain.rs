//! What reasons of conditions mean and what to do about each. `docs/reference/api.md` and `kubectl boltz explain` show the
//! same words.

use crate::plan::Reason;
use strum::VariantArray;

/// One entry. Both texts are Markdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason, as conditions have it.
    pub reason: &'static str,
    /// Markdown, complete sentences: what has happened, without advice.
    pub meaning: &'static str,
    /// Markdown, complete sentences: what a person can do about it, or that nothing has to be done.
    pub action: &'static str,
}

/// Explains the reason of a condition. `None`: no condition has it.
pub fn explain(reason: &str) -> Option<Explanation> {
    explanations().find(|known| known.reason.eq_ignore_ascii_case(reason))
}

/// One entry for each reason that a condition can have, in the order of `docs/reference/api.md`.
pub fn explanations() -> impl Iterator<Item = Explanation> {
    Reason::VARIANTS.iter().map(|reason| {
        let (meaning, action) = texts(*reason);
        Explanation { reason: reason.as_str(), meaning, action }
    })
}

fn texts(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Issued => ("The Secret contains a valid key.", "Nothing."),
        Reason::Pending => (
            "A key is being issued. If `Ready` is Unknown, no operator has worked on the object yet.",
            "Wait. The message says for what. If it stays Unknown: does an operator run, and does it watch this namespace?",
        ),
        Reason::Rotating => ("The key is no longer valid and is being replaced.", "Wait."),
        Reason::SecretConflict => (
            "Another Secret has the name. The operator does not change it.",
            "Choose another `secret.name`, or delete the Secret. If the Secret has the operator's label, the operator continues immediately; otherwise it checks again after 60 s, then less often, at least every 5 min.",
        ),
        Reason::SecretWriteFailed => (
            "The API server rejects the Secret: quota, permissions, an admission webhook.",
            "Fix what the message names.",
        ),
        Reason::ObjectWriteFailed => (
            "The API server rejects a write of the object itself: its annotations, finalizer or status.",
            "Fix what the message names.",
        ),
        Reason::RestartFailed => (
            "Only in `Reconciling` and `Stalled`: a workload cannot be restarted.",
            "Fix what the message names, or remove the target.",
        ),
        Reason::InvalidSpec => (
            "The spec is invalid: it names a schedule or time zone that does not exist. If the CRD is older than the operator, it can be any other field.",
            "Fix the field that the message names. If the CRD is older, apply `crds/`.",
        ),
        Reason::BoltzRejected => (
            "Boltz rejects the request. The message has Boltz's words and the time of the next try.",
            "Fix what the message names: the spec, the workspace, the bill. The operator retries at growing intervals of at most 10 min (400 and 422: an hour). It retries immediately when the spec or the annotation `boltz.bio/retry` changes.",
        ),
        Reason::BoltzUnavailable => ("Calls to Boltz fail.", "Wait. Check the network if it lasts."),
        Reason::BoltzUnauthorized => (
            "The operator's admin key cannot be used for this object. Boltz rejects it; or it is a test-mode key and the object asks for a live key; or it is not known to belong to the organization of the object's keys.",
            "Do what the message says. The operator uses a new admin key seconds after its file changes.",
        ),
        Reason::KeyDoubtful => (
            "Boltz's list does not show the key as active, and it is not certain that this is true. Only in `Reconciling` and `Stalled`; also in `Ready` if the check of the key itself gave no clear answer.",
            "Look at Boltz's console. If somebody revoked many keys on purpose, confirm it: see the runbook BoltzOperatorListSuspect. To get a new key now, set `boltz.bio/rotate`. `boltz.bio/rotate-now` would revoke a key that may still work.",
        ),
        Reason::NamesAltered => (
            "Boltz changed the name of a new key. No keys are issued any more.",
            "Ask Boltz. Then restart the operator with `--retry-altered-names`.",
        ),
        Reason::ClockSkew => {
            ("New keys had expired when they arrived, so they are revoked.", "Set the clocks.")
        }
        Reason::RateLimited => {
            ("Boltz limits the request rate, and asks to wait for 5 s or longer.", "Wait.")
        }
        Reason::MintBudgetExceeded => (
            "Other objects are first: the limit of new keys (`--max-mints-per-minute`, `--max-mints-per-namespace`) is reached, or Boltz limits the rate of calls.",
            "Wait, or raise the limit. No event reports it.",
        ),
        Reason::Expired => ("The key has expired and could not be replaced.", "The message says why."),
        Reason::Suspended => ("`spec.suspend` is true.", "Set it to false when you want a key."),
        Reason::Paused => (
            "The annotation `boltz.bio/paused` is `true`: no key is issued or revoked, the Secret and the workloads stay as they are.",
            "Remove the annotation when the operator may go on.",
        ),
        Reason::Deleting => (
            "The keys are being revoked.",
            "Wait. If Boltz is gone for good, set the annotation `boltz.bio/deletion-policy=Retain`.",
        ),
        Reason::PreviousKeyStillUsed => (
            "Ready is True, but a previous key is still in use after its overlap.",
            "Find the workload that has not loaded the new key. Restart it, or add it to `rolloutRestartTargets`.",
        ),
        Reason::PolicyDenied => ("An admission policy denies a write.", "Change the policy or the object."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The match in `texts` has every reason, or it does not compile.
    #[test]
    fn the_reference_has_the_same_words() {
        let reference = include_str!("../docs/reference/api.md");
        for Explanation { reason, meaning, action } in explanations() {
            let row = format!("| `{reason}` | {meaning} | {action} |");
            assert!(
                reference.lines().any(|line| line == row),
                "docs/reference/api.md lacks this row:\n{row}"
            );
        }
    }

    #[test]
    fn a_reason_is_found_however_it_is_written() {
        assert_eq!(explain("secretconflict").unwrap().reason, "SecretConflict");
        assert_eq!(explain("Nonsense"), None);
    }
}
