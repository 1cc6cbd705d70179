//! What can go wrong. Each message names the next command.

use std::time::Duration;

/// The exit code of a verb that was carried out and found something that is not ready.
pub const NOT_READY: u8 = 2;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No kubeconfig, or an unusable one.
    #[error("no usable kubeconfig: {0}\nnext: kubectl config get-contexts")]
    Config(String),
    /// The API server does not respond.
    #[error("the API server cannot be reached: {0}\nnext: kubectl cluster-info")]
    Unreachable(String),
    /// RBAC.
    #[error("you may not {verb} {resource} {place}\nnext: kubectl auth can-i {verb} {resource}{flags}", place = place(.namespace), flags = flags(.namespace))]
    Forbidden {
        verb: &'static str,
        resource: &'static str,
        /// `None`: in all namespaces.
        namespace: Option<String>,
    },
    /// There is no such object.
    #[error(
        "BoltzApiKey {name} does not exist in the namespace {namespace}\nnext: kubectl boltz list --namespace {namespace}, or kubectl boltz list -A"
    )]
    NotFound { namespace: String, name: String },
    /// The CRD is missing.
    #[error(
        "this cluster does not know BoltzApiKeys: boltz-operator is not installed\nnext: kubectl boltz doctor"
    )]
    NoCrd,
    /// The API server refused for another reason.
    #[error("the API server refused to {verb} {resource}: {message}\nnext: {next}")]
    Refused { verb: &'static str, resource: &'static str, message: String, next: &'static str },
    /// It did not come about in time.
    #[error("{what} did not happen within {}\n{state}\nnext: {next}", crate::words::duration(jiff::SignedDuration::try_from(*.after).unwrap_or_default()))]
    Timeout { what: String, after: Duration, state: String, next: String },
    /// It cannot come about as things are.
    #[error("{0}")]
    NotReady(String),
    /// Everything else; with the next command in it.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Timeout { .. } => 3,
            Self::NotReady(_) => NOT_READY,
            _ => 1,
        }
    }

    /// Translates an answer of the API server.
    pub fn from_kube(
        error: kube::Error,
        verb: &'static str,
        resource: &'static str,
        namespace: Option<&str>,
    ) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 && is_rbac(&status.message) => {
                Self::Forbidden { verb, resource, namespace: namespace.map(str::to_owned) }
            }
            kube::Error::Api(status) if status.code == 404 && resource == "boltzapikeys" => Self::NoCrd,
            kube::Error::Api(status) if status.code == 401 => Self::Refused {
                verb,
                resource,
                message: "your credentials are not valid (401)".to_owned(),
                next: "kubectl auth whoami",
            },
            kube::Error::Api(status) => Self::Refused {
                verb,
                resource,
                message: crate::words::plain(&status.message),
                next: "kubectl boltz doctor",
            },
            error @ kube::Error::Auth(_) => Self::Config(chain(&error)),
            error => Self::Unreachable(chain(&error)),
        }
    }

    /// In one line, for a part of what is shown.
    pub fn short(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }
}

/// An admission policy answers with 403 too.
fn is_rbac(message: &str) -> bool {
    message.contains("cannot ")
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn place(namespace: &Option<String>) -> String {
    namespace
        .as_ref()
        .map_or_else(|| "in all namespaces".to_owned(), |name| format!("in the namespace {name}"))
}

fn flags(namespace: &Option<String>) -> String {
    namespace.as_ref().map_or_else(
        || " -A (or name a namespace that you may read: --namespace NAME)".to_owned(),
        |name| format!(" --namespace {name} (an administrator can bind the ClusterRole view or edit to you)"),
    )
}
