//! A process that owns something, for tests that kill it: the test's own program, running a test that owns it.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

const ASKED: &str = "HARNESS_TEST_OWNER";

/// Whether this process is the owner.
pub fn is_asked_for() -> bool {
    std::env::var_os(ASKED).is_some()
}

/// Tells the test what this process owns, and waits to be killed.
pub async fn owns(words: &[String]) {
    println!("\nowned {}", words.join(" "));
    std::future::pending().await
}

/// A test program that is started again to own something. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Owner {
    process: Child,
    /// What it has told with [`owns`].
    pub owned: Vec<String>,
}

impl Owner {
    /// Starts that test, and waits for what it tells.
    pub fn start(test: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ASKED, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut owner = Self { process, owned: Vec::new() };
        let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("owned ")).unwrap();
        owner.owned = line.split(' ').skip(1).map(str::to_owned).collect();
        owner
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
