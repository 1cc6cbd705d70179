//! The metrics of the process that Prometheus' own client libraries also have, from /proc.

use super::catalog::{Computed, Series, single};
use jiff::Timestamp;
use prometheus_client::metrics::MetricType::{self, Counter, Gauge};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};
use std::fs;

#[derive(Debug)]
pub(super) struct Process {
    pub started_at: Timestamp,
}

const fn of_process(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: fn(&Process) -> Vec<Series>,
) -> Computed<Process> {
    Computed { name, help, kind, series }
}

/// One line for each metric.
pub(super) const PROCESS_METRICS: &[Computed<Process>] = &[
    of_process("cpu_seconds", "CPU time of the process", Counter, |_| {
        single(stat().map(|stat| exact(stat.cpu_ticks) / exact(clock_ticks_per_second())))
    }),
    of_process("resident_memory_bytes", "Resident memory", Gauge, |_| {
        single(stat().map(|stat| exact(stat.resident_pages) * count(page_size())))
    }),
    of_process("virtual_memory_bytes", "Virtual memory", Gauge, |_| {
        single(stat().map(|stat| exact(stat.virtual_bytes)))
    }),
    of_process("threads", "Threads", Gauge, |_| single(stat().map(|stat| exact(stat.threads)))),
    // The folder itself is not readable without core dumps; since Linux 6.2 its size is their number.
    of_process("open_fds", "Open file descriptors; absent if Linux is older than 6.2", Gauge, |_| {
        let number = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len());
        single(number.filter(|number| *number > 0).map(exact))
    }),
    of_process("max_fds", "Limit of open file descriptors", Gauge, |_| {
        single(getrlimit(Resource::Nofile).current.map(exact))
    }),
    of_process("start_time_seconds", "Start of the process, in seconds since 1970", Gauge, |process| {
        single(Some(process.started_at.as_duration().as_secs_f64()))
    }),
];

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

fn stat() -> Option<Stat> {
    read_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Reads what proc_pid_stat(5) describes. The name of the program may contain spaces and parentheses.
fn read_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of these is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)?.checked_add(field(15)?)?,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn exact(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    exact(u64::try_from(number).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let line =
            "12 (a (b) c) S 1 12 12 0 -1 4194560 1 2 3 4 250 50 5 6 20 0 7 0 9 1000448 30 1844674407 1";
        let expected = Stat { cpu_ticks: 300, threads: 7, virtual_bytes: 1_000_448, resident_pages: 30 };
        assert_eq!(read_stat(line), Some(expected));
        assert_eq!(read_stat("12 (a) S 1"), None);
        assert!(stat().unwrap().resident_pages > 100, "{:?}", stat());
    }
}
