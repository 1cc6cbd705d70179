//! Leader election with a Lease.
//!
//! Own implementation: kube-leader-election renews without resourceVersion, and kubert compares the wall clocks of
//! different machines (`docs/dependencies.md`). Every write here is a replace with the resourceVersion that was read.
//! Another process's lease counts as expired only when its content has not changed for its whole duration by *our*
//! monotonic clock. Correctness does not depend on the Lease (rule 10); it avoids duplicate work.

use crate::observability::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long a lease is valid without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often the lease is renewed or checked.
const INTERVAL: Duration = Duration::from_secs(4);
/// A leader that cannot renew stops this long before the lease expires, so that two never lead at once, even if a call
/// hangs.
const MARGIN: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The Lease and the identity of this process.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// The name of the Lease.
    pub name: String,
    /// The operator's own.
    pub namespace: String,
    /// Unique for this process, not for its host.
    pub identity: String,
}

/// The content of the Lease, and since when it has not changed.
#[derive(Clone, Debug, PartialEq)]
struct Observed {
    spec: LeaseSpec,
    since: Instant,
}

/// What to do about a lease.
#[derive(Clone, Debug, PartialEq)]
enum Move {
    Write(LeaseSpec),
    StandBy,
}

/// Pure: decides what to write from the current Lease and from how long it has been unchanged.
fn next_move(current: &LeaseSpec, unchanged_for: Duration, identity: &str, now: Timestamp) -> Move {
    let holder = current.holder_identity.as_deref().unwrap_or_default();
    let stated = current.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let expired = unchanged_for >= stated.map_or(DURATION, Duration::from_secs);
    let mine = holder == identity;
    if !(mine || holder.is_empty() || expired) {
        return Move::StandBy;
    }
    let transitions = current.lease_transitions.unwrap_or_default();
    Move::Write(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if mine { current.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    })
}

/// Holds the lease whenever possible and publishes in `leading` whether it does. Releases it when `stop` is cancelled.
pub async fn hold(
    client: Client,
    options: LeaseOptions,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
) {
    let mut election = Election {
        api: Api::namespaced(client, &options.namespace),
        options,
        observed: None,
        held_until: None,
    };
    let set = |is_leading: bool| {
        let changed = leading.send_if_modified(|known| std::mem::replace(known, is_leading) != is_leading);
        if changed {
            metrics.set_leader(is_leading);
            tracing::info!(leading = is_leading, "leadership changed");
        }
    };
    loop {
        let round = Instant::now();
        // Before the call: a process that was suspended may have been suspended for longer than its lease.
        set(election.leads(round));
        election.round().await;
        set(election.leads(Instant::now()));
        // Leading ends with the lease. A failing API server is polled no faster than every INTERVAL.
        let next = round + INTERVAL;
        let lapse = election.held_until.filter(|until| *until < next);
        let wait = async {
            if let Some(lapse) = lapse {
                sleep_until(lapse).await;
                set(election.leads(Instant::now()));
            }
            sleep_until(next).await;
        };
        tokio::select! {
            () = wait => {}
            () = stop.cancelled() => break,
        }
    }
    let held = election.leads(Instant::now());
    leading.send_replace(false);
    metrics.set_leader(false);
    if held {
        election.release().await;
    }
}

struct Election {
    api: Api<Lease>,
    options: LeaseOptions,
    observed: Option<Observed>,
    held_until: Option<Instant>,
}

impl Election {
    fn leads(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// Reads the Lease and writes it if it is free or ours. Takes no longer than the lease is held: leading must end in
    /// time even if the API server hangs.
    async fn round(&mut self) {
        let sent = Instant::now();
        let mut deadline = sent + CALL_TIMEOUT;
        if let Some(until) = self.held_until.filter(|until| *until > sent) {
            deadline = deadline.min(until);
        }
        match timeout_at(deadline, self.try_round()).await {
            Ok(Ok(true)) => self.held_until = Some(sent + DURATION - MARGIN),
            Ok(Ok(false)) => self.held_until = None,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to read or write the lease");
            }
            Err(_) => tracing::warn!("timed out reading or writing the lease"),
        }
    }

    async fn try_round(&mut self) -> Result<bool, kube::Error> {
        let parameters = PostParams::default();
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(&self.options.name).await? else {
            let Move::Write(spec) = next_move(&LeaseSpec::default(), DURATION, &self.options.identity, now)
            else {
                return Ok(false);
            };
            let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return won(self.api.create(&parameters, &lease).await.map(drop));
        };
        let spec = lease.spec.take().unwrap_or_default();
        let since = match &self.observed {
            Some(observed) if observed.spec == spec => observed.since,
            _ => Instant::now(),
        };
        let known_holder = self.observed.as_ref().and_then(|observed| observed.spec.holder_identity.as_ref());
        if let Some(holder) = spec.holder_identity.as_ref().filter(|holder| Some(*holder) != known_holder)
            && !holder.is_empty()
            && *holder != self.options.identity
        {
            tracing::info!(holder, "another process holds the lease");
        }
        self.observed = Some(Observed { spec: spec.clone(), since });
        match next_move(&spec, since.elapsed(), &self.options.identity, now) {
            Move::StandBy => Ok(false),
            Move::Write(spec) => {
                lease.spec = Some(spec);
                won(self.api.replace(&self.options.name, &parameters, &lease).await.map(drop))
            }
        }
    }

    /// Lets another process take over immediately.
    async fn release(&self) {
        let release = async {
            let mut lease = self.api.get(&self.options.name).await?;
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() == Some(self.options.identity.as_str()) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.options.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(CALL_TIMEOUT, release).await {
            Ok(Ok(())) => tracing::info!("released the lease"),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to release the lease");
            }
            Err(_) => tracing::warn!("timed out releasing the lease"),
        }
    }
}

/// A conflict: another process was faster.
fn won(written: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: (!holder.is_empty()).then(|| holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    fn written(current: &LeaseSpec, unchanged_for: u64) -> Option<LeaseSpec> {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        match next_move(current, Duration::from_secs(unchanged_for), "me", now) {
            Move::Write(spec) => Some(spec),
            Move::StandBy => None,
        }
    }

    #[test]
    fn anothers_lease_is_left_alone_until_it_has_not_changed_for_its_duration() {
        assert_eq!(written(&lease("other", 3), 0), None);
        assert_eq!(written(&lease("other", 3), 14), None);
        let taken = written(&lease("other", 3), 15).unwrap();
        assert_eq!(taken.holder_identity.as_deref(), Some("me"));
        assert_eq!(taken.lease_transitions, Some(4));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        assert_eq!(written(&lease("", 3), 0).unwrap().lease_transitions, Some(4));
    }

    #[test]
    fn renewing_is_no_transition() {
        let renewed = written(&lease("me", 3), 0).unwrap();
        assert_eq!(renewed.lease_transitions, Some(3));
        assert_eq!(renewed.acquire_time, Some(MicroTime(Timestamp::UNIX_EPOCH)));
    }
}
