//! A process that owns something, for tests that kill it: the test's own program, running its test `owner`.

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

/// It dies with this.
pub struct Owner {
    process: Child,
    pub owned: Vec<String>,
}

impl Owner {
    pub fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner", "--nocapture"])
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
