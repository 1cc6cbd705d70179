//! Flags and verbs.

use crate::{complete, output::Format};
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use jiff::SignedDuration;
use std::path::PathBuf;

/// Shows and changes the API keys of Boltz that boltz-operator manages.
///
/// It works with your own permissions in the cluster, needs no admin key, and never prints the value of a key. Exit codes:
/// 0: ready or done. 1: error. 2: not ready. 3: timeout.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl-boltz", bin_name = "kubectl boltz", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of all verbs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
    /// Output format.
    #[arg(short, long, global = true, value_enum, default_value_t, hide_default_value = true)]
    pub output: Format,
    /// Namespace of boltz-operator itself.
    #[arg(long, global = true, default_value = "boltz-system", value_name = "NAME")]
    pub operator_namespace: String,
    /// Kubeconfig file. Default: KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Act as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Act as a member of this group.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Shows keys with their lifetimes, why some are not ready, and what happens next.
    ///
    /// With NAME: one object as a tree, with its Secret, its keys and the pods that use it.
    Status {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: Option<String>,
        /// Only objects with these labels.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// Shows it again whenever it changes, until Ctrl-C.
        #[arg(short, long)]
        watch: bool,
    },
    /// Lists keys, the most urgent first.
    List {
        /// Only objects with these labels.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// Only those that are not ready.
        #[arg(long)]
        not_ready: bool,
        /// Only those that expire within this time: 14d, 36h.
        #[arg(long, value_name = "TIME", value_parser = time)]
        expiring: Option<SignedDuration>,
        /// Only those with a rotation, a revocation or a deletion that is overdue.
        #[arg(long)]
        overdue: bool,
        /// Only those whose key was not used for this time.
        #[arg(long, value_name = "TIME", value_parser = time)]
        unused: Option<SignedDuration>,
    },
    /// Asks for a rotation with the usual overlap.
    Rotate {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        names: Vec<String>,
        /// All objects with these labels.
        #[arg(short = 'l', long, conflicts_with = "names")]
        selector: Option<String>,
        /// All objects of the namespace.
        #[arg(long, conflicts_with_all = ["names", "selector"])]
        all: bool,
        /// Waits until the Secret has the new key.
        #[arg(long)]
        wait: bool,
        /// Waits until the old key is revoked: until the end of the overlap, by default 24 h, and then for --timeout.
        #[arg(long)]
        wait_until_revoked: bool,
        /// How many objects are rotated at the same time. The next ones wait until these are done.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
        batch: Option<u16>,
        /// Changes nothing: the API server only checks the change.
        #[arg(long)]
        dry_run: bool,
        /// How long to wait for each object.
        #[arg(long, default_value = "5m", value_name = "TIME", value_parser = time)]
        timeout: SignedDuration,
    },
    /// Replaces a key that has leaked, and waits until all older keys are revoked at Boltz.
    ///
    /// Workloads that have not loaded the new key fail from then on.
    RevokeLeaked {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: String,
        #[command(flatten)]
        confirm: Confirm,
        /// How long to wait.
        #[arg(long, default_value = "10m", value_name = "TIME", value_parser = time)]
        timeout: SignedDuration,
    },
    /// Finds the object of a key: by its id, its name in Boltz's console, or (-) its value on standard input.
    ///
    /// The value is hashed here and not sent. No permission to read Secrets is needed.
    Whose {
        /// The id of a key, its name in the console, or - for a value on standard input.
        key: String,
    },
    /// Lists the pods that use the key, and how old their copy is.
    Users {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: String,
    },
    /// Stops issuing and rotating keys for the object until it is resumed.
    Suspend {
        #[arg(required = true, add = ArgValueCompleter::new(complete::object_names))]
        names: Vec<String>,
    },
    /// Issues and rotates keys for the object again.
    Resume {
        #[arg(required = true, add = ArgValueCompleter::new(complete::object_names))]
        names: Vec<String>,
    },
    /// Deletes the object and keeps its keys and its Secret.
    ///
    /// The operator no longer rotates or revokes these keys.
    Release {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: String,
        #[command(flatten)]
        confirm: Confirm,
        /// How long to wait.
        #[arg(long, default_value = "1m", value_name = "TIME", value_parser = time)]
        timeout: SignedDuration,
    },
    /// Explains an object, the reason of a condition, or an alert.
    Explain {
        /// Name of an object, a reason such as SecretConflict, or an alert.
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        what: String,
    },
    /// Checks the cluster, the operator and your permissions, and says how to fix what is wrong.
    Doctor {
        /// Repeats the checks until nothing is wrong.
        #[arg(long)]
        wait: bool,
        /// How long to wait.
        #[arg(long, default_value = "5m", value_name = "TIME", value_parser = time)]
        timeout: SignedDuration,
    },
    /// Lists BoltzAccounts: whether they can be used, their organizations, and how many keys they have.
    Accounts,
    /// Lists the keys of BoltzApiKeys, current and previous; with -A also orphans.
    ///
    /// A key that is being created, or whose value was lost and which is about to be revoked, is not among them.
    Keys,
    /// Lists orphans: active keys of this cluster that no BoltzApiKey and no Secret refers to.
    Orphans {
        /// Asks the operator to revoke them. It reads all objects and Secrets before each revocation.
        #[arg(long)]
        revoke: bool,
        /// Only these key ids.
        #[arg(requires = "revoke")]
        ids: Vec<String>,
        /// Only keys that have been orphans for longer than this. Default: all; with --revoke: 24h.
        #[arg(long, value_name = "TIME", value_parser = time)]
        older_than: Option<SignedDuration>,
        /// The operator's --cluster-name. Needed if several operators publish orphans in one namespace.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// The operator's --lease-name. Default: what its Deployment says. Needed if you may not list Deployments.
        #[arg(long, value_name = "NAME")]
        lease_name: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
        /// How long to wait.
        #[arg(long, default_value = "1m", value_name = "TIME", value_parser = time)]
        timeout: SignedDuration,
    },
    /// Lists the events of BoltzApiKeys.
    Events {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: Option<String>,
    },
    /// Shows the operator's log lines about an object.
    Logs {
        #[arg(add = ArgValueCompleter::new(complete::object_names))]
        name: String,
        /// How far back to look.
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = time)]
        since: SignedDuration,
    },
    /// Prints the CustomResourceDefinition of this version, for kubectl apply --server-side.
    Crd,
    /// Shows the versions of this program, of the operator and of the API server.
    Version,
    /// Prints the script with which a shell completes verbs, flags and object names.
    Completion {
        /// For `kubectl-boltz` in a shell, or `kubectl` for `kubectl boltz` in any shell.
        #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell", "kubectl"])]
        shell: String,
    },
}

/// The confirmation of what cannot be undone.
#[derive(Clone, Copy, Debug, Args)]
pub struct Confirm {
    /// Does not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
}

/// `14d`, `36h`, `90s`: as kubectl writes ages.
fn time(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    if let Some(days) = days {
        return Ok(SignedDuration::from_hours(24 * i64::from(days)));
    }
    let duration = boltz_operator::duration::parse_duration(text);
    let duration = duration.ok().and_then(|duration| SignedDuration::try_from(duration).ok());
    duration.ok_or_else(|| "must be a time such as 14d, 36h, 30m or 90s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documentation_names_every_verb_and_flag() {
        let page = include_str!("../../docs/kubectl-boltz.md");
        let mut missing = Vec::new();
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            if ![format!("`{name}"), format!("kubectl boltz {name}")].iter().any(|text| page.contains(text)) {
                missing.push(name.to_owned());
            }
            let flags = verb.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| *flag != "help");
            missing.extend(
                flags
                    .map(|flag| format!("--{flag}"))
                    .filter(|flag| !page.contains(flag))
                    .map(|flag| format!("{name} {flag}")),
            );
        }
        let global = Cli::command();
        let flags = global.get_arguments().filter_map(clap::Arg::get_long).map(|flag| format!("--{flag}"));
        missing.extend(
            flags.filter(|flag| !["--help", "--version"].contains(&flag.as_str()) && !page.contains(flag)),
        );
        assert!(missing.is_empty(), "docs/kubectl-boltz.md lacks {missing:?}");
        // And none that is gone.
        let known: Vec<String> =
            Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for command in page.split("kubectl boltz ").skip(1) {
            let verb: String =
                command.chars().take_while(|part| part.is_ascii_lowercase() || *part == '-').collect();
            assert!(verb.is_empty() || known.contains(&verb), "there is no verb {verb}");
        }
    }

    #[test]
    fn times_are_as_kubectl_writes_them() {
        for (text, seconds) in [("14d", 1_209_600), ("36h", 129_600), ("1h30m", 5400), ("90s", 90)] {
            assert_eq!(time(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "-1d", "1.5d", "9999999999999d", "soon"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
