//! The log.

use crate::cli::LogFormat;
use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// Libraries that log frames, headers or whole bodies, which may contain a Secret. Whatever RUST_LOG says, they log at INFO
/// or above only, and those that log bodies at WARN do not log at all.
const QUIET: [&str; 9] =
    ["h2", "hyper", "hyper_util", "reqwest", "rustls", "tower", "tokio_rustls", "kube_client", "kube_core"];
/// kube logs the whole body of a response that cannot be decoded, at WARN. Its watcher warns at every retry; what it says is
/// logged by the operator, once a minute.
const SILENT: [&str; 3] = ["kube_client::client", "kube_client::api", "kube_runtime::watcher"];

/// The level of the log, which can be changed while the process runs.
#[derive(Clone, Debug)]
pub struct LogLevel {
    filter: reload::Handle<EnvFilter, Registry>,
    is_raised: bool,
}

impl LogLevel {
    /// Raises the level of the operator's own lines to DEBUG, or restores the configured level.
    pub fn switch(&mut self) {
        let raised = RAISED.parse().ok().filter(|_| !self.is_raised);
        let filter = raised.into_iter().fold(configured(), EnvFilter::add_directive);
        match self.filter.reload(filter) {
            Ok(()) => {
                self.is_raised = !self.is_raised;
                let log_level = if self.is_raised { "DEBUG" } else { "as configured" };
                tracing::info!(
                    log_level,
                    "received SIGHUP, changed the log level; another SIGHUP changes it back"
                );
            }
            Err(error) => tracing::error!(%error, "received SIGHUP, failed to change the log level"),
        }
    }
}

/// What SIGHUP adds.
const RAISED: &str = "boltz_operator=debug";

fn configured() -> EnvFilter {
    EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy()
}

/// Writes the log to standard error.
pub fn init(format: LogFormat) -> LogLevel {
    let (filter, handle) = reload::Layer::new(configured());
    let filter = filter.and(filter_fn(is_harmless));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => layer.compact().with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    LogLevel { filter: handle, is_raised: false }
}

/// Whether a log event of this target and level cannot contain a secret.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    is_harmless_at(metadata.target(), *metadata.level())
}

fn is_harmless_at(target: &str, level: Level) -> bool {
    let is_within = |module: &&str| {
        target.strip_prefix(*module).is_some_and(|path| path.is_empty() || path.starts_with("::"))
    };
    if SILENT.iter().any(is_within) {
        return false;
    }
    level <= Level::INFO || !QUIET.iter().any(is_within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_never_logged() {
        for (target, level) in [
            ("kube_client::client", Level::WARN),
            ("kube_client::client::builder", Level::ERROR),
            ("hyper::proto::h1::io", Level::TRACE),
            ("h2::codec::framed_write", Level::DEBUG),
            ("reqwest::connect", Level::TRACE),
            ("rustls::client::hs", Level::DEBUG),
            ("kube_runtime::watcher", Level::WARN),
        ] {
            assert!(!is_harmless_at(target, level), "{target} {level}");
        }
        for (target, level) in [
            ("boltz_operator::controller", Level::TRACE),
            ("kube_runtime::controller", Level::DEBUG),
            ("hyper", Level::WARN),
            ("hyperion", Level::TRACE),
        ] {
            assert!(is_harmless_at(target, level), "{target} {level}");
        }
    }
}
