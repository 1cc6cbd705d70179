//! `logs` and `version`: what the operator's pods and its Deployment say.

use super::{
    Session,
    operator::{Operator, WHERE_IT_IS, operators},
};
use crate::{
    cluster::call,
    failure::Failure,
    output::{print, tell},
    words::{duration, plain},
};
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::{Value as Json, json};

pub async fn logs(session: &Session, name: &str, since: SignedDuration) -> Result<u8, Failure> {
    let namespace = session.cluster.operator_namespace.as_str();
    let operators = operators(session).await?;
    if operators.is_empty() {
        return Err(Failure::Other(format!(
            "no Deployment of the operator in the namespace {namespace}\nnext: {WHERE_IT_IS}"
        )));
    }
    let (mut lines, mut are_read, mut failures) = (0, false, Vec::new());
    for operator in &operators {
        for pod in pods_of(session, operator).await? {
            match lines_of(session, operator, &pod, name, since).await {
                Ok(count) => {
                    lines += count;
                    are_read = true;
                }
                // Another pod may be the one that leads.
                Err(failure) => {
                    tell(&format!("the log of the pod {pod} is not shown: {}", failure.short()));
                    failures.push(failure);
                }
            }
        }
    }
    match failures.into_iter().next() {
        Some(failure @ Failure::Forbidden { .. }) if !are_read => return Err(failure),
        _ if !are_read => {
            return Err(Failure::Other(format!(
                "the log of no pod could be read in the namespace {namespace}\nnext: kubectl get pods --namespace {namespace}"
            )));
        }
        _ => {}
    }
    if lines == 0 {
        tell(&format!(
            "the operator logged nothing of {name} in the last {}\nnext: kubectl boltz events {name} --namespace {}",
            duration(since),
            session.cluster.namespace
        ));
    }
    Ok(0)
}

async fn pods_of(session: &Session, operator: &Operator) -> Result<Vec<String>, Failure> {
    let namespace = operator.namespace.as_str();
    let api: Api<Pod> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = ListParams::default().labels(&operator.selector);
    let pods = call(api.list(&parameters), "list", "pods", Some(namespace)).await?;
    Ok(pods.iter().map(ResourceExt::name_any).collect())
}

/// Prints the lines of one pod that are about the object. Returns how many there are.
async fn lines_of(
    session: &Session,
    operator: &Operator,
    pod: &str,
    name: &str,
    since: SignedDuration,
) -> Result<usize, Failure> {
    let namespace = operator.namespace.as_str();
    let api: Api<Pod> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = LogParams {
        // There may be sidecars.
        container: Some(operator.settings.container.clone()),
        since_seconds: Some(since.as_secs().max(1)),
        ..LogParams::default()
    };
    let stream = call(api.log_stream(pod, &parameters), "get", "pods/log", Some(namespace)).await?;
    let (mut lines, mut count) = (stream.lines(), 0);
    let cut = |error: std::io::Error| Failure::Unreachable(plain(&error.to_string()));
    while let Some(line) = lines.try_next().await.map_err(cut)? {
        if is_about(&line, &session.cluster.namespace, name) {
            count += 1;
            print(&format!("{}\n", plain(&line)))?;
        }
    }
    Ok(count)
}

/// Whether a line of the log, in JSON or as text, has this namespace and name.
fn is_about(line: &str, namespace: &str, name: &str) -> bool {
    if let Ok(line) = serde_json::from_str::<Json>(line) {
        let has = |key: &str, value: &str| line["fields"][key] == value || line[key] == value;
        return has("namespace", namespace) && has("name", name);
    }
    let has = |key: &str, value: &str| {
        let forms = [format!("{key}=\"{value}\""), format!("{key}={value}")];
        line.split_whitespace().any(|word| forms.iter().any(|form| word == form))
    };
    has("namespace", namespace) && has("name", name)
}

pub async fn version(session: &Session) -> Result<u8, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let server = call(session.cluster.client.apiserver_version(), "get", "the version", None).await;
    let operator = operators(session).await.map(|operators| {
        let versions: Vec<String> = operators.into_iter().map(|operator| operator.version).collect();
        versions.join(", ")
    });
    let text_or_why = |found: Result<String, Failure>| match found {
        Ok(text) if text.is_empty() => "not found".to_owned(),
        Ok(text) => text,
        Err(failure) => failure.short(),
    };
    let server = text_or_why(server.map(|version| version.git_version));
    let operator = text_or_why(operator);
    let value = json!({"kubectl-boltz": own, "operator": operator, "apiServer": server});
    session.format.write(&value, || {
        format!("kubectl-boltz {own}\noperator      {operator}\nAPI server    {server}\n")
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_about_one_object() {
        for (line, is) in [
            (r#"{"level":"INFO","fields":{"message":"x","namespace":"team","name":"design"}}"#, true),
            (r#"{"level":"INFO","namespace":"team","name":"design"}"#, true),
            (r#"{"level":"INFO","fields":{"namespace":"team","name":"design-2"}}"#, false),
            (r#"2026-11-26T12:00:00Z  INFO x: replaced namespace="team" name="design" key_id=1"#, true),
            (r#"2026-11-26T12:00:00Z  INFO x: replaced namespace="team" name="design-2""#, false),
            ("", false),
        ] {
            assert_eq!(is_about(line, "team", "design"), is, "{line}");
        }
    }
}
