//! The CustomResourceDefinitions, as they are installed.

use crate::{
    api::{BoltzAccount, BoltzApiKey, DEFAULT_SECRET_TYPE},
    protocol::account_name::MAX_ACCOUNT_NAME,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use kube::CustomResourceExt;
use serde_json::json;

/// The definition of [`BoltzApiKey`]. Its descriptions have no line breaks, so that `kubectl explain` can wrap them.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = BoltzApiKey::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            join_lines(schema);
            schema.x_kubernetes_validations = Some(vec![type_is_immutable()]);
            let status = schema.properties.as_mut().and_then(|properties| properties.get_mut("status"));
            if let Some(status) = status {
                status.default = Some(JSON(untouched_status()));
            }
        }
    }
    crd
}

/// The definition of [`BoltzAccount`].
pub fn account_crd() -> CustomResourceDefinition {
    let mut crd = BoltzAccount::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            join_lines(schema);
            schema.x_kubernetes_validations = Some(vec![ValidationRule {
                rule: format!("size(self.metadata.name) <= {MAX_ACCOUNT_NAME}"),
                message: Some(format!("the name must have at most {MAX_ACCOUNT_NAME} characters")),
                ..ValidationRule::default()
            }]);
        }
    }
    crd
}

/// What the API server shows as long as nobody has written the status. Without it, tools that wait (kstatus) would take an
/// object without conditions for one that is done.
fn untouched_status() -> serde_json::Value {
    json!({"conditions": [{
        "type": "Ready",
        "status": "Unknown",
        "reason": "Pending",
        "message": "No operator has worked on this object yet.",
        // A default is fixed text, so it cannot have the time of the creation.
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]})
}

/// The type of a Secret is immutable. Only at the root the object's own name is known, which is the Secret's by default.
fn type_is_immutable() -> ValidationRule {
    let kind =
        |of: &str| format!("(has({of}.spec.secret.type) ? {of}.spec.secret.type : '{DEFAULT_SECRET_TYPE}')");
    let name = |of: &str| {
        let field = format!("{of}.spec.secret.name");
        format!("(has({field}) && {field} != '' ? {field} : {of}.metadata.name)")
    };
    let have = "!has(self.spec.secret) || !has(oldSelf.spec.secret)";
    let [kinds, names] = [["self", "oldSelf"].map(kind), ["self", "oldSelf"].map(name)];
    ValidationRule {
        rule: format!("{have} || {} == {} || {} != {}", kinds[0], kinds[1], names[0], names[1]),
        message: Some(
            "type can be changed only together with secret.name: the type of a Secret is immutable"
                .to_owned(),
        ),
        field_path: Some(".spec.secret.type".to_owned()),
        ..ValidationRule::default()
    }
}

/// Removes the line breaks of doc comments, except between paragraphs.
fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(join_lines);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        join_lines(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_the_status_is_one_that_nobody_has_written() {
        let status: crate::api::BoltzApiKeyStatus = serde_json::from_value(untouched_status()).unwrap();
        assert!(status.is_untouched());
    }

    #[test]
    fn paragraphs_stay_and_lines_do_not() {
        let description = Some("One\nsentence.\n\nAnother\none.".to_owned());
        let inner = JSONSchemaProps { description: description.clone(), ..JSONSchemaProps::default() };
        let items = Some(JSONSchemaPropsOrArray::Schema(Box::new(inner.clone())));
        let properties = Some([("inner".to_owned(), inner)].into());
        let mut schema = JSONSchemaProps { description, items, properties, ..JSONSchemaProps::default() };
        join_lines(&mut schema);
        let joined = Some("One sentence.\n\nAnother one.");
        assert_eq!(schema.description.as_deref(), joined);
        assert_eq!(schema.properties.unwrap()["inner"].description.as_deref(), joined);
        let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items else { panic!("items") };
        assert_eq!(items.description.as_deref(), joined);
    }
}
