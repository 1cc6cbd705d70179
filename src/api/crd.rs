//! The CustomResourceDefinition, as it is installed.

use crate::api::BoltzApiKey;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

/// The definition of [`BoltzApiKey`]. Its descriptions have no line breaks, so that `kubectl explain` can wrap them.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = BoltzApiKey::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            join_lines(schema);
        }
    }
    crd
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
