//! Flags and environment variables. An invalid one ends the process with a message of one line.

use crate::{
    duration::parse_positive_duration,
    listen::parse_listen,
    protocol::marker::{ClusterName, MarkerFormat},
};
use clap::{Parser, ValueEnum};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Kubernetes operator that creates, stores, rotates and revokes API keys of the Boltz API.
///
/// The admin key is read from --admin-key-file or from the environment variable BOLTZ_API_KEY. The operator connects to
/// the cluster it runs in or, outside a cluster, to the one in KUBECONFIG. Durations are written as in Kubernetes: 90s,
/// 30m, 720h. If a flag is given twice, the last value counts; lists
/// are joined.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 110, args_override_self = true)]
pub struct Config {
    /// URL of the Boltz API. http:// is allowed for loopback addresses, or with --allow-insecure-http.
    #[arg(
        long,
        env = "BOLTZ_BASE_URL",
        default_value = "https://api.boltz.bio",
        value_name = "URL",
        help_heading = "Boltz"
    )]
    pub boltz_base_url: String,

    /// PEM file with root certificates to trust for Boltz, in addition to the built-in Mozilla roots. It is reloaded when it
    /// changes.
    #[arg(long, env = "BOLTZ_OPERATOR_BOLTZ_CA_FILE", value_name = "FILE", help_heading = "Boltz")]
    pub boltz_ca_file: Option<PathBuf>,

    /// Allow http:// to hosts other than loopback. The admin key and all new keys are then sent unencrypted.
    #[arg(long, env = "BOLTZ_OPERATOR_ALLOW_INSECURE_HTTP", help_heading = "Boltz")]
    pub allow_insecure_http: bool,

    /// File with the Boltz admin key. It is reloaded when it changes. Default: the environment variable BOLTZ_API_KEY.
    #[arg(long, env = "BOLTZ_OPERATOR_ADMIN_KEY_FILE", value_name = "FILE", help_heading = "Boltz")]
    pub admin_key_file: Option<PathBuf>,

    /// Also serve the BoltzAccounts of the cluster: objects choose one with spec.accountRef. Without it, and as long as none is
    /// annotated as the default, the account of --admin-key-file is used.
    #[arg(long, env = "BOLTZ_OPERATOR_BOLTZ_ACCOUNTS", help_heading = "Boltz")]
    pub boltz_accounts: bool,

    /// URLs of the Boltz API that BoltzAccounts may have, besides --boltz-base-url; comma-separated.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_ALLOWED_BOLTZ_URLS",
        value_delimiter = ',',
        value_name = "URLS",
        help_heading = "Boltz"
    )]
    pub allowed_boltz_urls: Vec<String>,

    /// Timeout of one call to Boltz.
    #[arg(long, env = "BOLTZ_OPERATOR_REQUEST_TIMEOUT", default_value = "30s", value_parser = parse_positive_duration, value_name = "DURATION", help_heading = "Boltz")]
    pub request_timeout: Duration,

    /// How often the full list of keys is read from Boltz.
    #[arg(long, env = "BOLTZ_OPERATOR_INVENTORY_INTERVAL", default_value = "10m", value_parser = parse_positive_duration, value_name = "DURATION", help_heading = "Boltz")]
    pub inventory_interval: Duration,

    /// How long Boltz may still execute a request for a key that got no response. A new key must be stored within half
    /// of this time.
    #[arg(long, env = "BOLTZ_OPERATOR_SETTLE_TIME", default_value = "2m", value_parser = parse_positive_duration, value_name = "DURATION", help_heading = "Boltz")]
    pub settle_time: Duration,

    /// Maximum number of new keys per minute, for all objects together. A minute's worth may be used at once; a new
    /// leader begins with a tenth of that.
    #[arg(long, env = "BOLTZ_OPERATOR_MAX_MINTS_PER_MINUTE", default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT", help_heading = "Boltz")]
    pub max_mints_per_minute: u32,

    /// Maximum number of new keys per minute for each namespace. Default: no limit of its own.
    #[arg(long, env = "BOLTZ_OPERATOR_MAX_MINTS_PER_NAMESPACE", value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT", help_heading = "Boltz")]
    pub max_mints_per_namespace: Option<u32>,

    /// Move to another Boltz organization: its id. Without it, an admin key of another organization than before is not
    /// used. Keys of the former organization stay valid there; the operator cannot revoke them any more.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_ACCEPT_ORGANIZATION",
        value_name = "ORGANIZATION_ID",
        help_heading = "Boltz"
    )]
    pub accept_organization: Option<String>,

    /// Issue keys again after Boltz changed the name of a new key. Without it, no keys are issued any more after that: a
    /// key without its name cannot be found again.
    #[arg(long, env = "BOLTZ_OPERATOR_RETRY_ALTERED_NAMES", help_heading = "Boltz")]
    pub retry_altered_names: bool,

    /// Name of this cluster, 1 to 16 characters from a-z, 0-9 and '-'. It is part of every key's name at Boltz and
    /// identifies the keys of this cluster. Default: derived from the UID of the namespace kube-system. A cloned
    /// cluster has the same UID, so give it a name.
    #[arg(long, env = "BOLTZ_OPERATOR_CLUSTER_NAME", value_name = "NAME", help_heading = "Scope")]
    pub cluster_name: Option<ClusterName>,

    /// Earlier names of this cluster, comma-separated. Keys with these names are also managed.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_FORMER_CLUSTER_NAMES",
        value_delimiter = ',',
        value_name = "NAMES",
        help_heading = "Scope"
    )]
    pub former_cluster_names: Vec<ClusterName>,

    /// Format of the markers in the names of new keys. 2 leaves more room for the display name. Keys with either are
    /// managed. An operator of 0.1.0 does not know keys with 2.
    #[arg(long, env = "BOLTZ_OPERATOR_MARKER_FORMAT", value_enum, default_value_t = MarkerFormat::One, value_name = "FORMAT", help_heading = "Scope")]
    pub marker_format: MarkerFormat,

    /// Namespaces to watch, comma-separated. Default: all. Requires --cluster-name, which several
    /// installations in one cluster may share.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACES",
        help_heading = "Scope"
    )]
    pub watch_namespaces: Vec<String>,

    /// Watch only BoltzApiKeys that match this label selector, for example shard=a.
    #[arg(long, env = "BOLTZ_OPERATOR_LABEL_SELECTOR", value_name = "SELECTOR", help_heading = "Scope")]
    pub label_selector: Option<String>,

    /// Maximum number of objects reconciled at the same time.
    #[arg(long, env = "BOLTZ_OPERATOR_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT", help_heading = "Scope")]
    pub concurrency: u16,

    /// What to do with orphaned keys: active keys of this cluster that no BoltzApiKey and no Secret refers to. `revoke`
    /// cannot be combined with --watch-namespaces or --label-selector, because the keys of other installations would
    /// look orphaned.
    #[arg(long, env = "BOLTZ_OPERATOR_ORPHAN_POLICY", value_enum, default_value_t = OrphanPolicy::Report, help_heading = "Scope")]
    pub orphan_policy: OrphanPolicy,

    /// How long a key must be orphaned before it is revoked.
    #[arg(long, env = "BOLTZ_OPERATOR_ORPHAN_GRACE", default_value = "1h", value_parser = parse_positive_duration, value_name = "DURATION", help_heading = "Scope")]
    pub orphan_grace: Duration,

    /// Use a Lease to elect one active replica. Set it to false only for a single replica.
    #[arg(long, env = "BOLTZ_OPERATOR_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Leader election")]
    pub leader_elect: bool,

    /// Name of the Lease.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LEASE_NAME",
        default_value = "boltz-operator",
        value_name = "NAME",
        help_heading = "Leader election"
    )]
    pub lease_name: String,

    /// Namespace of the Lease. Default: the namespace of the operator.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LEASE_NAMESPACE",
        value_name = "NAMESPACE",
        help_heading = "Leader election"
    )]
    pub lease_namespace: Option<String>,

    /// Metrics of each object, with its namespace and name as labels. Set it to false if there are too many objects for
    /// Prometheus: the alerts about single objects then never fire, except BoltzApiKeyMintLoop.
    #[arg(long, env = "BOLTZ_OPERATOR_METRICS_PER_OBJECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Observability")]
    pub metrics_per_object: bool,

    /// Address that serves /metrics, /healthz, /readyz and, for clients in the pod, /debug. A port alone, as in :8080, is
    /// every address, IPv6 and IPv4.
    #[arg(
        long,
        env = "BOLTZ_OPERATOR_LISTEN",
        default_value = ":8080",
        value_parser = parse_listen,
        value_name = "ADDRESS",
        help_heading = "Observability"
    )]
    pub listen: SocketAddr,

    /// Format of the log on standard error. Set the log level with RUST_LOG, for example RUST_LOG=debug.
    #[arg(long, env = "BOLTZ_OPERATOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json, help_heading = "Observability")]
    pub log_format: LogFormat,
}

/// What to do with orphaned keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrphanPolicy {
    /// Count and log them.
    Report,
    /// Revoke them after --orphan-grace.
    Revoke,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Readable text.
    Text,
}

/// The configuration is invalid, or help was requested.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Help or the version was requested.
    #[error("{0}")]
    Help(String),
    /// clap rejected the flags. One line that names the flag.
    #[error("{0}")]
    Arguments(String),
    /// Flags that cannot be combined, or an invalid value.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag to change.
        flag: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
}

impl ConfigError {
    /// Whether the text is the help or the version, and no failure.
    pub fn is_help(&self) -> bool {
        matches!(self, Self::Help(_))
    }

    fn from_clap(error: clap::Error) -> Self {
        let text = error.to_string();
        if !error.use_stderr() {
            return Self::Help(text);
        }
        // The first paragraph, as one line.
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

    /// Checks that involve more than one flag.
    fn check(&self) -> Result<(), ConfigError> {
        let error = |flag, problem: &str| Err(ConfigError::Flag { flag, problem: problem.to_owned() });
        self.check_url("--boltz-base-url", &self.boltz_base_url)?;
        for url in &self.allowed_boltz_urls {
            self.check_url("--allowed-boltz-urls", url)?;
        }
        if !self.watch_namespaces.is_empty() && self.cluster_name.is_none() {
            return error(
                "--cluster-name",
                "required with --watch-namespaces; several installations in one cluster may share a name",
            );
        }
        if self.orphan_policy == OrphanPolicy::Revoke
            && !(self.watch_namespaces.is_empty() && self.label_selector.is_none())
        {
            return error(
                "--orphan-policy",
                "revoke cannot be combined with --watch-namespaces or --label-selector, because the keys of other \
                 installations would look orphaned",
            );
        }
        if self.watch_namespaces.iter().any(String::is_empty) {
            return error(
                "--watch-namespaces",
                "must be a comma-separated list of namespace names without empty entries",
            );
        }
        if self.label_selector.as_deref().is_some_and(|selector| selector.trim().is_empty()) {
            return error("--label-selector", "must be a label selector such as shard=a");
        }
        if !self.has_admin_key() && !self.boltz_accounts {
            return error(
                "--admin-key-file",
                "required, unless the environment variable BOLTZ_API_KEY is set, or with --boltz-accounts",
            );
        }
        Ok(())
    }

    /// Whether the flags or the environment name an admin key.
    pub(crate) fn has_admin_key(&self) -> bool {
        let is_set = || std::env::var_os("BOLTZ_API_KEY").is_some_and(|key| !key.is_empty());
        self.admin_key_file.is_some() || is_set()
    }

    fn check_url(&self, flag: &'static str, url: &str) -> Result<(), ConfigError> {
        let error = |problem: &str| Err(ConfigError::Flag { flag, problem: problem.to_owned() });
        let Ok(uri) = url.parse::<http::Uri>() else {
            return error("must be a URL such as https://api.boltz.bio");
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some()
        {
            return error("must not contain a user or a query");
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") if !host.is_empty() => Ok(()),
            Some("http") if is_loopback || (self.allow_insecure_http && !host.is_empty()) => Ok(()),
            Some("http") => error(
                "must start with https:// (http:// is allowed for loopback addresses, or with --allow-insecure-http)",
            ),
            _ => error("must be a URL such as https://api.boltz.bio"),
        }
    }
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

    /// As of the flags of Kubernetes' own programs, so that something can be added to what a chart has set.
    #[test]
    fn the_last_value_of_a_flag_counts() {
        let flags = [
            "",
            "--listen=:1",
            "--watch-namespaces=a,b",
            "--listen=:2",
            "--leader-elect",
            "--leader-elect=false",
        ];
        let config = Config::try_parse_from(flags).unwrap();
        assert_eq!((config.listen.port(), config.leader_elect), (2, false));
        let config = Config::try_parse_from(flags.iter().chain(&["--watch-namespaces=c"])).unwrap();
        assert_eq!(config.watch_namespaces, ["a", "b", "c"]);
    }

    #[test]
    fn wrong_flags_are_named() {
        for (arguments, flag) in [
            (vec!["--boltz-base-url", "http://boltz.example"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "boltz"], "--boltz-base-url"),
            (vec!["--allowed-boltz-urls", "https://a.example,http://b.example"], "--allowed-boltz-urls"),
            (vec!["--boltz-base-url", "https://user:secret@boltz.example"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "https://boltz.example/?a=b"], "--boltz-base-url"),
            (vec!["--boltz-base-url", "ftp://boltz.example"], "--boltz-base-url"),
            (vec!["--cluster-name", "Prod"], "--cluster-name"),
            (vec!["--marker-format", "3"], "--marker-format"),
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
            (vec!["--max-mints-per-namespace", "0"], "--max-mints-per-namespace"),
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
