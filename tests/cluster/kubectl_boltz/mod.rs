//! `kubectl boltz` on the real API server, by users who have the ClusterRole `view`, `edit`, or nothing.

mod act;
mod doctor;
mod look;
mod orphans;
mod screens;

use crate::test_env::{PATIENCE, TestEnv};
use boltz_harness::{ControlPlane, child_process::output_with_input, eventually};
use serde_json::{Value as Json, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program, as one user in one namespace.
pub(crate) struct Plugin {
    kubeconfig: PathBuf,
    namespace: String,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    code: i32,
    pub out: String,
    err: String,
}

impl Plugin {
    /// A user of that name, with that ClusterRole in the namespace.
    async fn of(control_plane: &ControlPlane, user: &str, namespace: &str, role: Option<&str>) -> Self {
        let kubeconfig = control_plane.kubeconfig_for(user, None).unwrap();
        let plugin = Self { kubeconfig, namespace: namespace.to_owned() };
        let Some(role) = role else { return plugin };
        control_plane
            .apply(
                &json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": user, "namespace": namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
                })
                .to_string(),
            )
            .unwrap();
        // The controllers add the chart's rules to these roles.
        eventually(PATIENCE, "the role is aggregated", async || {
            let verb = if role == "view" { "list" } else { "patch" };
            let asked = Command::new(control_plane.binaries().join("kubectl"))
                .args(["auth", "can-i", verb, "boltzapikeys.boltz.bio", "--namespace", namespace])
                .env("KUBECONFIG", &plugin.kubeconfig)
                .output()
                .unwrap();
            if asked.status.success() { Ok(()) } else { Err("not yet") }
        })
        .await
        .unwrap();
        plugin
    }

    /// Who may do everything.
    pub fn of_admin(env: &TestEnv) -> Self {
        Self { kubeconfig: env.control_plane.kubeconfig("admin"), namespace: env.namespace.clone() }
    }

    async fn in_env(env: &TestEnv, role: &str) -> Self {
        Self::of(&env.control_plane, &format!("{role}-{}", env.namespace), &env.namespace, Some(role)).await
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let namespace = ["--namespace", &self.namespace];
        // kubectl puts nothing before what is to be completed.
        let is_completion = arguments.first() == Some(&"__complete");
        let mut command = Command::new(binary());
        command
            .args(namespace.iter().filter(|_| !is_completion))
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("COMPLETE");
        let output = output_with_input(&mut command, input).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs it, and expects that code.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        said
    }

    pub fn json(&self, arguments: &[&str]) -> Json {
        let said = self.expect(0, &[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&said.out).unwrap()
    }
}

impl Said {
    /// It failed, for that reason, and said what to do next.
    fn fails_with(&self, code: i32, reason: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(reason), "{self:?}");
        let next: Vec<&str> = self.err.lines().filter_map(|line| line.strip_prefix("next: ")).collect();
        assert!(!next.is_empty(), "{self:?}");
        assert!(next.iter().all(|next| can_be_pasted(next)), "{self:?}");
    }
}

/// It is a command, and what else is to be said comes as a comment of the shell.
fn can_be_pasted(line: &str) -> bool {
    let command = line.split("  # ").next().unwrap();
    command.starts_with("kubectl ") && !command.contains([',', ';', '(']) && !command.contains(" or ")
}

/// The program beside the operator: `cargo test --workspace --test cluster` builds both.
fn binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_boltz-operator")).with_file_name("kubectl-boltz");
    assert!(binary.exists(), "kubectl-boltz is not built: cargo test --workspace --test cluster");
    binary
}
