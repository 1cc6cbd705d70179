//! What can be said of the list of controls without compiling anything: it is complete, and it means what it says.

use super::{Control, Red, controls};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The rules of `docs/protocol.md`: a number is one of the section "Rules"; elsewhere the section comes first, and then its
/// number or the bold word with which it begins.
fn rules() -> BTreeSet<String> {
    let protocol = read("docs/protocol.md");
    let mut section = "";
    let mut rules = BTreeSet::new();
    for line in protocol.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        }
        let number = |line: &str| line.split_once('.').and_then(|(number, _)| number.parse::<u8>().ok());
        match section {
            "Rules" => rules.extend(line.strip_prefix("| **").and_then(number).map(|rule| rule.to_string())),
            "Faults that stay" | "A list that lies" | "Forgeries" => {
                rules.extend(number(line).map(|rule| format!("{section} {rule}")));
            }
            "Fair shares" => {
                let word = line.strip_prefix("**").and_then(|line| line.split_once(".**"));
                rules.extend(word.map(|(word, _)| format!("{section}: {word}")));
            }
            _ => {}
        }
    }
    rules
}

#[test]
fn each_rule_has_a_control() {
    let rules = rules();
    assert!(rules.len() >= 25, "the rules are not found in docs/protocol.md: {rules:?}");
    let controlled: BTreeSet<String> = controls::ALL.iter().map(|control| control.rule.to_owned()).collect();
    let without: Vec<_> = rules.difference(&controlled).collect();
    assert!(without.is_empty(), "rules without a control: {without:?}");
    let unknown: Vec<_> = controlled.difference(&rules).collect();
    assert!(unknown.is_empty(), "docs/protocol.md has no such rules: {unknown:?}");
}

#[test]
fn each_file_of_the_executor_has_a_control() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = sources(&root.join("src/controller/execute"));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        assert!(controls::ALL.iter().any(|control| control.file == name), "no control is in {name}");
    }
}

#[test]
fn each_control_changes_one_place_of_what_is_shipped() {
    let mut defences = BTreeSet::new();
    for Control { defence, file, with, without, red, .. } in controls::ALL {
        assert!(defences.insert(defence), "two controls are called {defence:?}");
        assert!(file.starts_with("src/"), "{defence}: {file} is not shipped");
        let source = read(file);
        assert_eq!(source.matches(with).count(), 1, "{defence}: how often this is in {file}: {with}");
        let tests = source.find("#[cfg(test)]").unwrap_or(source.len());
        assert!(source.find(with).unwrap() < tests, "{defence}: a test is changed in {file}");
        assert_ne!(with, without, "{defence}");
        assert!(!red.is_empty(), "{defence}: no test");
    }
}

#[test]
fn each_control_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for Control { defence, red, .. } in controls::ALL {
        for red in *red {
            let folder = match red {
                Red::Unit(_) => "src",
                Red::Client(_) => "tests/client",
                Red::Pure(_) => "tests/pure",
                Red::Simulated(_) => "tests/simulated",
                Red::Cluster(_) | Red::CrashMatrix(_) => "tests/cluster",
            };
            let function = format!("fn {}()", red.name());
            let sources = sources(&root.join(folder));
            let found: usize = sources
                .iter()
                .map(|file| std::fs::read_to_string(file).unwrap().matches(&function).count())
                .sum();
            assert_eq!(found, 1, "{defence}: how many tests of {folder} are called {}", red.name());
        }
    }
}
