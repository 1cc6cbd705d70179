//! What a process uses, as the kernel counts it.

use crate::BenchError;
use nix::{time::ClockId, unistd::Pid};
use std::time::Duration;

/// The CPU time of all its threads, also of those that have ended.
pub fn cpu(pid: u32) -> Result<Duration, BenchError> {
    let time = i32::try_from(pid)
        .map_err(|error| BenchError::Unexpected(error.to_string()))
        .and_then(|pid| Ok(ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?.now()?))?;
    Ok(time.into())
}

/// Resident memory now, in MB (1,000,000 bytes).
pub fn resident(pid: u32) -> Result<f64, BenchError> {
    field(pid, "VmRSS:")
}

/// The largest resident memory since the start, or since [`forget_peak`], in MB.
pub fn peak(pid: u32) -> Result<f64, BenchError> {
    field(pid, "VmHWM:")
}

/// Begins to measure the peak anew. The process is not dumpable, so this needs root.
pub fn forget_peak(pid: u32) -> Result<(), BenchError> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .map_err(BenchError::io("clear_refs (run it as root)"))
}

fn field(pid: u32, name: &str) -> Result<f64, BenchError> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(BenchError::io("read /proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse::<f64>().ok());
    let kib = kib.ok_or_else(|| BenchError::Unexpected(format!("/proc/{pid}/status has no {name}")))?;
    Ok(kib * 1024.0 / 1e6)
}
