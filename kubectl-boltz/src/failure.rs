//! What can go wrong. Each message names the next command.

use http::StatusCode;
use kube::core::Status;
use std::time::Duration;

/// The exit code of a verb that was carried out and found something that is not ready.
pub const NOT_READY: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No kubeconfig, or an unusable one.
    #[error("no usable kubeconfig: {0}\nnext: kubectl config get-contexts")]
    Config(String),
    /// The API server does not respond.
    #[error("the API server cannot be reached: {0}\nnext: kubectl cluster-info")]
    Unreachable(String),
    /// RBAC.
    #[error("you may not {verb} {resource} {place}\nnext: {next}", place = place(.namespace), next = next(verb, resource, .namespace))]
    Forbidden {
        verb: &'static str,
        resource: &'static str,
        /// `None`: in all namespaces.
        namespace: Option<String>,
    },
    /// There is no such object.
    #[error(
        "BoltzApiKey {name} does not exist in the namespace {namespace}\nnext: kubectl boltz list --namespace {namespace}  # everywhere: kubectl boltz list -A"
    )]
    NotFound { namespace: String, name: String },
    /// The CRD is missing.
    #[error(
        "this cluster does not know BoltzApiKeys: boltz-operator is not installed\nnext: kubectl boltz doctor"
    )]
    NoCrd,
    /// The API server refused for another reason.
    #[error("the API server refused to {verb} {resource}: {message}\nnext: {next}")]
    Refused { verb: &'static str, resource: &'static str, code: u16, message: String, next: &'static str },
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

    /// The same call may succeed a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { code, .. } => *code == StatusCode::TOO_MANY_REQUESTS || *code >= 500,
            _ => false,
        }
    }

    /// The API server has said no: the call has changed nothing.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Forbidden { .. } => true,
            Self::Refused { code, .. } => (400..500).contains(code),
            _ => false,
        }
    }

    /// The API server does not know such a kind.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == StatusCode::NOT_FOUND)
    }

    /// Translates an answer of the API server.
    pub fn from_kube(
        error: kube::Error,
        verb: &'static str,
        resource: &'static str,
        namespace: Option<&str>,
    ) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() && is_rbac(&status.message) => {
                Self::Forbidden { verb, resource, namespace: namespace.map(str::to_owned) }
            }
            kube::Error::Api(status) if is_not_found(&status) && resource == "boltzapikeys" => Self::NoCrd,
            kube::Error::Api(status) if status.code == StatusCode::UNAUTHORIZED => Self::Refused {
                verb,
                resource,
                code: status.code,
                message: "your credentials are not valid (401)".to_owned(),
                next: "kubectl auth whoami",
            },
            kube::Error::Api(status) => Self::Refused {
                verb,
                resource,
                code: status.code,
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

/// An API that is not installed is answered by a page of text, which kube does not take for "not found".
pub fn is_not_found(status: &Status) -> bool {
    status.is_not_found() || status.code == StatusCode::NOT_FOUND
}

/// An admission policy answers with 403 too, in its own words.
fn is_rbac(message: &str) -> bool {
    message.contains(" cannot ") && (message.contains(" resource \"") || message.contains(" path \""))
}

/// How to see what is allowed.
fn next(verb: &str, resource: &str, namespace: &Option<String>) -> String {
    // Not a right to a resource in a namespace.
    if verb == "discover" || resource.contains(' ') || resource.starts_with("selfsubject") {
        return "kubectl auth whoami".to_owned();
    }
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let subresource = match subresource {
        "" => String::new(),
        name => format!(" --subresource={name}"),
    };
    format!("kubectl auth can-i {verb} {resource}{subresource}{}", flags(namespace))
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
        || " -A  # or name a namespace that you may read: --namespace NAME".to_owned(),
        |name| {
            format!(" --namespace {name}  # an administrator can bind the ClusterRole view or edit to you")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_not_taken_for_a_missing_right() {
        for (message, is) in [
            (
                r#"pods is forbidden: User "a" cannot list resource "pods" in API group "" in the namespace "b""#,
                true,
            ),
            (r#"forbidden: User "a" cannot get path "/version""#, true),
            ("ValidatingAdmissionPolicy 'x' denied request: you cannot do this on Fridays", false),
            (r#"pods "x" is forbidden: exceeded quota"#, false),
        ] {
            assert_eq!(is_rbac(message), is, "{message}");
        }
    }

    #[test]
    fn without_its_crd_an_object_is_not_known() {
        let not_found = Status::failure("404 page not found", "Failed to parse error data").with_code(404);
        let failure = Failure::from_kube(kube::Error::Api(Box::new(not_found)), "list", "boltzapikeys", None);
        assert!(matches!(failure, Failure::NoCrd), "{failure:?}");
    }

    #[test]
    fn the_next_command_is_one_that_works() {
        let namespace = Some("team".to_owned());
        for (verb, resource, command) in [
            ("get", "pods/log", "kubectl auth can-i get pods --subresource=log --namespace team  # "),
            ("list", "pods", "kubectl auth can-i list pods --namespace team  # "),
            ("get", "the version", "kubectl auth whoami"),
            ("discover", "boltzapikeys", "kubectl auth whoami"),
            ("create", "selfsubjectaccessreviews", "kubectl auth whoami"),
        ] {
            let said = next(verb, resource, &namespace);
            assert!(said.starts_with(command), "{said}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = |code: u16| Failure::Refused {
            verb: "get",
            resource: "boltzapikeys",
            code,
            message: String::new(),
            next: "",
        };
        for (failure, may_pass, is_refusal) in [
            (Failure::Unreachable(String::new()), true, false),
            (refused(429), true, true),
            (refused(500), true, false),
            (refused(401), false, true),
            (Failure::NoCrd, false, false),
        ] {
            assert_eq!((failure.may_pass(), failure.is_refusal()), (may_pass, is_refusal), "{failure:?}");
        }
    }
}
