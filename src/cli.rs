//! Flags and environment variables. Wrong ones end the process at once, with one line.

use crate::{
    duration::{InvalidDuration, parse_duration},
    protocol::marker::ClusterName,
};
use clap::{Parser, ValueEnum};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Kubernetes operator that creates, stores, rotates and revokes API keys of the Boltz API.
///
/// The admin key comes from --admin-key-file or from the environment variable BOLTZ_API_KEY, never from a flag. The
/// cluster is found as kubectl finds it: in-cluster, else through KUBECONFIG. Durations are written as in Kubernetes:
/// 90s, 30m, 720h.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Config {
    /// Where Boltz's API is. http:// only to loopback, or with --allow-insecure-http.
    #[arg(
        long,
        env = "BOLTZ_BASE_URL",
        default_value = "https://api.boltz.bio",
        value_name = "URL",
        help_heading = "Boltz"
    )]
    pub boltz_base_url: String,

    /// A PEM file with further root certificates for Boltz; Mozilla's are compiled in.
    #[arg(long, env = "BOLTZ_OPERATOR_BOLTZ_CA_FILE", value_name = "FILE", help_heading = "Boltz")]
    pub boltz_ca_file: Option<PathBuf>,

    /// Allows http:// to hosts other than loopback: the admin key and every new key then cross the network readable.
    #[arg(long, env = "BOLTZ_OPERATOR_ALLOW_INSECURE_HTTP", help_heading = "Boltz")]
    pub allow_insecure_http: bool,

    /// The file with Boltz's admin key, read again when it changes. Default: the environment variable BOLTZ_API_KEY.
    #[arg(long, env = "BOLTZ_OPERATOR_ADMIN_KEY_FILE", value_name = "FILE", help_heading = "Boltz")]
    pub admin_key_file: Option<PathBuf>,

    /// How long one call to Boltz may take.
    #[arg(long, env = "BOLTZ_OPERATOR_REQUEST_TIMEOUT", default_value = "30s", value_parser = positive, value_name = "DURATION", help_heading = "Boltz")]
    pub request_timeout: Duration,

    /// The time between full passes over Boltz's list of keys.
    #[arg(long, env = "BOLTZ_OPERATOR_INVENTORY_INTERVAL", default_value = "10m", value_parser = positive, value_name = "DURATION", help_heading = "Boltz")]
    pub inventory_interval: Duration,

    /// How long an unanswered request for a key may still take effect at Boltz. Half of it is the time in which a new
    /// key must be stored.
    #[arg(long, env = "BOLTZ_OPERATOR_SETTLE_TIME", default_value = "2m", value_parser = positive, value_name = "DURATION", help_heading = "Boltz")]
    pub settle_time: Duration,

    /// At most this many new keys per minute, over all objects.
    #[arg(long, env = "BOLTZ_OPERATOR_MAX_MINTS_PER_MINUTE", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT", help_heading = "Boltz")]
    pub max_mints_per_minute: u32,

    /// Part of the name of every key at Boltz, by which this cluster knows its own: 1 to 16 characters of a-z, 0-9
    /// and '-'. Default: from the UID of the namespace kube-system, which a cloned cluster shares with its source.
    #[arg(long, env = "BOLTZ_OPERATOR_CLUSTER_NAME", value_name = "NAME", help_heading = "Scope")]
    pub cluster_name: Option<ClusterName>,

    /// Earlier names of this cluster, comma-separated: keys with these are ours too.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_FORMER_CLUSTER_NAMES",
        value_delimiter = ',',
        value_name = "NAMES",
        help_heading = "Scope"
    )]
    pub former_cluster_names: Vec<ClusterName>,

    /// Watches these namespaces only, comma-separated. Needs --cluster-name, another one for each installation.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACES",
        help_heading = "Scope"
    )]
    pub watch_namespaces: Vec<String>,

    /// Watches only objects with these labels, for example shard=a.
    #[arg(long, env = "BOLTZ_OPERATOR_LABEL_SELECTOR", value_name = "SELECTOR", help_heading = "Scope")]
    pub label_selector: Option<String>,

    /// How many objects are reconciled at once.
    #[arg(long, env = "BOLTZ_OPERATOR_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT", help_heading = "Scope")]
    pub concurrency: u16,

    /// What is done about active keys with this cluster's marker that no object and no Secret accounts for. `revoke`
    /// is refused with --watch-namespaces and --label-selector: the keys of other installations would look orphaned.
    #[arg(long, env = "BOLTZ_OPERATOR_ORPHAN_POLICY", value_enum, default_value_t = OrphanPolicy::Report, help_heading = "Scope")]
    pub orphan_policy: OrphanPolicy,

    /// How long an orphaned key is left alone before it is revoked.
    #[arg(long, env = "BOLTZ_OPERATOR_ORPHAN_GRACE", default_value = "1h", value_parser = positive, value_name = "DURATION", help_heading = "Scope")]
    pub orphan_grace: Duration,

    /// Only the holder of a Lease works; others stand by. `false` for a single replica without rights on leases.
    #[arg(long, env = "BOLTZ_OPERATOR_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Leader election")]
    pub leader_elect: bool,

    /// The name of the Lease.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LEASE_NAME",
        default_value = "boltz-operator",
        value_name = "NAME",
        help_heading = "Leader election"
    )]
    pub lease_name: String,

    /// The namespace of the Lease. Default: the operator's own.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LEASE_NAMESPACE",
        value_name = "NAMESPACE",
        help_heading = "Leader election"
    )]
    pub lease_namespace: Option<String>,

    /// Where /metrics, /healthz and /readyz are served.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS",
        help_heading = "Observability"
    )]
    pub listen: SocketAddr,

    /// The format of the log on standard error. RUST_LOG sets its level, for example RUST_LOG=debug.
    #[arg(long, env = "BOLTZ_OPERATOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json, help_heading = "Observability")]
    pub log_format: LogFormat,
}

/// What is done about orphaned keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrphanPolicy {
    /// They are counted and logged.
    Report,
    /// They are revoked after a grace.
    Revoke,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// The process has no configuration to run with.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Help or the version was asked for.
    #[error("{0}")]
    Help(String),
    /// clap does not take the flags; one line that names the flag.
    #[error("{0}")]
    Arguments(String),
    /// Flags that do not go together, or a value that cannot be used.
    #[error("{flag}: {wants}")]
    Flag {
        /// The flag to change.
        flag: &'static str,
        /// What it takes.
        wants: String,
    },
}

impl ConfigError {
    /// Whether this is no failure: the text is the answer.
    pub fn is_help(&self) -> bool {
        matches!(self, Self::Help(_))
    }

    fn from_clap(error: clap::Error) -> Self {
        let text = error.to_string();
        if !error.use_stderr() {
            return Self::Help(text);
        }
        // What is wrong and, where clap says it, what would be right: the first paragraph, as one line.
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        Self::Arguments(lines.join(" ").trim_start_matches("error: ").to_owned())
    }
}

impl Config {
    /// The configuration of this process, from its flags and environment.
    pub fn from_process() -> Result<Self, ConfigError> {
        let config = Self::try_parse().map_err(ConfigError::from_clap)?;
        config.check()?;
        Ok(config)
    }

    /// What no single flag can check.
    fn check(&self) -> Result<(), ConfigError> {
        let error = |flag, wants: &str| Err(ConfigError::Flag { flag, wants: wants.to_owned() });
        self.check_base_url()?;
        if !self.watch_namespaces.is_empty() && self.cluster_name.is_none() {
            return error(
                "--cluster-name",
                "must be given with --watch-namespaces, another one for each installation",
            );
        }
        if self.orphan_policy == OrphanPolicy::Revoke
            && !(self.watch_namespaces.is_empty() && self.label_selector.is_none())
        {
            return error(
                "--orphan-policy",
                "revoke cannot go with --watch-namespaces or --label-selector: the keys of other installations would \
                 look orphaned",
            );
        }
        if self.watch_namespaces.iter().any(String::is_empty) {
            return error(
                "--watch-namespaces",
                "wants names of namespaces, comma-separated, none of them empty",
            );
        }
        if self.label_selector.as_deref().is_some_and(|selector| selector.trim().is_empty()) {
            return error("--label-selector", "wants a label selector such as shard=a");
        }
        if self.admin_key_file.is_none() && std::env::var_os("BOLTZ_API_KEY").is_none_or(|key| key.is_empty())
        {
            return error(
                "--admin-key-file",
                "wants the file with Boltz's admin key; or set the environment variable BOLTZ_API_KEY",
            );
        }
        Ok(())
    }

    fn check_base_url(&self) -> Result<(), ConfigError> {
        let error =
            |wants: &str| Err(ConfigError::Flag { flag: "--boltz-base-url", wants: wants.to_owned() });
        let Ok(uri) = self.boltz_base_url.parse::<http::Uri>() else {
            return error("wants a URL such as https://api.boltz.bio");
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some()
        {
            return error("wants a URL without user and query");
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") if !host.is_empty() => Ok(()),
            Some("http") if is_loopback || (self.allow_insecure_http && !host.is_empty()) => Ok(()),
            Some("http") => error("wants https://; http:// only to loopback or with --allow-insecure-http"),
            _ => error("wants a URL such as https://api.boltz.bio"),
        }
    }
}

fn positive(text: &str) -> Result<Duration, InvalidDuration> {
    parse_duration(text).and_then(|duration| {
        if duration.is_zero() { Err(InvalidDuration(text.to_owned())) } else { Ok(duration) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<(), String> {
        let defaults = ["boltz-operator", "--admin-key-file", "/key"];
        let config =
            Config::try_parse_from(defaults.iter().chain(arguments)).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_hold() {
        assert_eq!(config(&[]), Ok(()));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (arguments, flag) in [
            (vec!["--boltz-base-url", "http://boltz.example"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "boltz"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "https://user:secret@boltz.example"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "https://boltz.example/?a=b"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "ftp://boltz.example"], "--boltz-base-url"),
            (vec!["--cluster-name", "Prod"], "--cluster-name"),
            (vec!["--watch-namespaces", "a,b"], "--cluster-name"),
            (vec!["--watch-namespaces", "a,", "--cluster-name", "c"], "--watch-namespaces"),
            (
                vec!["--watch-namespaces", "a", "--cluster-name", "c", "--orphan-policy", "revoke"],
                "--orphan-policy",
            ),
            (vec!["--label-selector", "a=b", "--orphan-policy", "revoke"], "--orphan-policy"),
            (vec!["--settle-time", "0s"], "--settle-time"),
            (vec!["--request-timeout", "30"], "--request-timeout"),
            (vec!["--concurrency", "0"], "--concurrency"),
            (vec!["--max-mints-per-minute", "0"], "--max-mints-per-minute"),
            (vec!["--listen", "nowhere"], "--listen"),
            (vec!["--log-format", "xml"], "--log-format"),
        ] {
            let error = config(&arguments).unwrap_err();
            assert!(error.lines().next().unwrap().contains(flag), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn http_goes_to_loopback_or_when_allowed() {
        for arguments in [
            &["--boltz-base-url", "http://127.0.0.1:8099"][..],
            &["--boltz-base-url", "http://[::1]:8099"],
            &["--boltz-base-url", "http://localhost"],
            &["--boltz-base-url", "http://boltz.example", "--allow-insecure-http"],
        ] {
            assert_eq!(config(arguments), Ok(()), "{arguments:?}");
        }
    }
}
