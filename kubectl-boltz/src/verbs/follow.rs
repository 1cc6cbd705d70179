//! Waits for what the operator does.

use super::Session;
use crate::{cluster::Object, failure::Failure, output::tell, pure::object::View};
use kube::ResourceExt;
use std::time::{Duration, Instant};

/// How often an object is read.
const INTERVAL: Duration = Duration::from_millis(700);
/// What stalls for less may pass by itself.
const LASTS_AFTER: Duration = Duration::from_secs(5);

/// Whether to wait although somebody has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Not if something new keeps the operator from issuing a key.
    IfNewlyBlocked,
    /// The operator tries again, and what stalls may be something else.
    Never,
}

/// Goes on looking when a look fails that may succeed later.
#[derive(Debug)]
pub struct Looks {
    /// A first look that fails shows that something is wrong with the question.
    have_succeeded: bool,
    is_told: bool,
}

impl Looks {
    pub fn new() -> Self {
        Self { have_succeeded: false, is_told: false }
    }

    /// Something succeeded before.
    pub fn after_success() -> Self {
        Self { have_succeeded: true, is_told: false }
    }

    /// `None`: the look failed, which is said once, and the next one may succeed.
    pub fn seen<T>(&mut self, look: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match look {
            Err(failure) if self.have_succeeded && failure.may_pass() => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tell(&format!("{}; looking again until it passes", failure.short()));
                }
                Ok(None)
            }
            Err(failure) => Err(failure),
            Ok(found) => {
                *self = Self::after_success();
                Ok(Some(found))
            }
        }
    }
}

/// What is waited for.
pub struct Wait<'a> {
    /// The object, as it was after the request.
    pub object: &'a Object,
    pub what: &'a str,
    pub timeout: Duration,
}

impl Wait<'_> {
    /// Waits until the object is so; `None` in the question: it is gone, whatever has its name now.
    pub async fn until(
        &self,
        session: &Session,
        give_up: GiveUp,
        is_so: impl Fn(Option<&Object>) -> bool,
    ) -> Result<Option<Object>, Failure> {
        let (name, what) = (self.object.read.name_any(), self.what);
        let namespace = &session.cluster.namespace;
        let started = Instant::now();
        loop {
            let found = match session.cluster.get_opt(&name).await {
                // The next look may succeed.
                Err(failure) if failure.may_pass() => Err(failure.short()),
                found => {
                    let is_same = |found: &Object| found.read.metadata.uid == self.object.read.metadata.uid;
                    Ok(found?.filter(is_same))
                }
            };
            let state = match found {
                Err(why) => why,
                Ok(found) if is_so(found.as_ref()) => return Ok(found),
                Ok(None) => return Err(Failure::NotFound { namespace: namespace.clone(), name }),
                Ok(Some(object)) => {
                    let view = View::new(&object.read, session.now());
                    let before = View::new(&self.object.read, session.now());
                    if give_up == GiveUp::IfNewlyBlocked
                        && view.is_newly_blocked(&before)
                        && started.elapsed() > LASTS_AFTER
                    {
                        return Err(Failure::NotReady(format!(
                            "{what} cannot happen: {}\nnext: kubectl boltz explain {name} --namespace {namespace}",
                            view.state()
                        )));
                    }
                    view.state()
                }
            };
            if started.elapsed() > self.timeout {
                return Err(Failure::Timeout {
                    what: what.to_owned(),
                    after: self.timeout,
                    state,
                    next: format!("kubectl boltz status {name} --namespace {namespace}"),
                });
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_ends_no_watch() {
        let passing = || Err::<u8, _>(Failure::Unreachable("connection refused".to_owned()));
        let lasting = || Err::<u8, _>(Failure::NoCrd);
        let mut looks = Looks::new();
        assert!(looks.seen(passing()).is_err(), "the first look shows what is wrong");
        assert!(matches!(looks.seen(Ok(1)), Ok(Some(1))));
        for _ in 0..3 {
            assert!(matches!(looks.seen(passing()), Ok(None)));
            assert!(looks.is_told);
        }
        assert!(matches!(looks.seen(Ok(2)), Ok(Some(2))));
        assert!(!looks.is_told, "the next failure is news");
        assert!(looks.seen(lasting()).is_err());
    }
}
