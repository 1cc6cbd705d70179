//! The log of the steps: one line for each, always with the same fields (`docs/reference/log.md`).

use crate::{
    plan::{Answer, EventKind, Facts, LogLine, ObjectFacts, Step},
    protocol::account_name::AccountName,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A number that the lines of one reconciliation share. Unique in the process.
pub(super) fn next_reconcile_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// A step that was executed.
pub(super) struct ExecutedStep<'a> {
    pub object: &'a ObjectFacts,
    pub account: &'a AccountName,
    pub reconcile_id: u64,
    pub step: &'a Step,
    /// The name of the answer.
    pub result: &'static str,
    pub took: Duration,
    /// What a response of Boltz calls the request, if it does.
    pub request_id: Option<String>,
}

impl<'a> ExecutedStep<'a> {
    pub(super) fn new(
        facts: &'a Facts,
        reconcile_id: u64,
        step: &'a Step,
        answer: &Answer,
        took: Duration,
        request_id: Option<String>,
    ) -> Self {
        let (object, account) = (&facts.object, &facts.account.name);
        Self { object, account, reconcile_id, step, result: answer.into(), took, request_id }
    }

    /// Writes what is to be said of it, or that it was executed.
    pub(super) fn log(&self, lines: &[LogLine]) {
        let usual = LogLine {
            kind: EventKind::Normal,
            message: "executed a step",
            key_id: None,
            detail: String::new(),
        };
        let lines = if lines.is_empty() { std::slice::from_ref(&usual) } else { lines };
        lines.iter().for_each(|line| self.log_line(line));
    }

    fn log_line(&self, line: &LogLine) {
        let Self { object, account, reconcile_id, step, result, took, request_id } = self;
        let account = account.boltz_account();
        let (namespace, name, uid) = (&object.namespace, &object.name, &object.uid);
        let attempt = step.attempt().map(tracing::field::display);
        let key_id = line.key_id.as_deref().or_else(|| step.key_id());
        let duration_seconds = took.as_secs_f64();
        let boltz_request_id = request_id.as_deref();
        let step: &str = (*step).into();
        let (message, detail) = (line.message, &line.detail);
        macro_rules! with_level {
            ($level:ident) => {
                tracing::$level!(
                    namespace,
                    name,
                    uid,
                    account,
                    reconcile_id,
                    step,
                    attempt,
                    key_id,
                    boltz_request_id,
                    duration_seconds,
                    result,
                    detail,
                    "{message}"
                )
            };
        }
        match line.kind {
            EventKind::Normal => with_level!(info),
            EventKind::Warning => with_level!(warn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantNames;

    #[test]
    fn the_reference_names_every_step_and_result() {
        let page = include_str!("../../docs/reference/log.md");
        // `Wait` is no call.
        let steps = Step::VARIANTS.iter().filter(|name| **name != "Wait");
        let missing: Vec<_> =
            steps.chain(Answer::VARIANTS).filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
