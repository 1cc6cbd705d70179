//! Child processes that never outlive their owner.
//!
//! Each runs under a small shell that reads a pipe which we hold. When we drop it, panic, or are killed, the pipe ends
//! and the shell kills the child. The children have process groups of their own, so that Ctrl-C in a terminal reaches
//! us only, and we decide.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Starts `"$@"`, says its pid, ends it when standard input ends, says how it ended.
const SUPERVISOR: &str = r#"
exec 3<&0
log=$OWNED_PROCESS_LOG
unset OWNED_PROCESS_LOG
"$@" </dev/null >>"$log" 2>&1 3<&- &
child=$!
echo "$child" >"${log%.log}.pid"
echo "$child"
(read -r _ <&3; kill -9 "$child") >/dev/null 2>&1 &
watchdog=$!
wait "$child"
code=$?
rm -f "${log%.log}.pid"
echo "$code"
kill "$watchdog" 2>/dev/null
"#;

/// Removes a folder, once the processes that write into it have ended.
const CLEANER: &str = r#"
patience=100
for file in "$1"/*.pid; do
    while [ -e "$file" ] && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        sleep 0.05
    done
done
# Their own children may write a little longer.
until rm -rf -- "$1" || [ "$patience" -le 0 ]; do
    patience=$((patience - 1))
    sleep 0.05
done
"#;

/// Runs a shell script with these arguments when its standard input ends: when it is dropped, or when we die.
pub(crate) fn at_the_end<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", &format!("cat >/dev/null\n{script}"), "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// How long a process may take to end once it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the program with that on its standard input; how it ended and what it printed.
pub fn output_with_input(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading it.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// A child process that ends with its owner.
#[derive(Debug)]
pub struct OwnedProcess {
    pid: u32,
    log: PathBuf,
    supervisor: Child,
    output: BufReader<ChildStdout>,
    owner: Option<ChildStdin>,
    ended: Option<i32>,
}

impl OwnedProcess {
    /// Starts the program. Its output goes to the end of the log file, whose name ends in `.log`; its pid is in the
    /// `.pid` beside it while it runs. It inherits our environment, but no setting of Boltz and no proxy: everything
    /// that it talks to is on loopback.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        environment: &[(String, String)],
        log: &Path,
    ) -> io::Result<Self> {
        File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            let upper = name.to_string_lossy().to_uppercase();
            if upper.starts_with("BOLTZ_") || upper.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        let mut supervisor = command
            .args(["-c", SUPERVISOR, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("OWNED_PROCESS_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let owner = supervisor.stdin.take();
        let mut output = BufReader::new(supervisor.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let pid = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { pid, log: log.to_owned(), supervisor, output, owner, ended: None })
    }

    /// The pid of the program itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of it.
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Sends a signal, by its name: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        if self.ended.is_none() {
            let pid = i32::try_from(self.pid).map(Pid::from_raw);
            if let (Ok(pid), Ok(signal)) = (pid, format!("SIG{name}").parse::<Signal>()) {
                // It may have ended by itself: no error.
                let _ = kill(pid, signal);
            }
        }
    }

    /// Whether it has ended, and with what: its exit code, or 128 and the signal.
    pub fn try_wait(&mut self) -> Option<i32> {
        if self.ended.is_none() && matches!(self.supervisor.try_wait(), Ok(Some(_))) {
            let mut text = String::new();
            let _ = self.output.read_to_string(&mut text);
            self.ended = Some(text.trim().parse().unwrap_or(-1));
        }
        self.ended
    }

    /// Waits for its end. Blocks the thread, and with it what else runs there, such as an emulator of the same test.
    pub fn wait(&mut self, at_most: Duration) -> Option<i32> {
        let deadline = Instant::now() + at_most;
        while self.try_wait().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.ended
    }

    /// The same as [`OwnedProcess::kill`] for tests that share their thread with others.
    pub async fn killed(&mut self) {
        self.signal("KILL");
        let deadline = Instant::now() + PATIENCE;
        while self.try_wait().is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        self.signal("KILL");
        let _ = self.wait(PATIENCE);
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
            drop(self.owner.take());
            let _ = self.supervisor.wait();
        }
    }
}

/// A folder that goes with its owner, even when that is killed.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    cleaner: Child,
}

impl OwnedFolder {
    /// A new folder for temporary files.
    pub fn create(prefix: &str) -> io::Result<Self> {
        let path = tempfile::Builder::new().prefix(prefix).tempdir()?.keep();
        let cleaner = at_the_end(CLEANER, &[&path])?;
        Ok(Self { path, cleaner })
    }

    /// It exists as long as this value.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnedFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        drop(self.cleaner.stdin.take());
        let _ = self.cleaner.wait();
    }
}
