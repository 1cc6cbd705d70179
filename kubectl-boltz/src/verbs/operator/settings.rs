//! The settings of an operator, from the arguments and the environment of its Deployment, by the rules of its own flags.

use boltz_operator::cli::Config;
use clap::CommandFactory;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};
use kube::ResourceExt;
use std::collections::BTreeMap;

const COMPONENT: &str = "app.kubernetes.io/component";
const NAME: &str = "app.kubernetes.io/name";

/// The settings of one Deployment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the operator's container; there may be sidecars.
    pub container: String,
    arguments: Vec<String>,
    /// `None`: the value is in a ConfigMap, a Secret or a field of the pod.
    environment: BTreeMap<String, Option<String>>,
}

impl Settings {
    /// `None`: this is the Deployment of something else, such as the emulator.
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let labels = deployment.labels();
        if labels.get(COMPONENT).is_some_and(|component| component == "emulator") {
            return None;
        }
        let is_labelled = labels.get(NAME).is_some_and(|name| name == "boltz-operator");
        let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
        let all: Vec<Self> = containers.iter().map(Self::of_container).collect();
        let with_flags = all.iter().find(|settings| settings.has_flags());
        let labelled = all.iter().find(|settings| settings.container == "operator").or(all.first());
        with_flags.or(labelled.filter(|_| is_labelled)).cloned()
    }

    fn of_container(container: &Container) -> Self {
        let mut environment: BTreeMap<String, Option<String>> = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let is_here = variable.value_from.is_none();
            let value = is_here.then(|| expand(variable.value.as_deref().unwrap_or_default(), &environment));
            environment.insert(variable.name.clone(), value);
        }
        let words = container.command.iter().flatten().chain(container.args.iter().flatten());
        let arguments = words.map(|word| expand(word, &environment)).collect();
        Self { container: container.name.clone(), arguments, environment }
    }

    /// The emulator has none of these.
    fn has_flags(&self) -> bool {
        let is_flag = |word: &String| {
            ["--boltz-base-url", "--admin-key-file", "--lease-name"].iter().any(|flag| word.starts_with(flag))
        };
        self.arguments.iter().any(is_flag)
            || self.environment.keys().any(|name| name.starts_with("BOLTZ_OPERATOR_"))
    }

    /// All values of a flag: of the arguments or, without one, of the environment, or the default.
    pub fn all(&self, flag: &str) -> Vec<String> {
        let name = format!("--{flag}");
        let mut found = Vec::new();
        let mut words = self.arguments.iter().peekable();
        while let Some(word) = words.next() {
            match word.split_once('=') {
                Some((before, value)) if before == name => found.push(value.to_owned()),
                None if *word == name => {
                    let value = words.next_if(|next| !next.starts_with("--"));
                    found.push(value.cloned().unwrap_or_else(|| "true".to_owned()));
                }
                _ => {}
            }
        }
        if !found.is_empty() {
            return found;
        }
        let command = Config::command();
        let Some(known) = command.get_arguments().find(|known| known.get_long() == Some(flag)) else {
            return Vec::new();
        };
        let variable = known.get_env().and_then(|name| self.environment.get(&*name.to_string_lossy()));
        match variable {
            Some(value) => value.iter().cloned().collect(),
            None => {
                known.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect()
            }
        }
    }

    /// The value that counts. `None`: there is none, or it is not in the Deployment.
    pub fn get(&self, flag: &str) -> Option<String> {
        self.all(flag).pop().filter(|value| !value.is_empty())
    }

    /// The values of a list.
    pub fn list(&self, flag: &str) -> Vec<String> {
        let values = self.all(flag);
        let parts = values.iter().flat_map(|value| value.split(','));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// `$(NAME)` is replaced as the kubelet does it. What is not known here stays.
fn expand(text: &str, environment: &BTreeMap<String, Option<String>>) -> String {
    let known = environment.iter().filter_map(|(name, value)| Some((format!("$({name})"), value.as_ref()?)));
    known.fold(text.to_owned(), |text, (reference, value)| text.replace(&reference, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn settings(labels: Json, containers: Json) -> Option<Settings> {
        let deployment = json!({
            "metadata": {"name": "x", "labels": labels},
            "spec": {"selector": {}, "template": {"spec": {"containers": containers}}},
        });
        Settings::of(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn flags_are_read_as_the_operator_reads_them() {
        let labels = json!({"app.kubernetes.io/name": "boltz-operator"});
        for (container, flag, value) in [
            (json!({"args": ["--lease-name=a"]}), "lease-name", Some("a")),
            (json!({"args": ["--lease-name", "a"]}), "lease-name", Some("a")),
            (json!({"command": ["boltz-operator", "--lease-name=a"]}), "lease-name", Some("a")),
            // The last one counts, and an argument more than a variable.
            (json!({"args": ["--lease-name=a", "--lease-name=b"]}), "lease-name", Some("b")),
            (
                json!({"args": ["--lease-name=a"], "env": [{"name": "BOLTZ_OPERATOR_LEASE_NAME", "value": "b"}]}),
                "lease-name",
                Some("a"),
            ),
            (json!({"env": [{"name": "BOLTZ_OPERATOR_LEASE_NAME", "value": "b"}]}), "lease-name", Some("b")),
            (
                json!({"args": ["--lease-name=$(WHO)-x"], "env": [{"name": "WHO", "value": "a"}]}),
                "lease-name",
                Some("a-x"),
            ),
            (
                json!({"env": [{"name": "BOLTZ_OPERATOR_LEASE_NAME", "valueFrom": {"configMapKeyRef": {"key": "x"}}}]}),
                "lease-name",
                None,
            ),
            (json!({}), "lease-name", Some("boltz-operator")),
            (json!({}), "lease-namespace", None),
            (json!({"args": ["--leader-elect=false"]}), "leader-elect", Some("false")),
            (json!({"args": ["--leader-elect", "--concurrency=3"]}), "leader-elect", Some("true")),
            (json!({}), "leader-elect", Some("true")),
            (json!({}), "boltz-base-url", Some("https://api.boltz.bio")),
            (json!({"args": ["--lease-name-of-another=a"]}), "lease-name", Some("boltz-operator")),
        ] {
            let mut named = container.clone();
            named["name"] = json!("operator");
            let settings = settings(labels.clone(), json!([named])).unwrap();
            assert_eq!(settings.get(flag).as_deref(), value, "{container}");
        }
        let list =
            json!([{"name": "operator", "args": ["--watch-namespaces=a,b", "--watch-namespaces", "c"]}]);
        assert_eq!(settings(labels, list).unwrap().list("watch-namespaces"), ["a", "b", "c"]);
    }

    #[test]
    fn an_operator_is_told_from_an_emulator_and_from_others() {
        let of_operator = json!({"name": "main", "args": ["--admin-key-file=/x", "--lease-name=mine"]});
        let other = json!({"name": "other", "args": ["--listen=:1"]});
        let name = "app.kubernetes.io/name";
        for (labels, containers, lease) in [
            (json!({name: "boltz-operator"}), json!([{"name": "operator"}]), Some("boltz-operator")),
            (json!({name: "keys"}), json!([other, of_operator]), Some("mine")),
            (json!({}), json!([of_operator]), Some("mine")),
            (json!({}), json!([other]), None),
            (
                json!({name: "boltz-operator", "app.kubernetes.io/component": "emulator"}),
                json!([{"name": "emulator"}]),
                None,
            ),
        ] {
            let found = settings(labels.clone(), containers);
            let container = found.as_ref().map(|found| found.container.as_str());
            assert!(container.is_none_or(|container| container != "other"), "{labels}");
            assert_eq!(found.and_then(|found| found.get("lease-name")).as_deref(), lease, "{labels}");
        }
    }
}
