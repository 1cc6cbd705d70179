//! The figures: a table for people, JSON for programs.

use crate::BenchError;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::{path::Path, process::Command};

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Exactly(f64),
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => Some(value >= bound),
            Self::AtMost(bound) => Some(value <= bound),
            Self::Exactly(wanted) => Some((value - wanted).abs() < 0.005),
            Self::None => None,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub part: &'static str,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Goal,
    /// The values whose median it is.
    pub samples: Vec<f64>,
}

/// Memory at one number of objects, in MB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Growth {
    pub objects: usize,
    pub at_rest: f64,
    pub peak_at_start: f64,
    pub peak_in_a_pass: f64,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub figures: Vec<Figure>,
    pub growth: Vec<Growth>,
    /// What was seen besides.
    pub notes: Vec<String>,
}

impl Report {
    pub fn add(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) {
        self.add_samples(part, what, &[value], unit, goal);
    }

    /// The median of the samples.
    pub fn add_samples(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        samples: &[f64],
        unit: &'static str,
        goal: Goal,
    ) {
        let figure = Figure {
            part,
            what: what.into(),
            value: quantile(samples, 0.5),
            unit,
            goal,
            samples: samples.to_vec(),
        };
        eprintln!("  {}", line(&figure));
        self.figures.push(figure);
    }

    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("  {note}");
        self.notes.push(note);
    }

    /// Prints everything.
    pub fn print(&self) {
        println!(
            "{:<9} {:<66} {:>10} {:<6} {:>8} {:<3}  of",
            "part", "figure", "measured", "", "goal", "met"
        );
        self.figures.iter().for_each(|figure| println!("{}", line(figure)));
        if self.growth.len() > 1 {
            println!("\n{}", crate::plot::growth(&self.growth));
        }
        self.notes.iter().for_each(|note| println!("{note}"));
    }

    /// Writes everything, with the machine on which it was measured.
    pub fn write(&self, file: &Path, about: &Json) -> Result<(), BenchError> {
        let whole = json!({"about": about, "machine": machine(), "report": self});
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(BenchError::io("create the folder of the JSON"))?;
        }
        std::fs::write(file, format!("{whole:#}\n")).map_err(BenchError::io("write the JSON"))
    }
}

fn line(figure: &Figure) -> String {
    let goal = match figure.goal {
        Goal::AtLeast(bound) => format!(">= {bound}"),
        Goal::AtMost(bound) => format!("<= {bound}"),
        Goal::Exactly(wanted) => format!("= {wanted}"),
        Goal::None => "-".to_owned(),
    };
    let met = figure.goal.is_met(figure.value).map_or("", |met| if met { "yes" } else { "NO" });
    let Figure { part, what, value, unit, samples, .. } = figure;
    let spread = match samples.len() {
        0 | 1 => String::new(),
        count => format!("{count}: {:.2} to {:.2}", quantile(samples, 0.0), quantile(samples, 1.0)),
    };
    format!("{part:<9} {what:<66} {value:>10.3} {unit:<6} {goal:>8} {met:<3}  {spread}")
}

/// The value below which this share of the samples lies.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

fn machine() -> Json {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map(|line| line.trim_matches([':', ' ', '\t']).to_owned())
    };
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    json!({
        "cpu": value(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": value(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
        "commit": git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).ok(),
        "at": jiff::Timestamp::now(),
    })
}
