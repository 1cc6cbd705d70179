//! `make chart`: writes the chart's README and docs/reference/values.md from the comments of values.yaml.

use serde_json::Value as Json;
use std::path::Path;

const VALUES: &str = "charts/boltz-operator/values.yaml";

const README: &str = "\
# boltz-operator

A Helm chart for boltz-operator, which creates, stores, rotates and revokes API keys of the Boltz API. This page is generated from
[values.yaml](values.yaml) by `make chart`.

```sh
kubectl create namespace boltz-system
kubectl --namespace boltz-system create secret generic boltz-admin-key --from-file=admin-key=<file with the key>
helm install boltz-operator . --namespace boltz-system --set image.repository=<your registry>/boltz-operator
helm test boltz-operator --namespace boltz-system
```

[Install, upgrade, uninstall](../../docs/install.md) explains the steps and says which values to decide about before the first key.
For a trial without an account, set `emulator.enabled=true` and leave the Secret out.

## Values

Values that are not in this table are rejected.

";

const REFERENCE: &str = "\
# Reference: chart values

These are all values of the chart and their defaults. This page is generated from
[values.yaml](../../charts/boltz-operator/values.yaml) by `make chart`. Values that are not in the table are rejected. The flags under
`config` are explained in [flags](flags.md).

";

/// The files and what belongs in them.
pub fn pages(repository: &Path) -> Result<[(&'static str, String); 2], String> {
    let text = std::fs::read_to_string(repository.join(VALUES)).map_err(|error| error.to_string())?;
    let table = table(&text)?;
    Ok([
        ("charts/boltz-operator/README.md", format!("{README}{table}")),
        ("docs/reference/values.md", format!("{REFERENCE}{table}")),
    ])
}

/// A row for each value, and for each group that has a comment. A value without a comment, and in no group that has one, is
/// an error.
fn table(text: &str) -> Result<String, String> {
    let values: Json = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut rows = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    // The keys that lead to this line, each with its indent and whether it or one above has a comment.
    let mut path: Vec<(usize, &str, bool)> = Vec::new();
    let mut comment = Vec::new();
    for line in text.lines() {
        let (indent, line) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let meaning = std::mem::take(&mut comment).join(" ");
        let key = line.split_once(':').map(|(key, _)| key);
        let Some(key) = key.filter(|key| !key.is_empty() && !key.starts_with("- ")) else { continue };
        path.retain(|(above, ..)| *above < indent);
        let is_explained = !meaning.is_empty() || path.last().is_some_and(|(.., is_explained)| *is_explained);
        path.push((indent, key, is_explained));
        let keys: Vec<&str> = path.iter().map(|(_, key, _)| *key).collect();
        // What is no mapping here, lists above all, is one value and has no rows of its own.
        let Some(value) = keys.iter().try_fold(&values, |value, key| value.get(key)) else { continue };
        let name = keys.join(".");
        let default = match value {
            Json::Object(fields) if !fields.is_empty() => String::new(),
            Json::String(text) if !text.is_empty() => format!("`{text}`"),
            value => format!("`{value}`"),
        };
        if !is_explained {
            return Err(format!("{VALUES}: {name} has no comment"));
        }
        if !meaning.is_empty() || !default.is_empty() {
            rows += &format!("| `{name}` | {} | {} |\n", cell(&default), cell(&meaning));
        }
    }
    Ok(rows)
}

/// Text as a cell of a Markdown table.
fn cell(text: &str) -> String {
    // Not within code, where Markdown takes it as it is.
    let parts = text.split('`').enumerate();
    let escaped = parts.map(|(index, part)| match index % 2 {
        0 => part.replace('<', "&lt;").replace('|', "\\|").replace('*', "\\*"),
        _ => part.replace('|', "\\|"),
    });
    escaped.collect::<Vec<_>>().join("`")
}

fn main() -> Result<(), String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, text) in pages(repository)? {
        std::fs::write(repository.join(file), text).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}
