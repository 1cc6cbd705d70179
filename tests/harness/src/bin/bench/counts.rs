//! What a stretch of the audit log says.

use boltz_harness::AuditEvent;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Calls about objects and their Secrets.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub dry_runs: usize,
    pub writes: usize,
    pub status_writes: usize,
    /// Patches of objects that are not about the status.
    pub object_writes: usize,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// Every call by verb and resource, also those about leases and events.
    pub by_kind: BTreeMap<String, usize>,
}

impl Counts {
    pub fn of(events: &[AuditEvent]) -> Self {
        let mut counts = Self::default();
        for event in events {
            let part = match event.object_ref.subresource.as_str() {
                "" => String::new(),
                part => format!("/{part}"),
            };
            let dry = if event.is_dry_run() { " (dry run)" } else { "" };
            let kind = format!("{} {}{part}{dry}", event.verb, event.object_ref.resource);
            *counts.by_kind.entry(kind).or_default() += 1;
            let resource = event.object_ref.resource.as_str();
            if !matches!(resource, "boltzapikeys" | "secrets") {
                continue;
            }
            if event.is_dry_run() || event.is_write() {
                counts.first = Some(counts.first.map_or(event.received, |first| first.min(event.received)));
                counts.last = Some(counts.last.map_or(event.answered, |last| last.max(event.answered)));
            }
            counts.dry_runs += usize::from(event.is_dry_run());
            counts.writes += usize::from(event.is_write());
            let is_done = event.is_write() && event.response_status.code < 300;
            if is_done && resource == "boltzapikeys" {
                match event.object_ref.subresource.as_str() {
                    "status" => counts.status_writes += 1,
                    _ => counts.object_writes += 1,
                }
            }
        }
        counts
    }

    /// From the first dry run or write to the response to the last.
    pub fn seconds(&self) -> f64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
            _ => 0.0,
        }
    }
}
