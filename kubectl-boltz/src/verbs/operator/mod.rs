//! The installations of the operator: its Deployments, and what their settings say.

mod settings;

use super::Session;
use crate::{cluster::call, failure::Failure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt, api::ListParams};
use settings::Settings;
use std::collections::BTreeMap;

/// An installation of the operator.
#[derive(Clone, Debug)]
pub struct Operator {
    pub name: String,
    pub namespace: String,
    pub settings: Settings,
    pub pod_labels: BTreeMap<String, String>,
    /// How its pods are selected, for kubectl.
    pub selector: String,
    /// Its ServiceAccount.
    pub account: String,
    pub wanted: i32,
    pub ready: i32,
    pub version: String,
}

impl Operator {
    fn read(deployment: &Deployment) -> Option<Self> {
        let settings = Settings::of(deployment)?;
        let spec = deployment.spec.as_ref()?;
        let labels = spec.selector.match_labels.iter().flatten();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        let pod = spec.template.spec.as_ref();
        let version = deployment.labels().get("app.kubernetes.io/version");
        let metadata = spec.template.metadata.as_ref();
        Some(Self {
            name: deployment.name_any(),
            namespace: deployment.namespace().unwrap_or_default(),
            settings,
            pod_labels: metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default(),
            selector: labels.join(","),
            account: pod
                .and_then(|pod| pod.service_account_name.clone())
                .unwrap_or_else(|| "default".to_owned()),
            wanted: spec.replicas.unwrap_or(1),
            ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default(),
            version: version.cloned().unwrap_or_default(),
        })
    }

    /// Where its Lease and its ConfigMaps are.
    pub fn lease_namespace(&self) -> String {
        self.settings.get("lease-namespace").unwrap_or_else(|| self.namespace.clone())
    }

    /// Asks the API server whether the operator has a right.
    pub fn can_i(&self, verb: &str, what: &str) -> String {
        format!(
            "kubectl auth can-i {verb} {what} --namespace {} --as system:serviceaccount:{}:{}",
            self.lease_namespace(),
            self.namespace,
            self.account
        )
    }

    pub fn logs(&self) -> String {
        format!("kubectl --namespace {} logs --selector {} --tail 50", self.namespace, self.selector)
    }
}

/// The operators in their namespace. There may be none.
pub async fn operators(session: &Session) -> Result<Vec<Operator>, Failure> {
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Deployment> = Api::namespaced(session.cluster.client.clone(), namespace);
    // Not by label: the chart's nameOverride changes it.
    let found = call(api.list(&ListParams::default()), "list", "deployments", Some(namespace)).await?;
    Ok(found.items.iter().filter_map(Operator::read).collect())
}

/// How to find the operator's namespace.
pub const WHERE_IT_IS: &str = "kubectl get deployments -A --selector app.kubernetes.io/component=operator  # then: --operator-namespace NAME";
