//! What each value of the chart does: `knobs.yaml`.

use super::helm::{Manifests, template};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

#[derive(serde::Deserialize)]
struct Knob {
    set: Json,
    expect: BTreeMap<String, Json>,
}

fn knobs() -> Vec<Knob> {
    let text = include_str!("knobs.yaml").replace("VERSION", env!("CARGO_PKG_VERSION"));
    serde_saphyr::from_str(&text).unwrap()
}

const OPERATOR: &str = "Deployment/boltz-operator";

/// What a key of `expect` points to.
fn found(manifests: &Manifests, key: &str, set: &Json) -> Json {
    let (manifest, pointer) = key.split_once(' ').unwrap_or((key, ""));
    let above = match manifest {
        "pod" => "/spec/template/spec",
        "container" => "/spec/template/spec/containers/0",
        "flags" => "/spec/template/spec/containers/0/args",
        _ => "",
    };
    let renamed = set["fullnameOverride"].as_str().map(|name| format!("Deployment/{name}"));
    let manifest = if above.is_empty() { manifest } else { renamed.as_deref().unwrap_or(OPERATOR) };
    let (kind, name) = manifest.split_once('/').unwrap();
    let mut matching = manifests.iter().filter(|((known, _, own), _)| known == kind && own == name);
    let value = matching.next().and_then(|(_, json)| json.pointer(&format!("{above}{pointer}")));
    value.cloned().unwrap_or_default()
}

/// Whether it is that; of a list, some texts are enough.
fn is(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Array(found), text @ Json::String(_)) => found.contains(text),
        (Json::Array(found), Json::Array(texts))
            if !texts.is_empty() && texts.iter().all(Json::is_string) =>
        {
            texts.iter().all(|text| found.contains(text))
        }
        _ => found == expected,
    }
}

#[test]
fn each_value_does_what_it_says() {
    let defaults = template(&json!({}));
    let mut wrong = Vec::new();
    for Knob { set, expect } in knobs() {
        assert!(!expect.is_empty(), "{set}");
        let manifests = template(&set);
        for (key, expected) in expect {
            let seen = found(&manifests, &key, &set);
            if !is(&seen, &expected) {
                wrong.push(format!("{set}: {key} is {seen}, not {expected}"));
            } else if is(&found(&defaults, &key, &json!({})), &expected) {
                wrong.push(format!("{set}: {key} is {expected} by default too"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The paths of all values that are no group.
fn leaves(value: &Json, path: &str, into: &mut Vec<String>) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(value, &format!("{path}/{}", name.replace('/', "~1")), into);
            }
        }
        _ => into.push(path.to_owned()),
    }
}

#[test]
fn no_value_is_missing() {
    let values: Json =
        serde_saphyr::from_str(include_str!("../../../charts/boltz-operator/values.yaml")).unwrap();
    let mut paths = Vec::new();
    leaves(&values, "", &mut paths);
    let knobs = knobs();
    paths.retain(|path| !knobs.iter().any(|knob| knob.set.pointer(path).is_some()));
    assert!(paths.is_empty(), "knobs.yaml says nothing about: {}", paths.join(", "));
}
