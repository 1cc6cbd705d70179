//! The operator as a process.

use crate::{
    child_process::{OwnedFolder, OwnedProcess},
    ports::free_port,
    wait::eventually,
};
use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

const LOG: &str = "operator.log";

/// A running operator. It ends when it is dropped.
pub struct OperatorProcess {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    listen: SocketAddr,
    process: OwnedProcess,
    folder: OwnedFolder,
}

impl fmt::Debug for OperatorProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its environment may hold the admin key.
        formatter.debug_struct("OperatorProcess").field("process", &self.process).finish_non_exhaustive()
    }
}

impl OperatorProcess {
    /// Starts the binary with these flags, against the cluster of that kubeconfig file. `--listen` is added.
    pub fn start(
        binary: &Path,
        kubeconfig: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> io::Result<Self> {
        let folder = OwnedFolder::create("boltz-operator-")?;
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut arguments = arguments.to_vec();
        arguments.extend(["--listen".to_owned(), listen.to_string()]);
        let mut environment = environment.to_vec();
        environment.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
        let process = OwnedProcess::start(binary, &arguments, &environment, &folder.path().join(LOG))?;
        Ok(Self { binary: binary.to_owned(), arguments, environment, listen, process, folder })
    }

    /// The binary beside the program that asks: cargo puts both into the same folder.
    pub fn built_binary() -> io::Result<PathBuf> {
        let binary = std::env::current_exe()?.with_file_name("boltz-operator");
        if binary.exists() {
            Ok(binary)
        } else {
            Err(io::Error::other(format!("{} is missing: make builds it", binary.display())))
        }
    }

    /// For its pid, and for signals that have no method here.
    pub fn process(&self) -> &OwnedProcess {
        &self.process
    }

    /// Where it serves metrics and health.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The file of its log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join(LOG)
    }

    /// What it has logged, over all its restarts.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGKILL: it has no chance to end in order.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit code, if it ends within 15 s.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        self.process.wait(Duration::from_secs(15))
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, at_most: Duration) -> Option<i32> {
        self.process.wait(at_most)
    }

    /// Starts it again, after it has ended.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process.kill();
        let log = self.log_file();
        self.process = OwnedProcess::start(&self.binary, &self.arguments, &self.environment, &log)?;
        Ok(())
    }

    /// SIGKILL, for tests that share their thread with others.
    pub async fn killed(&mut self) {
        self.process.killed().await;
    }

    /// SIGKILL, and a new start, for tests that share their thread with others.
    pub async fn killed_and_restarted(&mut self) -> io::Result<()> {
        self.process.killed().await;
        let (binary, log) = (self.binary.clone(), self.log_file());
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        let start = move || OwnedProcess::start(&binary, &arguments, &environment, &log);
        self.process = tokio::task::spawn_blocking(start).await.map_err(io::Error::other)??;
        Ok(())
    }

    /// What a GET of the path answers.
    pub async fn get(&self, path: &str) -> Result<String, String> {
        crate::install_tls_provider();
        let get = async {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
            let answer = client.get(format!("{}{path}", self.base_url())).send().await?;
            answer.error_for_status()?.text().await
        };
        get.await.map_err(|error| error.to_string())
    }

    /// Waits until it has logged that text; the error holds the end of its log.
    pub async fn wait_for_log(&self, text: &str, at_most: Duration) -> Result<(), String> {
        eventually(at_most, &format!("the operator logs {text:?}"), async || {
            if self.log().contains(text) { Ok(()) } else { Err(self.process.last_lines(20)) }
        })
        .await
    }

    /// Waits until it is ready; the error holds the end of its log.
    pub async fn wait_ready(&self) -> Result<(), String> {
        eventually(Duration::from_secs(120), "the operator is ready", async || {
            self.get("/readyz").await.map(drop)
        })
        .await
        .map_err(|error| format!("{error}\n{}", self.process.last_lines(20)))
    }
}
