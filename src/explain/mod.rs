//! What reasons of conditions mean, how to look, what to do about each and what not to do. `kubectl boltz explain` shows these
//! words; `docs/runbooks/reasons.md` is made of them by `make reasons`, and `docs/reference/api.md` has the meanings.

mod events;
mod progress;
mod ready;

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

/// Explains the reason of a condition, an event or a revocation. `None`: none has it.
pub fn explain(reason: &str) -> Option<Explanation> {
    explanations().find(|known| known.reason.eq_ignore_ascii_case(reason))
}

/// All of them: those of `Ready`, then those that only other conditions have.
pub fn explanations() -> impl Iterator<Item = Explanation> {
    let of_ready = Reason::VARIANTS.iter().map(|reason| (reason.as_str(), ready::of_ready(*reason)));
    of_ready.chain(explanations_of_progress()).map(|(reason, (meaning, look, action, avoid))| Explanation {
        reason,
        meaning,
        look,
        action,
        avoid,
    })
}

fn explanations_of_progress() -> impl Iterator<Item = (&'static str, Texts)> {
    let of_issues = IssueReason::VARIANTS.iter().map(|reason| (reason.as_str(), progress::of_issue(*reason)));
    of_issues.chain([(NO_KEY_OVERDUE, progress::NOTHING_OVERDUE)]).chain(events::EVENTS)
}

/// Meaning, look, action and avoid.
type Texts = (&'static str, &'static [&'static str], &'static str, &'static str);

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
src/explain by `make reasons`.

The message of the condition says more than the reason: read it first, with `kubectl describe` or `kubectl boltz explain NAME`.
"
        .to_owned();
        let first_of_progress = explanations_of_progress().next().unwrap().0;
        for Explanation { reason, meaning, look, action, avoid } in explanations() {
            if reason == first_of_progress {
                page.push_str(
                    "\nThe following are no reasons of `Ready`. They are those of `Reconciling` while a key is issued, of events and \
                     of `status.lastRotationReason`; `NoKeyOverdue` is of `RevocationFailing`. Those after it are of events and of \
                     revocations.\n",
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
        let reference = include_str!("../../docs/reference/api.md");
        for reason in Reason::VARIANTS {
            let (name, (meaning, ..)) = (reason.as_str(), ready::of_ready(*reason));
            let row = format!("| [`{name}`](../runbooks/reasons.md#{}) | {meaning} |", name.to_lowercase());
            assert!(
                reference.lines().any(|line| line == row),
                "docs/reference/api.md lacks this row:\n{row}"
            );
        }
    }

    /// Conditions are explained elsewhere, but for the one that says what fails.
    #[test]
    fn each_event_and_each_reason_of_a_revocation_is_explained() {
        for reason in crate::plan::RevokeReason::VARIANTS {
            assert!(explain(reason.as_str()).is_some(), "{}", reason.as_str());
        }
        let reference = include_str!("../../docs/reference/api.md");
        let table = reference.split("## Events").nth(1).unwrap().split("A first key").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.flat_map(|row| row.split('|').next().unwrap().split(['`', ',', ' ']));
        let mut count = 0;
        for name in names.filter(|name| !name.is_empty() && !["Ready", "Stalled"].contains(name)) {
            assert!(explain(name).is_some(), "{name}");
            count += 1;
        }
        assert!(count >= 10, "{count}");
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
