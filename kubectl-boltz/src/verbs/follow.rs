//! Waits for what the operator does.

use super::Session;
use crate::{cluster::Object, failure::Failure, pure::object::View};
use std::time::{Duration, Instant};

/// How often an object is read.
const INTERVAL: Duration = Duration::from_millis(700);
/// A condition from before the request may be there that long.
const NEWS_ARRIVE_WITHIN: Duration = Duration::from_secs(5);

/// Waits until the object is so; `None` in the question: it is gone.
pub async fn until(
    session: &Session,
    name: &str,
    what: &str,
    timeout: Duration,
    is_so: impl Fn(Option<&Object>) -> bool,
) -> Result<Option<Object>, Failure> {
    let started = Instant::now();
    loop {
        let found = session.cluster.get_opt(name).await?;
        if is_so(found.as_ref()) {
            return Ok(found);
        }
        let trouble = found.as_ref().map(|object| View::new(&object.read, session.now())).and_then(|view| {
            let (reason, message) = view.trouble()?;
            Some((format!("{reason}: {message}"), view.is("Stalled")))
        });
        if let Some((text, true)) = &trouble
            && started.elapsed() > NEWS_ARRIVE_WITHIN
        {
            return Err(Failure::NotReady(format!(
                "{what} cannot happen: {text}\nnext: kubectl boltz explain {name} --namespace {}",
                session.cluster.namespace
            )));
        }
        if started.elapsed() > timeout {
            return Err(Failure::Timeout {
                what: what.to_owned(),
                after: timeout,
                state: trouble.map_or("The object reports no problem.".to_owned(), |(text, _)| text),
                next: format!("kubectl boltz status {name} --namespace {}", session.cluster.namespace),
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
