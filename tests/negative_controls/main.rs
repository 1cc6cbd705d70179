//! A test that cannot fail proves nothing: each defence in turn is switched off in a copy of the tree, and the tests that
//! are there for it must turn red. Takes long, so `make test-all` runs it; `CONTROL="the dry run"` runs those whose
//! defence begins so, and `CONTROL="the dry run|an attempt"` those of both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod complete;
mod controls;
mod tree;

use std::{path::Path, time::Instant};
use tree::{Colour, Tree};

/// One defence.
struct Control {
    defence: &'static str,
    /// The rule of `docs/protocol.md` that it serves: its number, or its section and its words.
    rule: &'static str,
    file: &'static str,
    /// What stands in the file, once.
    with: &'static str,
    /// What takes its place.
    without: &'static str,
    /// Each of these must fail then.
    red: &'static [Red],
}

/// A test, by the last word of its name, or a cell of the crash matrix, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Red {
    Unit(&'static str),
    Client(&'static str),
    Pure(&'static str),
    Simulated(&'static str),
    Cluster(&'static str),
    CrashMatrix(&'static str),
}

impl Red {
    fn suite(self) -> &'static [&'static str] {
        match self {
            Self::Unit(_) => &["--lib"],
            Self::Client(_) => &["--test", "client"],
            Self::Pure(_) => &["--test", "pure"],
            Self::Simulated(_) => &["--test", "simulated"],
            Self::Cluster(_) | Self::CrashMatrix(_) => &["--test", "cluster"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Unit(name)
            | Self::Client(name)
            | Self::Pure(name)
            | Self::Simulated(name)
            | Self::Cluster(name) => name,
            Self::CrashMatrix(_) => "every_call_crossed_with_every_outcome",
        }
    }
}

#[test]
#[ignore = "takes long: make test-all runs it"]
fn without_its_defence_each_test_turns_red() {
    let wanted = std::env::var("CONTROL").unwrap_or_default();
    let is_wanted = |control: &&Control| wanted.split('|').any(|begin| control.defence.starts_with(begin));
    for begin in wanted.split('|') {
        let is_one = controls::ALL.iter().any(|control| control.defence.starts_with(begin));
        assert!(is_one, "no defence begins with {begin:?}");
    }
    let controls: Vec<&Control> = controls::ALL.iter().filter(is_wanted).collect();
    let mut tree = Tree::copy(Path::new(env!("CARGO_MANIFEST_DIR")));
    let tests: Vec<Red> = controls.iter().flat_map(|control| control.red).copied().collect();
    let started = Instant::now();
    let mut complaints = tree.measure(&tests);
    eprintln!("with every defence: {} s", started.elapsed().as_secs());
    for Control { defence, file, with, without, red, .. } in &controls {
        let started = Instant::now();
        match tree.without(file, with, without, || tree.colours(red)) {
            Err(why) => complaints.push(format!("{defence}: {why}")),
            Ok(colours) => {
                eprintln!("without: {defence}: {colours:?} after {} s", started.elapsed().as_secs());
                let green = colours.iter().filter(|(_, colour)| *colour == Colour::Green);
                complaints
                    .extend(green.map(|(red, _)| format!("{red:?} does not turn red without: {defence}")));
            }
        }
    }
    eprintln!("{} defences were switched off", controls.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
