//! Real causes of faults that stay, and what is asked of the operator while they do.

use crate::test_env::{PATIENCE, TestEnv, condition, create_namespace, is, observed};
use boltz_harness::{AuditEvent, OperatorProcess, eventually};
use boltz_operator::api::BoltzApiKey;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{ClusterRole, Role, RoleBinding},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The label by which the operator finds its Secrets.
pub const LABEL: &str = "boltz.bio/owner-uid";
/// The time in which another object gets its key, whatever stands in somebody's way.
pub const PROMPT: Duration = Duration::from_secs(5);
/// The time in which the conditions name what stands in the way.
pub const TOLD: Duration = Duration::from_secs(30);
/// The operator's calls about an object are counted from here on after the fault…
pub const QUIET_FROM: Duration = Duration::from_secs(10);
/// … until here…
pub const QUIET_UNTIL: Duration = Duration::from_secs(40);
/// … and are at most so many.
pub const QUIET_CALLS: usize = 10;
/// How long after its cause is gone a fault is over if nobody touches the object: the first wait, and some room.
pub const RECHECK: Duration = Duration::from_secs(70);
/// A message says what will cure the fault, or that the operator tries again: one of these is in it.
const CURES: &[&str] = &["again", "next try", "until", "retry", "delete", "allow", "remove", "change"];

/// What was found in one row. Every promise is looked at, also after another was broken.
pub struct Verdict {
    row: String,
    started: Instant,
    broken: Vec<String>,
}

impl Verdict {
    pub fn new(row: &str) -> Self {
        Self { row: row.to_owned(), started: Instant::now(), broken: Vec::new() }
    }

    /// A promise that is kept or not.
    pub fn that(&mut self, promise: &str, kept: Result<String, String>) {
        let (word, seen) = match &kept {
            Ok(seen) => ("kept", seen),
            Err(seen) => ("BROKEN", seen),
        };
        let at = self.started.elapsed().as_secs_f32();
        eprintln!("{:>5.1} s  {}: {word}: {promise}: {seen}", at, self.row);
        if let Err(seen) = kept {
            self.broken.push(format!("{promise}: {seen}"));
        }
    }

    /// A number that may be at most so large.
    pub fn at_most(&mut self, promise: &str, most: usize, seen: usize, detail: &str) {
        let text = format!("{seen} of at most {most} {detail}");
        self.that(promise, if seen <= most { Ok(text) } else { Err(text) });
    }

    /// A promise that is kept within that time.
    pub async fn within(
        &mut self,
        at_most: Duration,
        promise: &str,
        ask: impl AsyncFnMut() -> Result<(), String>,
    ) {
        let kept = took(at_most, promise, ask).await;
        self.that(promise, kept);
    }

    /// Panics if a promise was broken.
    pub fn end(self) {
        assert!(self.broken.is_empty(), "{}:\n  {}", self.row, self.broken.join("\n  "));
    }
}

/// How long it took until it was so.
pub async fn took(
    at_most: Duration,
    what: &str,
    ask: impl AsyncFnMut() -> Result<(), String>,
) -> Result<String, String> {
    let started = Instant::now();
    eventually(at_most, what, ask)
        .await
        .map(|()| format!("after {:.1} s", started.elapsed().as_secs_f32()))
        .map_err(|seen| seen.chars().take(700).collect())
}

/// The namespace beside the env's, served by the same operator.
pub fn neighbour(env: &TestEnv) -> String {
    format!("{}-beside", env.namespace)
}

/// Namespaces for the operator's flag.
pub async fn with_neighbour(env: &mut TestEnv) {
    let beside = neighbour(env);
    create_namespace(&env.client, &beside).await;
    let both = format!("{},{beside}", env.namespace);
    env.operator.kill();
    env.operator = env.another(&["--watch-namespaces", &both]).await;
}

/// A new object in the other namespace gets its key at once. Answers the key's id.
pub async fn neighbour_is_served(env: &TestEnv, verdict: &mut Verdict) -> Option<String> {
    let objects: Api<BoltzApiKey> = Api::namespaced(env.client.clone(), &neighbour(env));
    let object = serde_json::from_value(json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": "beside"}, "spec": {},
    }))
    .unwrap();
    objects.create(&PostParams::default(), &object).await.unwrap();
    verdict
        .within(PROMPT, "an object in another namespace gets its key", async || {
            let object = objects.get("beside").await.map_err(|error| error.to_string())?;
            if is(&object, "Ready") { Ok(()) } else { Err(format!("{:?}", object.status)) }
        })
        .await;
    let object = objects.get("beside").await.unwrap();
    object.status.unwrap_or_default().key_id
}

/// The operator's calls in the env's namespace in that time; events, leases and watches aside. Dry runs and reads count.
pub fn calls(env: &TestEnv, from: Timestamp, to: Timestamp) -> Vec<AuditEvent> {
    let is_ours = |event: &AuditEvent| {
        event.user.username.starts_with("system:serviceaccount:boltz-system:")
            && event.object_ref.namespace == env.namespace
            && !matches!(event.object_ref.resource.as_str(), "events" | "leases" | "configmaps")
            && !matches!(event.verb.as_str(), "watch" | "list")
            && (from..to).contains(&event.received)
    };
    env.control_plane.audit_events().into_iter().filter(is_ours).collect()
}

/// How long it is until then, and no less than a moment.
pub fn time_to(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default().max(Duration::from_secs(1))
}

/// Waits for the end of the quiet time after `since`, then counts the calls about each object. A create does not say its
/// name in the log: it counts for each of the `waiting` objects alike.
pub async fn quiet(env: &TestEnv, verdict: &mut Verdict, since: Timestamp, names: &[&str], waiting: usize) {
    quiet_but_for(env, verdict, since, names, waiting, 0).await;
}

/// The same, but so many calls about each object are beyond the usual ones.
pub async fn quiet_but_for(
    env: &TestEnv,
    verdict: &mut Verdict,
    since: Timestamp,
    names: &[&str],
    waiting: usize,
    more: usize,
) {
    let end = since + QUIET_UNTIL;
    tokio::time::sleep(time_to(end)).await;
    let calls = calls(env, since + QUIET_FROM, end);
    let unnamed = calls.iter().filter(|call| call.object_ref.name.is_empty()).count();
    for name in names {
        let about = calls.iter().filter(|call| call.object_ref.name == *name).count();
        verdict.at_most(
            &format!("calls about {name} in 30 s"),
            QUIET_CALLS + more,
            about + unnamed.div_ceil(waiting.max(1)),
            &kinds(&calls),
        );
    }
}

/// The calls by their kind, with how many there were: `12 patch secrets -> 422`.
pub fn kinds(calls: &[AuditEvent]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for call in calls {
        let object = &call.object_ref;
        let subresource =
            if object.subresource.is_empty() { String::new() } else { format!("/{}", object.subresource) };
        let dry_run = if call.is_dry_run() { " (dry run)" } else { "" };
        let kind = format!(
            "{} {}{subresource}{dry_run} -> {}",
            call.verb, object.resource, call.response_status.code
        );
        *counts.entry(kind).or_insert(0) += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("({})", counts.join(", "))
}

/// Whether a condition of the object says these words, speaks of the present spec, and says what helps.
pub fn says(object: &BoltzApiKey, words: &str, reasons: &[&str]) -> Result<(), String> {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let told = conditions.iter().find(|condition| {
        condition.message.contains(words)
            && (reasons.is_empty() || reasons.contains(&condition.reason.as_str()))
            && condition.observed_generation == object.metadata.generation
            && (condition.type_ == "Ready" || condition.status == "True")
    });
    let shown = || -> String {
        conditions
            .iter()
            .map(|condition| {
                format!(
                    "{}={} {} (generation {:?}) {:?}; ",
                    condition.type_,
                    condition.status,
                    condition.reason,
                    condition.observed_generation,
                    condition.message
                )
            })
            .collect()
    };
    match told {
        None => Err(format!(
            "no condition says {words:?} of generation {:?}: {}",
            object.metadata.generation,
            shown()
        )),
        Some(told) if CURES.iter().any(|cure| told.message.to_lowercase().contains(cure)) => Ok(()),
        Some(told) => Err(format!("no word about a cure in {:?}", told.message)),
    }
}

/// Ready for the present spec, and nothing stands in the way.
pub fn is_well(object: &BoltzApiKey) -> Result<(), String> {
    let in_the_way = is(object, "Stalled") || is(object, "Reconciling");
    if is(object, "Ready") && observed(object) && !in_the_way {
        Ok(())
    } else {
        Err(format!("{:?}", object.status.as_ref().map(|status| &status.conditions)))
    }
}

/// Not Ready, in status and in the metrics.
pub async fn is_down(env: &TestEnv, name: &str) -> Result<(), String> {
    let object = env.objects().get(name).await.map_err(|error| error.to_string())?;
    let ready = condition(&object, "Ready").map(|condition| condition.status.clone());
    if ready.as_deref() != Some("False") {
        return Err(format!("Ready is {ready:?}"));
    }
    let line = format!(r#"boltz_apikey_ready{{namespace="{}",name="{name}"}} 0"#, env.namespace);
    let metrics = env.operator.get("/metrics").await?;
    if metrics.lines().any(|known| known == line) {
        return Ok(());
    }
    let seen = metrics.lines().find(|known| known.starts_with("boltz_apikey_ready") && known.contains(name));
    Err(format!("the gauge is {seen:?}"))
}

/// The key authenticates no more.
pub fn is_revoked(env: &TestEnv, id: &str) -> Result<(), String> {
    is_revoked_by(env, id, Timestamp::MAX)
}

/// The same, since that time at the latest.
pub fn is_revoked_by(env: &TestEnv, id: &str, latest: Timestamp) -> Result<(), String> {
    match env.emulator.key(id).and_then(|key| key.revoked_at) {
        Some(at) if at <= latest => Ok(()),
        Some(at) => Err(format!("{id} was revoked {:.1} late", at.duration_since(latest))),
        None => Err(format!("{id} lives")),
    }
}

/// Somebody's objects of the cluster that stand in the operator's way. Each is named after the env's namespace, and
/// meets only what the operator does there.
pub struct Obstacle {
    objects: Vec<(Api<DynamicObject>, String)>,
}

impl Obstacle {
    /// A webhook that is asked about the operator's writes, and how it does not answer.
    pub async fn webhook(env: &TestEnv, backend: &Backend, group: &str, resource: &str) -> Self {
        let name = format!("{}-{}.example.org", env.namespace, resource.replace('/', "-"));
        let version = if group == "boltz.bio" { "v1alpha1" } else { "v1" };
        let (client_config, seconds) = match backend {
            Backend::Refuses => (json!({"url": "https://127.0.0.1:1/"}), 5),
            Backend::Missing => {
                (json!({"service": {"namespace": env.namespace, "name": "gone", "path": "/"}}), 5)
            }
            Backend::Silent(address, seconds) => (json!({"url": format!("https://{address}/")}), *seconds),
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": seconds,
                "clientConfig": client_config,
                "namespaceSelector": here(env),
                "matchConditions": [by_operator()],
                "rules": [{
                    "apiGroups": [group], "apiVersions": [version], "resources": [resource],
                    "operations": ["CREATE", "UPDATE"],
                }],
            }],
        });
        Self { objects: vec![create(&env.client, configuration).await] }
    }

    /// A ValidatingAdmissionPolicy about the operator's writes, with the words in which it refuses.
    pub async fn policy(
        env: &TestEnv,
        (group, resource): (&str, &str),
        operations: &[&str],
        expression: &str,
        message: &str,
    ) -> Self {
        let name = format!("{}-{}", env.namespace, resource.replace('/', "-"));
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": constraints(env, group, resource, operations),
                "matchConditions": [by_operator()],
                "validations": [{"expression": expression, "message": message}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        Self { objects: vec![create(&env.client, policy).await, create(&env.client, binding).await] }
    }

    /// A MutatingAdmissionPolicy that changes what the operator writes: a list of JSON patches, in CEL.
    pub async fn mutation(env: &TestEnv, (group, resource): (&str, &str), when: &str, patches: &str) -> Self {
        let name = format!("{}-{}", env.namespace, resource.replace('/', "-"));
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": constraints(env, group, resource, &["CREATE", "UPDATE"]),
                "matchConditions": [by_operator(), {"name": "when", "expression": when}],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        });
        Self { objects: vec![create(&env.client, policy).await, create(&env.client, binding).await] }
    }

    /// No Secret more than there are.
    pub async fn quota(env: &TestEnv) -> Self {
        let secrets = env.secrets().list(&Default::default()).await.unwrap().items.len();
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "full", "namespace": env.namespace},
            "spec": {"hard": {"count/secrets": secrets.to_string()}},
        });
        let object = create(&env.client, quota).await;
        // It holds once its status is there.
        eventually(PATIENCE, "the quota counts", async || {
            let quota = object.0.get("full").await.unwrap();
            if quota.data["status"]["used"].is_object() { Ok(()) } else { Err("not yet") }
        })
        .await
        .unwrap();
        Self { objects: vec![object] }
    }

    /// It goes.
    pub async fn lift(self) {
        for (api, name) in self.objects.iter().rev() {
            let deleted = api.delete(name, &DeleteParams::default()).await;
            assert!(
                deleted.is_ok() || matches!(&deleted, Err(kube::Error::Api(status)) if status.code == 404)
            );
        }
    }
}

/// What is behind a webhook.
pub enum Backend {
    /// Nothing listens.
    Refuses,
    /// The Service is gone.
    Missing,
    /// It takes the connection and says nothing for so many seconds.
    Silent(std::net::SocketAddr, u8),
}

/// Takes connections and never answers; the address, while the listener lives.
pub async fn silence() -> (tokio::net::TcpListener, std::net::SocketAddr) {
    // The kernel takes the connections; nobody accepts them.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Waits until a dry run of the operator's own write is refused, or is not any more.
pub async fn until_refused(env: &TestEnv, resource: &str, name: &str, refused: bool) {
    let client = env.control_plane.operator_client().await.unwrap();
    eventually(PATIENCE, "the obstacle stands, or is gone", async || {
        let seen = probe(&client, &env.namespace, resource, name).await;
        if seen.is_err() == refused { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
}

/// What the API server says to such a write, as a dry run.
async fn probe(client: &Client, namespace: &str, resource: &str, name: &str) -> Result<Json, String> {
    let (group, version, kind) = match resource {
        "secrets" => ("", "v1", "Secret"),
        "deployments" => ("apps", "v1", "Deployment"),
        _ => ("boltz.bio", "v1alpha1", "BoltzApiKey"),
    };
    let api_resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind),
        resource.split('/').next().unwrap_or_default(),
    );
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &api_resource);
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"example.org/probe": "1"}}}));
    let answer = match resource {
        "boltzapikeys/status" => {
            let patch = Patch::Merge(json!({"status": {"rotations": 77}}));
            api.patch_status(name, &dry_run, &patch).await
        }
        _ => api.patch(name, &dry_run, &patch).await,
    };
    answer.map(|object| serde_json::to_value(object).unwrap()).map_err(|error| error.to_string())
}

/// Waits until what the operator writes comes back as the question wants it.
pub async fn until_altered(env: &TestEnv, resource: &str, name: &str, is_so: impl Fn(&Json) -> bool) {
    let client = env.control_plane.operator_client().await.unwrap();
    eventually(PATIENCE, "the mutation works", async || {
        let seen = probe(&client, &env.namespace, resource, name).await?;
        if is_so(&seen) { Ok(()) } else { Err(seen.to_string()) }
    })
    .await
    .unwrap();
}

fn here(env: &TestEnv) -> Json {
    json!({"matchLabels": {"kubernetes.io/metadata.name": env.namespace}})
}

fn by_operator() -> Json {
    json!({
        "name": "by-the-operator",
        "expression": "request.userInfo.username.startsWith('system:serviceaccount:boltz-system:')",
    })
}

fn constraints(env: &TestEnv, group: &str, resource: &str, operations: &[&str]) -> Json {
    let version = if group == "boltz.bio" { "v1alpha1" } else { "v1" };
    // The operator's own ConfigMaps are in its namespace.
    let selector = match resource {
        "configmaps" => json!({"matchLabels": {"kubernetes.io/metadata.name": "boltz-system"}}),
        _ => here(env),
    };
    json!({
        "namespaceSelector": selector,
        "resourceRules": [{
            "apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": operations,
        }],
    })
}

/// Creates an object of any kind.
async fn create(client: &Client, object: Json) -> (Api<DynamicObject>, String) {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = text(&object["metadata"]["name"]);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    (api, name)
}

/// Waits until the Secret, and status, name another key.
pub async fn stored_anew(env: &TestEnv, name: &str, old: &str) {
    env.until(name, "another key is in the Secret", |object| {
        let key_id = object.status.as_ref().and_then(|status| status.key_id.clone());
        key_id.is_some_and(|id| id != old)
    })
    .await;
}

/// Label, data key and template are as the spec wants them.
pub async fn in_shape(env: &TestEnv, names: &[&str]) -> Result<(), String> {
    for name in names {
        let object = env.get(name).await;
        let secret_name = object.spec.secret.name.clone().unwrap_or_else(|| (*name).to_owned());
        let secret = env.secrets().get(&secret_name).await.map_err(|error| error.to_string())?;
        let data = secret.data.clone().unwrap_or_default();
        let template = &object.spec.secret.template;
        let labelled = secret.labels().get(LABEL) == object.metadata.uid.as_ref();
        let shaped = template.labels.iter().all(|(key, value)| secret.labels().get(key) == Some(value))
            && template.annotations.iter().all(|(key, value)| secret.annotations().get(key) == Some(value));
        if !(labelled && shaped && data.contains_key(&object.spec.secret.key)) {
            return Err(format!("{name}: labels {:?}, data {:?}", secret.labels(), data.keys()));
        }
    }
    Ok(())
}

/// The objects' keys, and the neighbour's, and no other.
pub async fn right_keys_live(env: &TestEnv, names: &[&str], beside: &Option<String>) -> Result<(), String> {
    let mut expected: std::collections::BTreeSet<String> = beside.iter().cloned().collect();
    for name in names {
        let status = env.get(name).await.status.unwrap_or_default();
        expected.extend(status.key_id);
        expected.extend(status.previous_keys.into_iter().map(|previous| previous.key_id));
    }
    let active = env.active_ids();
    if active == expected {
        Ok(())
    } else {
        Err(format!("active are {active:?}, accounted for {expected:?}"))
    }
}

/// Another operator in place of the env's: a user who has the chart's rights by RoleBindings, those for Secrets apart.
pub async fn with_rights_of_its_own(env: &mut TestEnv) {
    with_neighbour(env).await;
    let user = format!("system:serviceaccount:boltz-system:{}", env.namespace);
    let roles: Api<ClusterRole> = Api::all(env.client.clone());
    let rules = roles.get("boltz-operator").await.unwrap().rules.unwrap();
    for namespace in [env.namespace.clone(), neighbour(env)] {
        for (name, for_secrets) in [("secrets", true), ("others", false)] {
            let rules: Vec<_> = rules
                .iter()
                .filter(|rule| {
                    rule.resources.as_ref().is_some_and(|kinds| kinds.contains(&"secrets".to_owned()))
                        == for_secrets
                })
                .filter(|rule| rule.resource_names.is_none())
                .collect();
            let role = json!({"metadata": {"name": name}, "rules": rules});
            let roles: Api<Role> = Api::namespaced(env.client.clone(), &namespace);
            roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
            bind(env, &namespace, name, &user).await;
        }
    }
    // What the operator remembers about its organization.
    bind(env, "boltz-system", "boltz-operator-account", &user).await;
    let kubeconfig = env.control_plane.kubeconfig_for(&user, Some("system:serviceaccounts")).unwrap();
    let mut arguments = env.arguments.clone();
    let watched = arguments.iter().position(|flag| flag == "--watch-namespaces").unwrap();
    arguments[watched + 1] = format!("{},{}", env.namespace, neighbour(env));
    env.operator.kill();
    let binary = Path::new(env!("CARGO_BIN_EXE_boltz-operator"));
    env.operator = OperatorProcess::start(binary, &kubeconfig, &arguments, &[]).unwrap();
    env.operator.wait_ready().await.unwrap();
}

/// Other tests bind other users to the Roles of the operator's namespace.
fn binding_name(env: &TestEnv, role: &str) -> String {
    format!("{role}-{}", env.namespace)
}

async fn bind(env: &TestEnv, namespace: &str, role: &str, user: &str) {
    let binding = json!({
        "metadata": {"name": binding_name(env, role)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

/// Takes the operator's rights for Secrets in that namespace away, or gives them back.
pub async fn rights_for_secrets(env: &TestEnv, namespace: &str, given: bool) {
    let client = binding(env, namespace, "secrets", given).await;
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    until_heard(given, async || secrets.get_opt("main").await.is_ok()).await;
}

/// The same for its other rights there.
pub async fn rights_for_the_rest(env: &TestEnv, namespace: &str, given: bool) {
    let client = binding(env, namespace, "others", given).await;
    let objects: Api<BoltzApiKey> = Api::namespaced(client, namespace);
    until_heard(given, async || objects.get_opt("main").await.is_ok()).await;
}

/// Binds the operator to the Role, or does not any more. Answers a client with its rights.
async fn binding(env: &TestEnv, namespace: &str, role: &str, given: bool) -> Client {
    let user = format!("system:serviceaccount:boltz-system:{}", env.namespace);
    if given {
        bind(env, namespace, role, &user).await;
    } else {
        let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), namespace);
        bindings.delete(&binding_name(env, role), &DeleteParams::default()).await.unwrap();
    }
    env.control_plane.client_for(&user, Some("system:serviceaccounts")).await.unwrap()
}

async fn until_heard(given: bool, may: impl AsyncFn() -> bool) {
    eventually(
        PATIENCE,
        "RBAC has heard of it",
        async || {
            if may().await == given { Ok(()) } else { Err("not yet") }
        },
    )
    .await
    .unwrap();
}

/// A warning among the events of the env's namespace says these words.
pub async fn warning_says(env: &TestEnv, words: &str) -> Result<(), String> {
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(env.client.clone(), &env.namespace);
    let events = events.list(&Default::default()).await.map_err(|error| error.to_string())?;
    let warnings = events.items.into_iter().filter(|event| event.type_.as_deref() == Some("Warning"));
    let notes: Vec<String> = warnings.filter_map(|event| event.note).collect();
    if notes.iter().any(|note| note.contains(words)) { Ok(()) } else { Err(format!("{notes:?}")) }
}
