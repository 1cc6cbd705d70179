//! A test that cannot fail proves nothing: each defence in turn is switched off in a copy of the tree, and the tests that
//! are there for it must turn red. Takes minutes, so `make test-all` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One defence: where it stands, what it looks like without it, and a test that must then fail.
struct Control {
    defence: &'static str,
    file: &'static str,
    with: &'static str,
    without: &'static str,
    red: &'static str,
}

const CONTROLS: [Control; 22] = [
    Control {
        defence: "an attempt stays in the ledger until it is over",
        file: "src/plan/issue.rs",
        with: ".filter(|(index, (_, is_open))| *is_open || *index >= first_counted)",
        without: ".filter(|(index, (_, is_open))| *is_open && *index >= first_counted && false)",
        red: "trace_5",
    },
    Control {
        defence: "one POST for each attempt",
        file: "src/plan/memory.rs",
        with: "known.progress = Progress::Sent;",
        without: "known.progress = Progress::Written;",
        red: "an_attempt_is_posted_once",
    },
    Control {
        defence: "the window: a key held longer is not stored",
        file: "src/plan/issue.rs",
        with: "if self.now.monotonic < window_end && !refused",
        without: "if !refused",
        red: "a_key_held_past_its_window",
    },
    Control {
        defence: "the settle time",
        file: "src/plan/keys.rs",
        with: "seen.unwrap_or(now.monotonic).plus(settings.window() + settings.settle_time)",
        without: "seen.unwrap_or(now.monotonic)",
        red: "trace_2",
    },
    Control {
        defence: "a live read before every revocation",
        file: "tests/plan/world.rs",
        with: "Step::Revoke { .. } if !facts.live => Ok(Next::ReadAgain),",
        without: "Step::Revoke { .. } if false => Ok(Next::ReadAgain),",
        red: "trace_1",
    },
    Control {
        defence: "writes of the object under its resourceVersion",
        file: "tests/plan/world.rs",
        with: "&& object.resource_version == facts.object.resource_version",
        without: "",
        red: "trace_20",
    },
    Control {
        defence: "compensation: a key that is not stored is revoked",
        file: "src/plan/issue.rs",
        with: "self.revoke(key.id.clone(), RevokeReason::NotStored)",
        without: "None",
        red: "a_definitely_refused_key",
    },
    Control {
        defence: "a key whose store may still land is not revoked",
        file: "src/plan/issue.rs",
        with: "if *store_in_doubt && !self.facts.is_settled",
        without: "if false && !self.facts.is_settled",
        red: "trace_17",
    },
    Control {
        defence: "the record says what was stored",
        file: "src/plan/memory.rs",
        with: "if reported || recorded(&key.id) {",
        without: "if reported && recorded(&key.id) {",
        red: "trace_12",
    },
    Control {
        defence: "status as a hint: the key of a deleted Secret has its overlap",
        file: "src/plan/keys.rs",
        with: "if let Some(id) = &status.key_id {",
        without: "if let Some(id) = status.key_id.as_ref().filter(|_| false) {",
        red: "trace_4",
    },
    Control {
        defence: "the dry run before a key is issued",
        file: "src/plan/issue.rs",
        with: "if !self.facts.preflight_passed {",
        without: "if false {",
        red: "trace_23",
    },
    Control {
        defence: "a foreign Secret is a conflict",
        file: "src/plan/issue.rs",
        with: "if let SecretFacts::Foreign(whose) = &self.facts.secret {",
        without: "if let (SecretFacts::Foreign(whose), true) = (&self.facts.secret, false) {",
        red: "what_stands_in_the_way",
    },
    Control {
        defence: "no revocation before the key's own attempt is settled",
        file: "src/plan/revoke.rs",
        with: "if self.now.monotonic < settled_at {",
        without: "if false {",
        red: "trace_22",
    },
    Control {
        defence: "no revocation before the overlap is over",
        file: "src/plan/revoke.rs",
        with: "if self.now.wall < revoke_after {",
        without: "if false {",
        red: "the_old_key_lives_through_its_overlap",
    },
    Control {
        defence: "an id that is listed under another name is none of ours",
        file: "src/plan/keys.rs",
        with: "return KeyState::Foreign;",
        without: "return KeyState::Active;",
        red: "trace_15",
    },
    Control {
        defence: "absence counts only in passes that could have shown the key",
        file: "src/plan/keys.rs",
        with: "expected_from.is_some_and(|from| pass.started >= from)",
        without: "expected_from.is_some()",
        red: "trace_8",
    },
    Control {
        defence: "a stripped finalizer is put back",
        file: "src/plan/mod.rs",
        with: "if !self.facts.object.has_finalizer && self.facts.has_something_to_revoke() {",
        without: "if false {",
        red: "trace_7",
    },
    Control {
        defence: "the finalizer stays until every attempt is ended",
        file: "src/plan/delete.rs",
        with: "|| self.facts.is_over(self.settings, self.now, attempt)",
        without: "|| true",
        red: "trace_3",
    },
    Control {
        defence: "what another leader overwrites is not said again at once",
        file: "src/plan/mod.rs",
        with: "if self.now.monotonic < again &&",
        without: "if false &&",
        red: "what_another_leader_overwrites",
    },
    Control {
        defence: "a key in hand is settled although its attempt left the ledger",
        file: "src/plan/keys.rs",
        with: "get(attempt.as_str()).copied().or(written);",
        without: "get(attempt.as_str()).copied().or(written.filter(|_| false));",
        red: "an_attempts_age_is_its_own",
    },
    Control {
        defence: "the backoff is counted from the ledger",
        file: "src/plan/issue.rs",
        with: ".or_else(|| self.ledger_backoff())?;",
        without: "?;",
        red: "backoff_is_counted",
    },
    Control {
        defence: "a key that is stored while its object goes is revoked",
        file: "src/plan/memory.rs",
        with: "Progress::Stored { key, reported: false } if !is_retained => Some(&key.id),",
        without: "Progress::Stored { key, reported: false } if is_retained && false => Some(&key.id),",
        red: "an_object_that_goes_while_its_first_key_is_stored",
    },
];

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn without_its_defence_each_test_turns_red() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("negative-controls");
    let tree = scratch.join("tree");
    let _ = std::fs::remove_dir_all(&tree);
    std::fs::create_dir_all(&tree).unwrap();
    for part in ["Cargo.toml", "Cargo.lock", "src", "tests"] {
        // With times of their own: what an earlier run left in the target folder is then older than every file.
        let copied = Command::new("cp").arg("-r").arg(root.join(part)).arg(&tree).status().unwrap();
        assert!(copied.success(), "{part} was not copied");
    }
    // Whether the tests whose names hold one of the filters pass, or why they do not compile.
    let run = |filters: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--test", "plan", "--"])
            .args(filters)
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", scratch.join("target"))
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let ran = String::from_utf8_lossy(&output.stdout).contains("test result:");
        if ran {
            Ok(output.status.success())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    let all: Vec<&str> = CONTROLS.iter().map(|control| control.red).collect();
    assert_eq!(run(&all), Ok(true), "with every defence in place");
    let mut survivors = Vec::new();
    for control in &CONTROLS {
        let file = tree.join(control.file);
        let whole = std::fs::read_to_string(root.join(control.file)).unwrap();
        assert!(whole.contains(control.with), "{}: not found in {}", control.defence, control.file);
        std::fs::write(&file, whole.replacen(control.with, control.without, 1)).unwrap();
        let is_green = run(&[control.red]).unwrap_or_else(|errors| panic!("{}: {errors}", control.defence));
        eprintln!(
            "{}: without it {} is {}",
            control.defence,
            control.red,
            if is_green { "GREEN" } else { "red" }
        );
        if is_green {
            survivors.push(control.defence);
        }
        std::fs::write(&file, whole).unwrap();
    }
    assert!(survivors.is_empty(), "no test turns red without: {survivors:#?}");
}
