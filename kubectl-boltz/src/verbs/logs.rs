//! `logs` and `version`: what the operator's pods and its Deployment say.

use super::Session;
use crate::{
    cluster::{OPERATOR_LABELS, call},
    failure::Failure,
    output::{print, tell},
    words::{duration, plain},
};
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::SignedDuration;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::{Value as Json, json};

pub async fn logs(session: &Session, name: &str, since: SignedDuration) -> Result<u8, Failure> {
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Pod> = Api::namespaced(session.cluster.client.clone(), namespace);
    let pods =
        call(api.list(&ListParams::default().labels(OPERATOR_LABELS)), "list", "pods", Some(namespace))
            .await?;
    if pods.items.is_empty() {
        return Err(Failure::Other(format!(
            "no pod of the operator in the namespace {namespace}\nnext: kubectl boltz doctor, or --operator-namespace NAME"
        )));
    }
    let mut count = 0;
    for pod in pods {
        let parameters = LogParams { since_seconds: Some(since.as_secs().max(1)), ..LogParams::default() };
        let name_of_pod = pod.name_any();
        let stream = api.log_stream(&name_of_pod, &parameters);
        let stream = call(stream, "get", "pods/log", Some(namespace)).await?;
        let mut lines = stream.lines();
        let cut = |error: std::io::Error| {
            let why = plain(&error.to_string());
            Failure::Other(format!(
                "the log of the pod {name_of_pod} could not be read to its end: {why}\n\
                 next: kubectl logs {name_of_pod} --namespace {namespace}"
            ))
        };
        while let Some(line) = lines.try_next().await.map_err(cut)? {
            if is_about(&line, &session.cluster.namespace, name) {
                count += 1;
                print(&format!("{}\n", plain(&line)))?;
            }
        }
    }
    if count == 0 {
        tell(&format!(
            "the operator logged nothing of {name} in the last {}\nnext: kubectl boltz events {name}",
            duration(since)
        ));
    }
    Ok(0)
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
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Deployment> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = ListParams::default().labels(OPERATOR_LABELS);
    let operator = call(api.list(&parameters), "list", "deployments", Some(namespace)).await;
    let operator = operator.map(|list| {
        let versions =
            list.items.iter().filter_map(|one| one.labels().get("app.kubernetes.io/version").cloned());
        versions.collect::<Vec<_>>().join(", ")
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
