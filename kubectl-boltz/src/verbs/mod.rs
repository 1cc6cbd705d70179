//! One function for each verb: makes the calls, and shows what the pure functions say.

mod accounts;
mod doctor;
mod explain;
mod follow;
mod logs;
mod look;
mod operator;
mod orphans;
mod rotate;
mod spec;
mod whose;

use crate::{
    cli::{Cli, Verb},
    cluster::{Cluster, Object},
    complete,
    failure::Failure,
    output::{self, Format},
    pure::list::Filter,
};
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use orphans::Publisher;
use std::time::Duration;

pub struct Session {
    pub cluster: Cluster,
    pub format: Format,
}

impl Session {
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Says what was done: to standard error, if standard output is for a program.
    fn report(&self, line: &str) -> Result<(), Failure> {
        if self.format.is_for_people() {
            return output::print(&format!("{line}\n"));
        }
        output::tell(line);
        Ok(())
    }

    /// The objects that were changed, for a program.
    fn write_changed(&self, objects: &[Object]) -> Result<(), Failure> {
        if self.format.is_for_people() {
            return Ok(());
        }
        look::write_objects(self.format, objects, String::new)
    }
}

/// Carries out the verb. Returns the exit code.
pub async fn run(cli: Cli) -> Result<u8, Failure> {
    has_format(&cli.verb, cli.global.output)?;
    if let Verb::Completion { shell } = &cli.verb {
        return output::print(&complete::script(shell)).map(|()| 0);
    }
    if matches!(cli.verb, Verb::Crd) {
        return spec::print_crd(cli.global.output).map(|()| 0);
    }
    let session = Session { cluster: Cluster::connect(&cli.global).await?, format: cli.global.output };
    if names_objects(&cli.verb) {
        in_one_namespace(&session)?;
    }
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
        Verb::Accounts => accounts::accounts(&session).await,
        Verb::Keys => orphans::keys(&session).await,
        Verb::Orphans { revoke: false, older_than, cluster, lease_name, .. } => {
            orphans::orphans(&session, &Publisher { cluster, lease_name }, older_than).await
        }
        Verb::Orphans { ids, older_than, cluster, lease_name, confirm, timeout, .. } => {
            let publisher = Publisher { cluster, lease_name };
            let older_than = older_than.unwrap_or(orphans::OLD_ENOUGH);
            let wish =
                orphans::Wish { ids, older_than, publisher, yes: confirm.yes, timeout: positive(timeout) };
            orphans::revoke(&session, wish).await
        }
        Verb::Events { name } => explain::events(&session, name.as_deref()).await,
        Verb::Logs { name, since } => logs::logs(&session, &name, since).await,
        Verb::Version => logs::version(&session).await,
        // They need no cluster.
        Verb::Completion { .. } | Verb::Crd => Ok(0),
    }
}

/// Not every verb has something to write as JSON, YAML or names.
fn has_format(verb: &Verb, format: Format) -> Result<(), Failure> {
    let (name, has) = match verb {
        Verb::Logs { .. } => ("logs", format.is_for_people()),
        Verb::Completion { .. } => ("completion", format.is_for_people()),
        Verb::Version => ("version", format != Format::Name),
        _ => ("", true),
    };
    if has {
        return Ok(());
    }
    let format = format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let message = format!("{name} has no output as {format}\nnext: kubectl boltz {name} --help");
    Err(Failure::Other(message))
}

/// `explain` and `rotate` see it by themselves.
fn names_objects(verb: &Verb) -> bool {
    match verb {
        Verb::Status { name, .. } => name.is_some(),
        Verb::RevokeLeaked { .. }
        | Verb::Suspend { .. }
        | Verb::Resume { .. }
        | Verb::Release { .. }
        | Verb::Users { .. }
        | Verb::Logs { .. } => true,
        _ => false,
    }
}

fn in_one_namespace(session: &Session) -> Result<(), Failure> {
    if !session.cluster.all_namespaces {
        return Ok(());
    }
    Err(Failure::Other(
        "this works in one namespace: -A would be ignored\n\
         next: kubectl boltz list -A  # shows the namespaces; then the same with --namespace NAME"
            .to_owned(),
    ))
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
