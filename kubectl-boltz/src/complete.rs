//! Completion: of verbs and flags by clap, of object names by the cluster.

use crate::{
    cli::{Cli, Global},
    cluster::Cluster,
};
use clap::{CommandFactory, Parser};
use clap_complete::{CompletionCandidate, engine};
use kube::ResourceExt;
use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

/// A shell does not wait longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The names of the objects in the namespace that the command line so far names.
pub fn object_names(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(prefix) = current.to_str() else { return Vec::new() };
    let global = flags_so_far(std::env::args_os());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let names = async {
        let cluster = Cluster::connect(&global).await.ok()?;
        cluster.list(Some(&cluster.namespace), None).await.ok()
    };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, names).await.ok().flatten() });
    let names = found.unwrap_or_default().into_iter().map(|object| object.read.name_any());
    names.filter(|name| name.starts_with(prefix)).map(CompletionCandidate::new).collect()
}

/// The global flags among these arguments. The rest may be incomplete.
fn flags_so_far(arguments: impl Iterator<Item = OsString>) -> Global {
    /// Only the flags that say where to look.
    #[derive(Parser)]
    #[command(ignore_errors = true, disable_help_flag = true)]
    struct Flags {
        #[command(flatten)]
        global: Global,
    }
    let all: Vec<OsString> = arguments.collect();
    let names = ["-n", "--namespace", "--context", "--kubeconfig", "--as"];
    let mut known = vec![OsString::from("kubectl-boltz")];
    for (index, argument) in all.iter().enumerate() {
        let text = argument.to_string_lossy();
        let has_value = names.iter().any(|name| text.starts_with(&format!("{name}=")));
        if has_value {
            known.push(argument.clone());
        } else if names.contains(&text.as_ref())
            && let Some(value) = all.get(index + 1)
        {
            known.extend([argument.clone(), value.clone()]);
        }
    }
    Flags::parse_from(known).global
}

/// What kubectl wants from `kubectl_complete-boltz`: a line for each candidate, and a last one that says that they are
/// all: no names of files (4).
pub fn for_kubectl(words: Vec<OsString>) -> String {
    let mut arguments = vec![OsString::from("kubectl-boltz")];
    arguments.extend(words);
    let last = arguments.len().saturating_sub(1).max(1);
    let candidates = engine::complete(&mut Cli::command(), arguments, last, None).unwrap_or_default();
    let mut text = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        text.push_str(&candidate.get_value().to_string_lossy());
        if let Some(help) = candidate.get_help() {
            text.push('\t');
            text.push_str(help.to_string().lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    text + ":4\n"
}

pub fn script(shell: &str) -> String {
    match shell {
        "kubectl" => "#!/bin/sh\n# Save as kubectl_complete-boltz in a folder of PATH, and make it executable. kubectl calls it.\n\
                      exec kubectl-boltz __complete \"$@\"\n"
            .to_owned(),
        "bash" => "source <(COMPLETE=bash kubectl-boltz)\n".to_owned(),
        "zsh" => "source <(COMPLETE=zsh kubectl-boltz)\n".to_owned(),
        "fish" => "COMPLETE=fish kubectl-boltz | source\n".to_owned(),
        "elvish" => "eval (E:COMPLETE=elvish kubectl-boltz | slurp)\n".to_owned(),
        _ => "$env:COMPLETE = \"powershell\"; kubectl-boltz | Out-String | Invoke-Expression; Remove-Item Env:\\COMPLETE\n"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn verbs_and_flags_are_completed() {
        let text = for_kubectl(words("sta"));
        assert!(text.starts_with("status\tShows keys with their lifetimes"), "{text}");
        assert!(text.ends_with("\n:4\n"), "{text}");
        assert!(for_kubectl(words("list --over")).starts_with("--overdue\t"));
    }

    #[test]
    fn the_namespace_is_taken_from_an_incomplete_line() {
        for line in
            ["x -- kubectl-boltz status -n team des", "x status --namespace=team", "x -n team status --wat"]
        {
            assert_eq!(flags_so_far(words(line).into_iter()).namespace.as_deref(), Some("team"), "{line}");
        }
        assert_eq!(flags_so_far(words("x status").into_iter()).namespace, None);
    }
}
