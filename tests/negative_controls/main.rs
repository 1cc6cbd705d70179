//! A test that cannot fail proves nothing: each defence in turn is switched off in a copy of the tree, and the tests that
//! are there for it must turn red. Takes minutes, so `make test-all` runs it; `CONTROL="the dry run"` runs those whose
//! defence begins so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod controls;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

/// One defence.
struct Control {
    defence: &'static str,
    file: &'static str,
    /// What stands in the file.
    with: &'static str,
    /// What takes its place.
    without: &'static str,
    /// Each of these must fail then.
    red: &'static [Red],
}

/// A test, by its name or by the first words of it, or a cell of the crash matrix, by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Red {
    Unit(&'static str),
    Plan(&'static str),
    Simulation(&'static str),
    CrashMatrix(&'static str),
}

/// A copy of the tree, with a target folder that outlives it.
struct Tree {
    root: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn copy(of: &Path) -> Self {
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
            let to = root.join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(of.join(name), to).unwrap();
        }
        let tree = Self { root, target };
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

    /// Whether the test passes, or why it was not run.
    fn passes(&self, red: Red) -> Result<bool, String> {
        let (suite, name, cell): (&[&str], _, _) = match red {
            Red::Unit(name) => (&["--lib"], name, ""),
            Red::Plan(name) => (&["--test", "pure"], name, ""),
            Red::Simulation(name) => (&["--test", "simulated"], name, ""),
            Red::CrashMatrix(cell) => (&["--test", "cluster"], "every_call_crossed_with_every_outcome", cell),
        };
        let list = self.test(suite, &["--list"], "");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let test = the_test(&list, name)?;
        let Output { stdout, stderr, status } = self.test(suite, &["--exact", test], cell);
        let output = String::from_utf8_lossy(&stdout);
        match output.contains("test result:") && !output.contains(" 0 passed; 0 failed") {
            true => Ok(status.success()),
            false => Err(format!("{red:?} was not run: {}", String::from_utf8_lossy(&stderr))),
        }
    }

    fn test(&self, suite: &[&str], arguments: &[&str], cell: &str) -> Output {
        Command::new(env!("CARGO"))
            .args(["test", "--quiet"])
            .args(suite)
            .arg("--")
            .args(arguments)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("MATRIX", cell)
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap()
    }
}

/// The one test of the list with that name, or whose name begins with it and goes on with another word.
fn the_test<'a>(list: &'a str, name: &str) -> Result<&'a str, String> {
    let tests = || list.lines().filter_map(|line| line.strip_suffix(": test"));
    let word = format!("::{name}");
    let is_it = |test: &&str| *test == name || test.ends_with(&word);
    if let Some(test) = tests().find(is_it) {
        return Ok(test);
    }
    let begins = format!("{word}_");
    let found: Vec<&str> = tests().filter(|test| test.contains(&begins)).collect();
    match found.as_slice() {
        [test] => Ok(test),
        _ => Err(format!("{name} has to name one test, and names {found:?}")),
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn without_its_defence_each_test_turns_red() {
    let wanted = std::env::var("CONTROL").unwrap_or_default();
    let controls: Vec<&Control> =
        controls::ALL.iter().filter(|control| control.defence.starts_with(&wanted)).collect();
    assert!(!controls.is_empty(), "no defence begins with {wanted:?}");
    let tree = Tree::copy(Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut tried: Vec<Red> = Vec::new();
    for red in controls.iter().flat_map(|control| control.red) {
        if !tried.contains(red) {
            assert_eq!(tree.passes(*red), Ok(true), "{red:?}, with every defence in place");
            tried.push(*red);
        }
    }
    let mut survivors = Vec::new();
    for Control { defence, file, with, without, red } in &controls {
        let started = Instant::now();
        let path = tree.root.join(file);
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.contains(with), "{defence}: not found in {file}");
        std::fs::write(&path, whole.replacen(with, without, 1)).unwrap();
        for red in *red {
            let is_green = tree.passes(*red).unwrap_or_else(|error| panic!("{defence}: {error}"));
            let colour = if is_green { "GREEN" } else { "red" };
            eprintln!("without: {defence}: {red:?} is {colour} after {} s", started.elapsed().as_secs());
            if is_green {
                survivors.push((defence, red));
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(survivors.is_empty(), "no test turns red without: {survivors:#?}");
}
