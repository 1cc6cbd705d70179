//! A copy of the tree in which defences are switched off, and its test programs.

use super::Red;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A test that takes so many times longer than with every defence, and longer than this, will never end: what was switched
/// off kept it from going round in circles.
const LONGER: u32 = 10;
const LONGEST: Duration = Duration::from_secs(300);

/// A copy of the tree, with a target folder that outlives it.
pub struct Tree {
    root: PathBuf,
    target: PathBuf,
    /// How long each test takes with every defence in place.
    times: HashMap<Red, Duration>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Green,
    Red,
    /// Red too.
    Endless,
}

impl Tree {
    pub fn copy(of: &Path) -> Self {
        let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("negative-controls");
        let (root, target) = (scratch.join("tree"), scratch.join("target"));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        // All that git does not ignore, with times of their own: what an earlier run left in the target folder is then older.
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(of)
            .output()
            .unwrap();
        assert!(listed.status.success(), "git does not list the files");
        for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
            let (from, to) = (of.join(name), root.join(name));
            // What was removed and is still known to git is not there.
            if from.exists() {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(from, to).unwrap();
            }
        }
        let tree = Self { root, target, times: HashMap::new() };
        tree.take_dependencies();
        tree
    }

    /// The dependencies that have been compiled for this very program need not be compiled once more. What compilers write
    /// is linked, because they replace it; what build scripts have left is copied, because they write into it.
    fn take_dependencies(&self) {
        let Some(built) = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().map(|target| target.join("debug"))
        else {
            return;
        };
        let own = self.target.join("debug");
        if !own.exists() {
            std::fs::create_dir_all(&own).unwrap();
            for (folder, how) in [("deps", "-al"), ("build", "-a"), (".fingerprint", "-a")] {
                let taken = Command::new("cp").arg(how).arg(built.join(folder)).arg(&own).status().unwrap();
                assert!(taken.success(), "the folder {folder} was not taken over");
            }
        }
    }

    /// Does something while the file says `without` in the place of `with`.
    pub fn without<T>(&self, file: &str, with: &str, without: &str, then: impl FnOnce() -> T) -> T {
        let path = self.root.join(file);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replacen(with, without, 1)).unwrap();
        let result = then();
        std::fs::write(&path, whole).unwrap();
        result
    }

    /// Runs each of these tests with every defence in place, and remembers how long it takes. Complains if it is not green.
    pub fn measure(&mut self, tests: &[Red]) -> Vec<String> {
        let mut complaints = Vec::new();
        for red in tests {
            if !self.times.contains_key(red) {
                let started = Instant::now();
                match self.colour(*red, Duration::MAX) {
                    Ok(Colour::Green) => {}
                    other => complaints
                        .push(format!("{red:?} is not green with every defence in place: {other:?}")),
                }
                self.times.insert(*red, started.elapsed());
            }
        }
        complaints
    }

    /// The colours of these tests now, or why they have none.
    pub fn colours(&self, tests: &[Red]) -> Result<Vec<(Red, Colour)>, String> {
        let colour = |red: &Red| {
            let longest = LONGEST.max(self.times.get(red).copied().unwrap_or_default() * LONGER);
            Ok((*red, self.colour(*red, longest)?))
        };
        tests.iter().map(colour).collect()
    }

    /// Compiles a suite, and answers where its program is.
    fn program(&self, suite: &[&str]) -> Result<PathBuf, String> {
        let Output { stdout, stderr, status } = Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--no-run", "--message-format", "json"])
            .args(suite)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            // Each program is compiled for one or two tests: most of the time would go into making it fast.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
            .env("CARGO_INCREMENTAL", "1")
            .output()
            .unwrap();
        if !status.success() {
            let said = String::from_utf8_lossy(&stdout);
            let errors = said.lines().filter_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                line["message"]["rendered"].as_str().map(str::to_owned)
            });
            return Err(format!(
                "it does not compile: {}{}",
                errors.collect::<String>(),
                String::from_utf8_lossy(&stderr)
            ));
        }
        let said = String::from_utf8_lossy(&stdout);
        let mut programs = said.lines().filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_a_test = line["profile"]["test"].as_bool()?;
            is_a_test.then(|| line["executable"].as_str().map(PathBuf::from))?
        });
        programs.next_back().ok_or_else(|| format!("cargo names no program of {suite:?}"))
    }

    fn colour(&self, red: Red, longest: Duration) -> Result<Colour, String> {
        let program = &self.program(red.suite())?;
        let list = self.command(program).arg("--list").output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let test = the_test(&list, red.name())?;
        let output = std::fs::File::create(self.output()).unwrap();
        let child = self
            .command(program)
            .args(["--exact", test])
            .env("MATRIX", if let Red::CrashMatrix(cell) = red { cell } else { "" })
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let Some(succeeded) = wait(child, longest) else { return Ok(Colour::Endless) };
        let said = std::fs::read_to_string(self.output()).unwrap();
        match (succeeded, said.contains("1 passed; 0 failed"), said.contains("0 passed; 1 failed")) {
            (true, true, false) => Ok(Colour::Green),
            (false, false, true) => Ok(Colour::Red),
            _ => Err(format!("{red:?} was not run: {said}")),
        }
    }

    /// What the last test said.
    fn output(&self) -> PathBuf {
        self.target.join("output")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }
}

/// Whether it succeeded, or nothing if it had to be ended.
fn wait(mut child: Child, longest: Duration) -> Option<bool> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.success());
        }
        if started.elapsed() > longest {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The one test of the list whose last word is that name.
fn the_test<'a>(list: &'a str, name: &str) -> Result<&'a str, String> {
    let word = format!("::{name}");
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let found: Vec<&str> = tests.filter(|test| *test == name || test.ends_with(&word)).collect();
    match found.as_slice() {
        [test] => Ok(test),
        _ => Err(format!("{name} has to name one test, and names {found:?}")),
    }
}
