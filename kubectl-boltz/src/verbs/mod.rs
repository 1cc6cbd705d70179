//! One function for each verb: makes the calls, and shows what the pure functions say.

mod doctor;
mod explain;
mod follow;
mod logs;
mod look;
mod orphans;
mod rotate;
mod spec;
mod whose;

use crate::{
    cli::{Cli, Verb},
    cluster::Cluster,
    complete,
    failure::Failure,
    output::{self, Format},
    pure::list::Filter,
};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

pub struct Session {
    pub cluster: Cluster,
    pub format: Format,
}

impl Session {
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Carries out the verb. Returns the exit code.
pub async fn run(cli: Cli) -> Result<u8, Failure> {
    if let Verb::Completion { shell } = &cli.verb {
        return output::print(&complete::script(shell)).map(|()| 0);
    }
    if cli.global.all_namespaces && changes_named_objects(&cli.verb) {
        return Err(Failure::Other(
            "this works in one namespace: -A would be ignored\nnext: the same with --namespace NAME"
                .to_owned(),
        ));
    }
    let session = Session { cluster: Cluster::connect(&cli.global).await?, format: cli.global.output };
    match cli.verb {
        Verb::Status { name: Some(name), watch, .. } => look::status_of(&session, &name, watch).await,
        Verb::Status { name: None, selector, watch } => {
            look::status(&session, selector.as_deref(), watch).await
        }
        Verb::List { selector, not_ready, expiring, overdue, unused } => {
            let filter = Filter { not_ready, overdue, expiring, unused };
            look::list(&session, selector.as_deref(), &filter).await
        }
        Verb::Rotate { names, selector, all, wait, wait_until_revoked, batch, dry_run, timeout } => {
            let wish = rotate::Wish {
                wait: wait || wait_until_revoked || batch.is_some(),
                until_revoked: wait_until_revoked,
                batch: batch.map(usize::from),
                dry_run,
                timeout: positive(timeout),
            };
            rotate::rotate(&session, names, selector, all, &wish).await
        }
        Verb::RevokeLeaked { name, confirm, timeout } => {
            rotate::revoke_leaked(&session, &name, confirm.yes, positive(timeout)).await
        }
        Verb::Whose { key } => whose::whose(&session, &key).await,
        Verb::Users { name } => look::users(&session, &name).await,
        Verb::Suspend { names } => spec::suspend(&session, &names, true).await,
        Verb::Resume { names } => spec::suspend(&session, &names, false).await,
        Verb::Release { name, confirm, timeout } => {
            spec::release(&session, &name, confirm.yes, positive(timeout)).await
        }
        Verb::Explain { what } => explain::explain(&session, &what).await,
        Verb::Doctor { wait, timeout } => doctor::doctor(&session, wait.then(|| positive(timeout))).await,
        Verb::Keys => orphans::keys(&session).await,
        Verb::Orphans { revoke: false, cluster, .. } => orphans::orphans(&session, cluster.as_deref()).await,
        Verb::Orphans { ids, older_than, cluster, confirm, timeout, .. } => {
            let wish =
                orphans::Wish { ids, older_than, cluster, yes: confirm.yes, timeout: positive(timeout) };
            orphans::revoke(&session, wish).await
        }
        Verb::Events { name } => explain::events(&session, name.as_deref()).await,
        Verb::Logs { name, since } => logs::logs(&session, &name, since).await,
        Verb::Version => logs::version(&session).await,
        // It needs no cluster.
        Verb::Completion { .. } => Ok(0),
    }
}

fn changes_named_objects(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::RevokeLeaked { .. } | Verb::Suspend { .. } | Verb::Resume { .. } | Verb::Release { .. }
    )
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
