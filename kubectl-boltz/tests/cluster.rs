//! The program without a cluster.
//!
//! This target is called as the tier that runs the program on a real API server, `tests/cluster`, which belongs to another
//! package: who builds that tier with `--workspace` builds the program too.

// Helpers of tests are tests too, but clippy only knows functions with #[test].
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-boltz"));
    command.args(arguments).env("KUBECONFIG", "/dev/null").env_remove("COMPLETE").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn program_exit_codes_are_those_of_the_documentation() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["completion", "bash"], 0),
        (&["__complete", "sta"], 0),
        (&["nonsense"], 1),
        (&["status", "--nonsense"], 1),
        (&["list", "--expiring", "soon"], 1),
        (&["status"], 1),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn program_errors_name_the_next_command() {
    let output = run(&["status"]);
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("\nnext: kubectl config get-contexts"), "{}", text(&output.stderr));
}

#[test]
fn program_completes_verbs_for_kubectl() {
    let output = text(&run(&["__complete", "rev"]).stdout);
    assert!(output.starts_with("revoke-leaked\t"), "{output}");
    assert!(output.ends_with("\n:4\n"), "{output}");
}
