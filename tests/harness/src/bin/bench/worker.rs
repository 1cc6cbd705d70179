//! Who is measured: the operator as it ships, or the bare loop. Both are processes of their own with the same rights.

use crate::{Bench, BenchError, cluster::Cluster, usage};
use boltz_emulator::Emulator;
use boltz_harness::{
    OperatorProcess,
    child_process::{OwnedFolder, OwnedProcess},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The manifest whose flags the operator gets.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base/boltz-operator.yaml");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Operator,
    Bare,
}

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary that ships.
    pub binary: PathBuf,
    /// The flags of the chart's defaults, but for addresses and the admin key.
    flags: Vec<String>,
    /// What `--concurrency` says.
    pub concurrency: String,
}

impl Setup {
    pub fn new(binary: &Path) -> Result<Self, BenchError> {
        let manifest = std::fs::read_to_string(MANIFEST).map_err(BenchError::io(MANIFEST))?;
        let here = ["--boltz-base-url", "--admin-key-file", "--listen"];
        let flags: Vec<String> = manifest
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- "))
            .filter(|flag| flag.starts_with("--") && !here.iter().any(|name| flag.starts_with(name)))
            .map(str::to_owned)
            .collect();
        let value = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)).map(str::to_owned);
        let concurrency = value("--concurrency=")
            .ok_or_else(|| BenchError::Unexpected(format!("{MANIFEST} has no --concurrency")))?;
        Ok(Self { binary: binary.to_owned(), flags, concurrency })
    }

    /// The flags, with these in place of the chart's.
    pub fn flags(&self, instead: &[&str]) -> Vec<String> {
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let kept = self.flags.iter().filter(|flag| !instead.iter().any(|other| name(other) == name(flag)));
        kept.cloned().chain(instead.iter().map(|flag| (*flag).to_owned())).collect()
    }
}

pub enum Worker {
    Operator(OperatorProcess),
    Bare(OwnedProcess, OwnedFolder),
}

impl Worker {
    pub fn start(
        who: Who,
        setup: &Setup,
        cluster: &Cluster,
        emulator: &Emulator,
        instead: &[&str],
    ) -> Result<Self, BenchError> {
        let kubeconfig = cluster.control_plane.kubeconfig("operator");
        let mut environment: Vec<(String, String)> = [
            ("BOLTZ_API_KEY", emulator.admin_key().to_owned()),
            ("BOLTZ_BASE_URL", emulator.base_url()),
            ("RUST_LOG", "info".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        match who {
            Who::Operator => {
                let flags = setup.flags(instead);
                OperatorProcess::start(&setup.binary, &kubeconfig, &flags, &environment)
                    .map(Self::Operator)
                    .map_err(BenchError::io("start the operator"))
            }
            Who::Bare => {
                environment.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
                let arguments = ["bare", "loop", "--concurrency", &setup.concurrency];
                Self::start_bare(&arguments, &environment)
            }
        }
    }

    /// Runs the bare calls that list everything, to their end.
    pub async fn list(bench: &Bench, emulator: &Emulator) -> Result<(), BenchError> {
        let program = std::env::current_exe().map_err(BenchError::io("this program"))?;
        let status = tokio::process::Command::new(program)
            .args(["bare", "list"])
            .env("KUBECONFIG", bench.cluster.control_plane.kubeconfig("operator"))
            .env("BOLTZ_API_KEY", emulator.admin_key())
            .env("BOLTZ_BASE_URL", emulator.base_url())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(BenchError::io("start the bare list"))?;
        if status.success() {
            return Ok(());
        }
        Err(BenchError::Unexpected(format!("the bare list ended with {status}")))
    }

    fn start_bare(arguments: &[&str], environment: &[(String, String)]) -> Result<Self, BenchError> {
        let start = || {
            let folder = OwnedFolder::create("boltz-bare-")?;
            let program = std::env::current_exe()?;
            let process =
                OwnedProcess::start(&program, arguments, environment, &folder.path().join("bare.log"))?;
            Ok(Self::Bare(process, folder))
        };
        start().map_err(BenchError::io("start the bare loop"))
    }

    pub fn process(&self) -> &OwnedProcess {
        match self {
            Self::Operator(operator) => operator.process(),
            Self::Bare(process, _) => process,
        }
    }

    /// The error with the last words of the process.
    pub fn explain(&self, error: &BenchError) -> BenchError {
        BenchError::Unexpected(format!("{error}\n{}", self.process().last_lines(5)))
    }

    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    pub fn cpu(&self) -> Result<Duration, BenchError> {
        usage::cpu(self.pid())
    }

    /// Waits until it has used no CPU time to speak of for half a second; when that began.
    pub async fn quiet(&self, at_most: Duration) -> Result<std::time::Instant, BenchError> {
        const WINDOW: Duration = Duration::from_millis(500);
        let deadline = std::time::Instant::now() + at_most;
        let (mut since, mut used) = (std::time::Instant::now(), self.cpu()?);
        while since.elapsed() < WINDOW {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.cpu()?;
            // A probe, a lease or a timer takes less.
            if now.saturating_sub(used) > Duration::from_millis(8) {
                (since, used) = (std::time::Instant::now(), now);
            }
            if std::time::Instant::now() > deadline {
                return Err(BenchError::Unexpected("the process does not come to rest".to_owned()));
            }
        }
        Ok(since)
    }

    /// Ends it, the operator in order: it gives its lease back.
    pub async fn stop(self) -> Result<(), BenchError> {
        let stopped = tokio::task::spawn_blocking(move || match self {
            Self::Operator(mut operator) => {
                let code = operator.terminate();
                (code, operator.log())
            }
            Self::Bare(process, folder) => {
                let log = process.log();
                drop(process);
                drop(folder);
                // It says nothing unless something is wrong.
                (Some(i32::from(!log.is_empty())), log)
            }
        });
        let (code, log) = stopped.await.map_err(|error| BenchError::Unexpected(error.to_string()))?;
        if code == Some(0) {
            return Ok(());
        }
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        Err(BenchError::Unexpected(format!("what was measured ended with {code:?}:\n{end}")))
    }
}
