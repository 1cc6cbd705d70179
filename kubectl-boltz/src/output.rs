//! What is written, and where.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::io::{BufRead, Write};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// With more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only.
    Name,
}

impl Format {
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// Writes the value as JSON or YAML; otherwise that text.
    pub fn write(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let unwritable = |error: &dyn std::fmt::Display| {
            Failure::Other(format!("cannot be written: {error}\nnext: kubectl boltz version"))
        };
        match self {
            Self::Json => {
                let text = serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))?;
                print(&(text + "\n"))
            }
            Self::Yaml => print(&serde_saphyr::to_string(value).map_err(|error| unwritable(&error))?),
            _ => print(&text()),
        }
    }
}

/// Objects as kubectl lists them.
pub fn list_of(items: Vec<Json>) -> Json {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
}

/// Writes to standard output, without styles where it is no terminal or NO_COLOR is set.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = anstream::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        // As in `kubectl boltz list | head`.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Other(format!(
            "cannot write: {error}\nnext: kubectl boltz version  # to a terminal"
        ))),
        _ => Ok(()),
    }
}

/// Progress and questions, to standard error.
pub fn tell(text: &str) {
    // Nobody is there to read it.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// What was typed, as kubectl runs it.
fn this_command() -> String {
    let arguments = std::env::args().skip(1).map(|argument| crate::words::plain(&argument));
    ["kubectl boltz".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Asks for a word on the terminal. Without `yes`, and without that word, nothing is done.
pub fn confirm(question: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    tell(&format!("{question}\nType {word} to go on:"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == word {
        return Ok(());
    }
    Err(Failure::Other(format!("nothing was done: the word was not typed\nnext: {} --yes", this_command())))
}
