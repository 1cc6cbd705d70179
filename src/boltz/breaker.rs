//! What is paused after failures of Boltz, and how a pause ends: with one call that tries. Pure.

use crate::plan::{Block, Monotonic};
use std::{collections::BTreeMap, time::Duration};

/// So many scopes that fail, with no success since, are the whole account.
const ALIKE: usize = 3;
/// The call that tries has this long to be answered; then another one may try.
const TRIAL: Duration = Duration::from_secs(60);
/// How often others ask meanwhile.
const AGAIN: Duration = Duration::from_secs(1);
/// A pause that is this long is reported to the objects that wait for a key.
const REPORTED: Duration = Duration::from_secs(5);
/// A scope is forgotten when its pause has been over for this long.
const FORGET: Duration = Duration::from_secs(600);

/// What a call to Boltz is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All calls.
    Account,
    /// The list of keys. It has waits of its own, so only the account's pauses concern it.
    List,
    /// Revocations. Each key has waits of its own, so only the account's pauses concern them.
    Revocations,
    /// New keys of a workspace; `None`: the default one.
    Workspace(Option<String>),
}

impl Scope {
    fn has_pauses(&self) -> bool {
        matches!(self, Self::Account | Self::Workspace(_))
    }
}

#[derive(Debug)]
pub(super) struct Pause {
    pub failures: u32,
    failed_at: Monotonic,
    pub until: Monotonic,
    /// When the call that tries was allowed.
    pub trial: Option<Monotonic>,
    pub block: Block,
}

impl Pause {
    fn ends_at(&self, now: Monotonic) -> Option<Monotonic> {
        let trial_ends = self.trial.map(|at| at.plus(TRIAL));
        Some(self.until.max(trial_ends.unwrap_or_default())).filter(|at| *at > now)
    }

    /// When to ask again. The end of the trial is not known.
    fn again_at(&self, now: Monotonic) -> Option<Monotonic> {
        self.ends_at(now).map(|_| if self.until > now { self.until } else { now.plus(AGAIN) })
    }
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    pauses: BTreeMap<Scope, Pause>,
    succeeded_at: Monotonic,
}

impl Breaker {
    fn pauses_of(&self, scope: &Scope) -> impl Iterator<Item = &Pause> {
        let account = (*scope != Scope::Account).then_some(&Scope::Account);
        account.into_iter().chain(scope.has_pauses().then_some(scope)).filter_map(|it| self.pauses.get(it))
    }

    /// Why a call must not be made now, and until when.
    pub fn block_of(&self, scope: &Scope, now: Monotonic) -> Option<Block> {
        let mut pauses = self.pauses_of(scope);
        pauses.find_map(|pause| Some(Block { until: Some(pause.again_at(now)?), ..pause.block.clone() }))
    }

    /// The pause that objects report, if it is a long one. It is reported until a call succeeds.
    pub fn reported_block(&self, scope: &Scope) -> Option<&Block> {
        let is_long = |pause: &&Pause| pause.until.since(pause.failed_at) >= REPORTED;
        self.pauses_of(scope).find(is_long).map(|pause| &pause.block)
    }

    /// The same as `block_of` for a call that was allowed at `since`, and may be the one that tries.
    pub fn is_paused_since(&self, scope: &Scope, since: Monotonic, now: Monotonic) -> bool {
        self.pauses_of(scope).any(|pause| pause.ends_at(now).is_some() && pause.trial != Some(since))
    }

    /// A call is allowed. If a pause is over, it is the one that tries.
    pub fn enter(&mut self, scope: &Scope, now: Monotonic) {
        for scope in [&Scope::Account, scope] {
            if let Some(pause) = self.pauses.get_mut(scope) {
                pause.trial = Some(now);
            }
        }
    }

    /// The call that was allowed at `since` is not made.
    pub fn withdraw(&mut self, scope: &Scope, since: Monotonic) {
        for scope in [&Scope::Account, scope] {
            if let Some(pause) = self.pauses.get_mut(scope).filter(|pause| pause.trial == Some(since)) {
                pause.trial = None;
            }
        }
    }

    /// A call that began then was answered. It ends the pauses that were over when it began.
    pub fn record_success(&mut self, scope: &Scope, began: Monotonic, now: Monotonic) {
        self.succeeded_at = now;
        self.end(scope, began);
        self.end(&Scope::Account, began);
    }

    fn end(&mut self, scope: &Scope, began: Monotonic) {
        if self.pauses.get(scope).is_some_and(|pause| pause.until <= began || !scope.has_pauses()) {
            self.pauses.remove(scope);
        }
    }

    /// A call that began then failed. `wait` says how long the pause is after so many failures.
    pub fn record_failure(
        &mut self,
        scope: &Scope,
        began: Monotonic,
        now: Monotonic,
        block: &Block,
        wait: impl Fn(u32) -> Duration,
    ) {
        self.pauses.retain(|_, pause| now.since(pause.until) < FORGET);
        self.pause(scope.clone(), began, now, block, &wait);
        if *scope == Scope::Account {
            return;
        }
        let is_alike = |(scope, pause): (&Scope, &Pause)| {
            *scope != Scope::Account && pause.failed_at >= self.succeeded_at
        };
        if self.pauses.iter().filter(|pause| is_alike(*pause)).count() >= ALIKE {
            self.pause(Scope::Account, began, now, block, &wait);
        } else {
            // What paused the account is over: this is the trouble of the scope alone.
            self.end(&Scope::Account, began);
        }
    }

    /// Failures that were in flight together count once.
    fn pause(
        &mut self,
        scope: Scope,
        began: Monotonic,
        now: Monotonic,
        block: &Block,
        wait: impl Fn(u32) -> Duration,
    ) {
        let known = self.pauses.get(&scope);
        let is_new = known.is_none_or(|pause| began >= pause.failed_at);
        let failures = known.map_or(0, |pause| pause.failures) + u32::from(is_new);
        let until = known.map_or(now, |pause| pause.until).max(now.plus(wait(failures)));
        let failed_at = known.filter(|_| !is_new).map_or(now, |pause| pause.failed_at);
        let trial = known.filter(|_| !is_new).and_then(|pause| pause.trial);
        let block = block.clone();
        self.pauses.insert(scope, Pause { failures, failed_at, until, trial, block });
    }

    /// The pauses, also those that are over and that no call has ended yet.
    pub fn pauses(&self) -> impl Iterator<Item = (&Scope, &Pause)> {
        self.pauses.iter()
    }

    /// When the next pause ends, or its trial.
    pub fn next_at(&self, now: Monotonic) -> Option<Monotonic> {
        self.pauses.values().filter_map(|pause| pause.ends_at(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Reason;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn workspace(name: &str) -> Scope {
        Scope::Workspace(Some(name.to_owned()))
    }

    /// A second for each failure.
    fn fail(breaker: &mut Breaker, scope: &Scope, began: u64, now: u64) {
        let block = Block { reason: Reason::BoltzUnavailable, message: "down".to_owned(), until: None };
        breaker.record_failure(scope, at(began), at(now), &block, |failures| {
            Duration::from_secs(failures.into())
        });
    }

    fn is_open(breaker: &Breaker, scope: &Scope, now: u64) -> bool {
        breaker.block_of(scope, at(now)).is_none()
    }

    #[test]
    fn one_workspace_in_trouble_is_its_own_trouble() {
        let mut breaker = Breaker::default();
        for _ in 0..50 {
            fail(&mut breaker, &workspace("a"), 10, 11);
        }
        assert!(!is_open(&breaker, &workspace("a"), 11), "paused");
        for scope in [workspace("b"), Scope::Workspace(None), Scope::List, Scope::Revocations] {
            assert!(is_open(&breaker, &scope, 11), "{scope:?}");
        }
        assert!(is_open(&breaker, &workspace("a"), 12), "what was in flight together counts once");
    }

    #[test]
    fn failures_of_the_list_and_of_revocations_pause_nothing_of_their_own() {
        for scope in [Scope::List, Scope::Revocations] {
            let mut breaker = Breaker::default();
            for began in [1, 2, 3, 4] {
                fail(&mut breaker, &scope, began, began);
            }
            assert!(is_open(&breaker, &scope, 4) && is_open(&breaker, &workspace("a"), 4), "{scope:?}");
        }
    }

    #[test]
    fn three_scopes_that_fail_alike_are_the_account() {
        for third in [workspace("c"), Scope::List, Scope::Revocations] {
            let mut breaker = Breaker::default();
            fail(&mut breaker, &workspace("a"), 1, 1);
            fail(&mut breaker, &workspace("b"), 1, 1);
            assert!(is_open(&breaker, &workspace("new"), 1));
            fail(&mut breaker, &third, 1, 1);
            assert!(!is_open(&breaker, &workspace("new"), 1) && !is_open(&breaker, &Scope::List, 1));
        }
        let mut breaker = Breaker::default();
        fail(&mut breaker, &workspace("a"), 1, 1);
        fail(&mut breaker, &workspace("b"), 1, 1);
        breaker.record_success(&workspace("d"), at(1), at(2));
        fail(&mut breaker, &workspace("c"), 3, 3);
        assert!(is_open(&breaker, &workspace("new"), 3), "a success between them says that Boltz works");
    }

    #[test]
    fn a_pause_ends_with_one_call_that_tries() {
        for scope in [Scope::Account, workspace("a")] {
            let mut breaker = Breaker::default();
            fail(&mut breaker, &scope, 1, 10);
            breaker.record_success(&scope, at(9), at(10));
            assert!(!is_open(&breaker, &scope, 10), "a success that began before says nothing");
            assert_eq!(breaker.next_at(at(10)), Some(at(11)));
            assert!(is_open(&breaker, &scope, 11));
            breaker.enter(&scope, at(11));
            assert!(!is_open(&breaker, &scope, 11), "one");
            assert!(!breaker.is_paused_since(&scope, at(11), at(12)), "the one");
            assert!(breaker.is_paused_since(&scope, at(5), at(12)), "another");
            assert!(is_open(&breaker, &scope, 71), "it is not waited for without end");
            breaker.withdraw(&scope, at(5));
            assert!(!is_open(&breaker, &scope, 12));
            breaker.withdraw(&scope, at(11));
            assert!(is_open(&breaker, &scope, 12), "another one may try");
            breaker.enter(&scope, at(12));
            fail(&mut breaker, &scope, 12, 13);
            assert!(!is_open(&breaker, &scope, 14) && is_open(&breaker, &scope, 15), "two seconds now");
            breaker.enter(&scope, at(15));
            breaker.record_success(&scope, at(15), at(16));
            assert!(is_open(&breaker, &scope, 16));
            breaker.enter(&scope, at(16));
            assert!(is_open(&breaker, &scope, 16), "everybody");
        }
    }

    #[test]
    fn a_long_pause_is_reported_until_a_call_succeeds() {
        let mut breaker = Breaker::default();
        let scope = workspace("a");
        let mut now = 10;
        for failures in 1..=6 {
            fail(&mut breaker, &scope, now, now);
            assert_eq!(breaker.reported_block(&scope).is_some(), failures >= 5, "{failures}");
            now += 10;
        }
        breaker.enter(&scope, at(now));
        assert!(breaker.reported_block(&scope).is_some());
        breaker.record_success(&scope, at(now), at(now));
        assert!(breaker.reported_block(&scope).is_none());
    }

    #[test]
    fn the_account_is_open_when_another_trouble_took_the_place_of_its_own() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, &Scope::Account, 1, 1);
        breaker.enter(&workspace("a"), at(2));
        fail(&mut breaker, &workspace("a"), 2, 3);
        assert!(is_open(&breaker, &workspace("b"), 3) && !is_open(&breaker, &workspace("a"), 3));
    }

    #[test]
    fn scopes_are_forgotten() {
        let mut breaker = Breaker::default();
        for number in 0..100 {
            fail(&mut breaker, &workspace(&number.to_string()), number * 100, number * 100);
            breaker.record_success(&Scope::List, at(number * 100), at(number * 100 + 1));
        }
        assert!(breaker.pauses.len() < 10, "{}", breaker.pauses.len());
    }
}
