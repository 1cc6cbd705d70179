//! The reference names what there is: every flag, field, annotation, reason and event. Metrics, log, alerts and the texts of reasons have
//! tests of their own beside the code.

use boltz_operator::{
    api::{annotations, crd},
    cli::Config,
    plan::RevokeReason,
    protocol::record::IssueReason,
};
use clap::CommandFactory;
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, fs, path::Path};
use strum::VariantArray;

const FLAGS: &str = include_str!("../../docs/reference/flags.md");
const SECURITY: &str = include_str!("../../docs/security.md");
const API: &str = include_str!("../../docs/reference/api.md");
const ACCOUNTS: &str = include_str!("../../docs/reference/accounts.md");
/// The files that make events. A new one makes the number of events differ from the table.
const WITH_EVENTS: [&str; 4] = [
    include_str!("../../src/plan/apply.rs"),
    include_str!("../../src/plan/effects.rs"),
    include_str!("../../src/plan/failing.rs"),
    include_str!("../../src/plan/restart.rs"),
];

fn flags() -> BTreeSet<String> {
    let command = Config::command();
    let flags = command.get_arguments().filter_map(|flag| flag.get_long());
    flags.filter(|name| !matches!(*name, "help" | "version")).map(|name| format!("`--{name}`")).collect()
}

/// The names of the fields below this one. Those of conditions are Kubernetes' own.
fn fields(schema: &Json, path: &str, found: &mut BTreeSet<String>) {
    let inner = if schema["items"].is_object() { &schema["items"] } else { schema };
    for (name, field) in inner["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if name != "conditions" {
            fields(field, &path, found);
        }
        found.insert(path);
    }
}

fn fields_of(part: &str) -> BTreeSet<String> {
    let schema =
        json!(crd::crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone();
    let mut found = BTreeSet::new();
    fields(&schema, "", &mut found);
    found
}

/// With its path, or, below a field that has a row, with its name.
fn has_field(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    let is_inner = path.contains('.') && API.contains(&format!("{name}: "));
    let is_group = ["rotation", "secret"].contains(&path) && API.contains(&format!("| `{path}."));
    is_inner || is_group || [path, name].iter().any(|text| API.contains(&format!("`{text}`")))
}

/// The first text after each of these words.
fn events() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in WITH_EVENTS {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let source = source.replace("REVOCATION_FAILING", "\"RevocationFailing\"");
        for call in ["effects.event(", "warning(", "reason: \""] {
            for rest in source.split(call).skip(1) {
                let statement = rest.split(';').next().unwrap_or_default();
                let statement =
                    if call.ends_with('"') { format!("\"{statement}") } else { statement.to_owned() };
                let text = statement.split('"').nth(1).unwrap_or_default();
                if text.chars().all(char::is_alphanumeric) && !text.is_empty() {
                    found.insert(format!("`{text}`"));
                }
            }
        }
    }
    found
}

#[test]
fn the_reference_names_all_there_is() {
    let texts = |names: &[&str]| names.iter().map(|name| format!("`{name}")).collect::<BTreeSet<_>>();
    let reasons = |names: Vec<&'static str>| names.into_iter().map(|name| format!("`{name}`")).collect();
    let of_users = [
        annotations::ROTATE_ANNOTATION,
        annotations::ROTATE_NOW_ANNOTATION,
        annotations::RETRY_ANNOTATION,
        annotations::PAUSED_ANNOTATION,
        annotations::DELETION_POLICY_ANNOTATION,
        annotations::LEDGER_ANNOTATION,
        annotations::RECORD_ANNOTATION,
        annotations::OWNER_LABEL,
        annotations::RESTARTED_FOR_ANNOTATION,
    ];
    let issues: Vec<_> = IssueReason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
    let revocations: Vec<_> = RevokeReason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
    for (what, page, names, least) in [
        ("flag", FLAGS, flags(), 20),
        ("annotation or label", API, texts(&of_users), 9),
        ("event", API, events(), 10),
        ("reason of an issue", API, reasons(issues), 8),
        ("reason of a revocation", API, reasons(revocations), 7),
    ] {
        assert!(names.len() >= least, "{what}: only {names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !page.contains(*name)).collect();
        assert!(missing.is_empty(), "no {what} of these is in the reference: {missing:?}");
    }
    for (part, least) in [("spec", 14), ("status", 14)] {
        let fields = fields_of(part);
        assert!(fields.len() >= least, "{part}: only {fields:?}");
        let missing: Vec<_> = fields.iter().filter(|path| !has_field(path)).collect();
        assert!(missing.is_empty(), "no field of {part} of these is in the reference: {missing:?}");
    }
}

#[test]
fn the_reference_names_all_fields_of_accounts() {
    let schema = &json!(crd::account_crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for (part, least) in [("spec", 14), ("status", 14)] {
        let mut found = BTreeSet::new();
        fields(&schema[part], "", &mut found);
        // Kubernetes' own.
        found.retain(|path| !path.starts_with("namespaceSelector."));
        assert!(found.len() >= least, "{part}: only {found:?}");
        let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let is_named = |path: &String| {
            [path.clone(), name(path)].iter().any(|text| ACCOUNTS.contains(&format!("`{text}")))
                || ACCOUNTS.contains(&format!("| `{path}."))
        };
        let missing: Vec<_> = found.iter().filter(|path| !is_named(path)).collect();
        assert!(missing.is_empty(), "no field of {part} of these is in the reference: {missing:?}");
    }
}

/// The texts of the defaults that are no text of clap.
const DEFAULTS_IN_WORDS: [&str; 3] = ["--cluster-name", "--watch-namespaces", "--lease-name"];

#[test]
fn the_reference_has_the_defaults_of_flags() {
    let command = Config::command();
    let mut compared = 0;
    for flag in command.get_arguments() {
        let Some(name) = flag.get_long().filter(|name| !matches!(*name, "help" | "version")) else {
            continue;
        };
        let name = format!("--{name}");
        let row = FLAGS.lines().find(|line| line.starts_with(&format!("| `{name}`")));
        let Some(row) = row.filter(|_| !DEFAULTS_IN_WORDS.contains(&name.as_str())) else { continue };
        let said = row.split(" | ").nth(1).unwrap();
        let defaults: Vec<_> =
            flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let expected = match (defaults.as_slice(), flag.get_action()) {
            ([], clap::ArgAction::SetTrue) => "`false`".to_owned(),
            ([], _) => "–".to_owned(),
            (values, _) => format!("`{}`", values.join(",")),
        };
        assert_eq!(said, expected, "the default of {name}");
        compared += 1;
    }
    assert!(compared >= 20, "only {compared} were compared");
}

/// The defaults of fields that the CRD has.
#[test]
fn the_reference_has_the_defaults_of_fields() {
    fn defaults(schema: &Json, path: &str, found: &mut Vec<(String, Json)>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            // That of a group is made of those of its fields.
            if !field["default"].is_null() && !field["default"].is_object() {
                found.push((path.clone(), field["default"].clone()));
            }
            defaults(field, &path, found);
        }
    }
    let schema =
        json!(crd::crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    let mut found = Vec::new();
    defaults(&schema, "", &mut found);
    let mut compared = 0;
    for (path, default) in found {
        let Some(row) = API.lines().find(|line| line.starts_with(&format!("| `{path}` |"))) else { continue };
        let said = row.split(" | ").nth(1).unwrap();
        let expected = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        // A word may follow.
        assert!(
            said.starts_with(&format!("`{expected}`")),
            "the default of {path} is {expected}, not {said}"
        );
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} were compared");
}

/// And nothing that there is no more.
#[test]
fn the_reference_names_no_flag_and_no_event_that_is_gone() {
    let known = flags();
    let rows = FLAGS.lines().filter(|line| line.starts_with("| `--"));
    let named = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split(['`', ',', ' ']));
    for flag in named.filter(|word| word.starts_with("--")) {
        assert!(known.contains(&format!("`{flag}`")), "{flag}");
    }
    let table = API.split("## Events").nth(1).unwrap().split("A first key").next().unwrap();
    let named: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|row| row.split('|').next().unwrap_or_default().split(['`', ',', ' ']))
        .filter(|word| !word.is_empty())
        .map(|word| format!("`{word}`"))
        .collect();
    assert_eq!(named, events());
}

/// What docs/security.md says of tests: every name that could be one is one, and every script is there.
#[test]
fn the_security_model_names_tests_that_exist() {
    fn read(folder: &Path, code: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                read(&path, code);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    ["src", "tests"].iter().for_each(|folder| read(&root.join(folder), &mut code));
    let threats = SECURITY.split("## What each role can do").nth(1).unwrap();
    let (mut tests, mut scripts) = (0, 0);
    for span in threats.split('`').skip(1).step_by(2) {
        let is_name =
            span.chars().all(|character| character.is_ascii_lowercase() || "_0123456789".contains(character));
        if is_name && span.matches('_').count() >= 3 {
            assert!(code.contains(&format!("fn {span}(")), "there is no test {span}");
            tests += 1;
        }
        let script = span.split(' ').next().unwrap_or_default();
        if script.starts_with("tests/") || script.starts_with("release/") {
            assert!(root.join(script).exists(), "there is no {script}");
            scripts += 1;
        }
    }
    assert!(tests >= 40 && scripts >= 4, "only {tests} tests and {scripts} scripts are named");
}
