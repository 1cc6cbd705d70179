//! The log.

use crate::cli::LogFormat;
use std::io::IsTerminal;
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, Targets, filter_fn},
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
    filter: reload::Handle<Targets, Registry>,
    is_raised: bool,
}

impl LogLevel {
    /// Raises the level of the operator's own lines to DEBUG, or restores the configured level.
    pub fn switch(&mut self) {
        let filter = configured();
        let filter =
            if self.is_raised { filter } else { filter.with_target("boltz_operator", LevelFilter::DEBUG) };
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

/// What `RUST_LOG` says, and INFO for what it does not name.
fn configured() -> Targets {
    targets(&std::env::var("RUST_LOG").unwrap_or_default())
}

/// Levels and pairs of target and level, comma-separated. What cannot be read is ignored.
fn targets(text: &str) -> Targets {
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let parsed = directives.filter_map(|directive| directive.parse::<Targets>().ok());
    parsed.fold(Targets::new().with_default(LevelFilter::INFO), |all, one| {
        let all = one.default_level().into_iter().fold(all, Targets::with_default);
        all.with_targets(one)
    })
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
    fn what_the_environment_does_not_name_is_logged_at_info() {
        for (text, own, others) in [
            ("", LevelFilter::INFO, LevelFilter::INFO),
            ("warn", LevelFilter::WARN, LevelFilter::WARN),
            ("boltz_operator=debug", LevelFilter::DEBUG, LevelFilter::INFO),
            ("error, boltz_operator=trace", LevelFilter::TRACE, LevelFilter::ERROR),
            ("boltz_operator=nonsense", LevelFilter::INFO, LevelFilter::INFO),
        ] {
            let targets = targets(text);
            let level = |target: &str| {
                [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
                    .into_iter()
                    .find(|level| targets.would_enable(target, level))
            };
            assert_eq!(level("boltz_operator::plan"), own.into_level(), "{text}");
            assert_eq!(level("kube_runtime"), others.into_level(), "{text}");
        }
    }

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
