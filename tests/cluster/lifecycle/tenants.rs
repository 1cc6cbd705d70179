//! The threats of docs/security.md that come from a tenant, tried by the tenant's own ServiceAccount: what its role allows,
//! and that nothing of others is reached with it.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, create_namespace, is, owned, record_of, workload};
use boltz_emulator::Operation;
use boltz_harness::{ControlPlane, eventually};
use boltz_operator::api::BoltzApiKey;
use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::SelfSubjectAccessReview,
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

/// Somebody with that role in one namespace, as its own ServiceAccount.
struct Tenant {
    client: Client,
    namespace: String,
}

impl Tenant {
    async fn of(env: &TestEnv, namespace: &str, role: &str) -> Self {
        let name = format!("tenant-{role}");
        let accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        bind(&env.control_plane, namespace, &name, role);
        let client = env.control_plane.client_of_service_account(namespace, &name).await.unwrap();
        let tenant = Self { client, namespace: namespace.to_owned() };
        // The controllers add the chart's rules to these roles.
        eventually(PATIENCE, "the role is aggregated", async || {
            let may_edit = role == "view" || tenant.may(namespace, "patch", KEYS).await;
            if may_edit && tenant.may(namespace, "list", KEYS).await { Ok(()) } else { Err("not yet") }
        })
        .await
        .unwrap();
        tenant
    }

    /// What the API server answers the tenant itself.
    async fn may(&self, namespace: &str, verb: &str, what: (&str, &str, &str)) -> bool {
        let (group, resource, subresource) = what;
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        }}}));
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review.unwrap()).await.unwrap();
        review.status.unwrap().allowed
    }

    fn objects(&self) -> Api<BoltzApiKey> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object, also with fields that there are not.
    async fn create(&self, name: &str, spec: Json) -> Result<DynamicObject, String> {
        let object = serde_json::from_value(object(name, &spec)).unwrap();
        let resource = ApiResource::erase::<BoltzApiKey>(&());
        let objects = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        objects.create(&PostParams::default(), &object).await.map_err(|error| error.to_string())
    }

    async fn make_secret(&self, name: &str, metadata: Json) {
        let mut secret = json!({"metadata": metadata, "stringData": {"BOLTZ_API_KEY": "made by hand"}});
        secret["metadata"]["name"] = json!(name);
        let secret = serde_json::from_value(secret).unwrap();
        self.secrets().create(&PostParams::default(), &secret).await.unwrap();
    }
}

fn bind(control_plane: &ControlPlane, namespace: &str, account: &str, role: &str) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": account, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    });
    control_plane.apply(&binding.to_string()).unwrap();
}

fn object(name: &str, spec: &Json) -> Json {
    json!({"apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": name}, "spec": spec})
}

/// Two namespaces with one operator: the tenant's, and one of others in which an object has its key and its workload.
struct Neighbours {
    env: TestEnv,
    others: String,
    /// The key of the object `theirs`.
    key: String,
    /// A key that a person made in Boltz's console.
    of_a_person: String,
}

impl Neighbours {
    async fn with(arguments: &[&str]) -> Self {
        let mut arguments = owned(arguments);
        arguments.extend(owned(&["--settle-time", "4s", "--request-timeout", "2s"]));
        let mut env = TestEnv::with_options(EnvOptions { arguments, ..EnvOptions::default() }).await;
        let others = format!("{}-others", env.namespace);
        create_namespace(&env.client, &others).await;
        let kubeconfig = env.control_plane.kubeconfig("operator");
        let watched = format!("{},{others}", env.namespace);
        env.replace_operator(&kubeconfig, &["--watch-namespaces", &watched]);
        env.operator.wait_ready().await.unwrap();
        let of_a_person = env.emulator.create_foreign("somebody's key").unwrap();
        let workload = serde_json::from_value(workload("Deployment", "app")).unwrap();
        let workloads: Api<Deployment> = Api::namespaced(env.client.clone(), &others);
        workloads.create(&PostParams::default(), &workload).await.unwrap();
        let mut neighbours = Self { env, others, key: String::new(), of_a_person };
        let theirs = serde_json::from_value(object("theirs", &json!({}))).unwrap();
        neighbours.objects().create(&PostParams::default(), &theirs).await.unwrap();
        neighbours.key = neighbours.ready_elsewhere("theirs").await.status.unwrap().key_id.unwrap();
        neighbours
    }

    fn objects(&self) -> Api<BoltzApiKey> {
        Api::namespaced(self.env.client.clone(), &self.others)
    }

    async fn ready_elsewhere(&self, name: &str) -> BoltzApiKey {
        let ready = eventually(PATIENCE, "it is ready", async || match self.objects().get(name).await {
            Ok(object) if is(&object, "Ready") => Ok(object),
            other => Err(format!("{:?}", other.map(|object| object.status))),
        });
        match ready.await {
            Ok(object) => object,
            Err(error) => panic!("{error}\n{}", self.env.operator.process().last_lines(40)),
        }
    }

    async fn secret_elsewhere(&self) -> Secret {
        let secrets: Api<Secret> = Api::namespaced(self.env.client.clone(), &self.others);
        secrets.get("theirs").await.unwrap()
    }

    /// Nothing of the others, nor of the person, was touched.
    async fn are_unharmed(&self) {
        let unharmed = BTreeSet::from([self.key.clone(), self.of_a_person.clone()]);
        let asked: Vec<String> = self.env.revoked_ids().intersection(&unharmed).cloned().collect();
        assert_eq!(asked, [""; 0], "revocations were asked for");
        assert!(self.env.active_ids().is_superset(&unharmed));
        let theirs = self.objects().get("theirs").await.unwrap();
        assert!(is(&theirs, "Ready") && theirs.status.unwrap().key_id.as_ref() == Some(&self.key));
        assert_eq!(record_of(&self.secret_elsewhere().await).key_id, self.key);
        let workloads: Api<Deployment> = Api::namespaced(self.env.client.clone(), &self.others);
        let workload = workloads.get("app").await.unwrap();
        let annotations = workload.spec.unwrap().template.metadata.unwrap().annotations;
        assert_eq!(annotations, None, "the workload of others was restarted");
    }
}

const KEYS: (&str, &str, &str) = ("boltz.bio", "boltzapikeys", "");
const STATUS: (&str, &str, &str) = ("boltz.bio", "boltzapikeys", "status");
const SECRETS: (&str, &str, &str) = ("", "secrets", "");

/// The table in docs/security.md.
#[tokio::test]
async fn what_each_role_may_do() {
    let env = TestEnv::new().await;
    let elsewhere = format!("{}-elsewhere", env.namespace);
    create_namespace(&env.client, &elsewhere).await;
    for (role, edits) in [("view", false), ("edit", true), ("admin", true)] {
        let tenant = Tenant::of(&env, &env.namespace, role).await;
        for (namespace, verbs, what, is_allowed) in [
            (env.namespace.as_str(), "get list watch", KEYS, true),
            (&env.namespace, "create update patch delete deletecollection", KEYS, edits),
            (&env.namespace, "get list create patch delete", SECRETS, edits),
            // Only the operator writes it.
            (&env.namespace, "update patch", STATUS, false),
            (&elsewhere, "get list create patch delete", KEYS, false),
            (&elsewhere, "get list create patch delete", SECRETS, false),
            ("boltz-system", "get list patch", SECRETS, false),
            ("boltz-system", "get patch", ("", "configmaps", ""), false),
            ("boltz-system", "get", ("", "pods", "log"), false),
            ("boltz-system", "create", ("", "pods", "portforward"), false),
            ("boltz-system", "create", ("", "pods", "exec"), false),
            // What the policies of the chart look at.
            ("", "patch", ("", "namespaces", ""), false),
        ] {
            for verb in verbs.split(' ') {
                let may = tenant.may(namespace, verb, what).await;
                assert_eq!(may, is_allowed, "{role}: {verb} {what:?} in {namespace}");
            }
        }
    }
}

/// By names, ownerReferences, labels, forged records and a forged ledger.
#[tokio::test]
async fn a_tenant_reaches_no_secret_key_or_workload_of_others() {
    let neighbours = Neighbours::with(&[]).await;
    let (env, others) = (&neighbours.env, &neighbours.others);
    let tenant = Tenant::of(env, &env.namespace, "edit").await;
    let theirs = neighbours.objects().get("theirs").await.unwrap();
    let record = neighbours.secret_elsewhere().await.annotations()["boltz.bio/record"].clone();

    // Another's Secret by its name.
    for name in [format!("{others}/theirs"), format!("../{others}/theirs"), "theirs\n".to_owned()] {
        let refused = tenant.create("by-name", json!({"secret": {"name": name}})).await.unwrap_err();
        assert!(refused.contains("DNS-1123"), "{refused}");
    }
    // A workload elsewhere, and an address for the admin key: there are no such fields.
    let elsewhere = json!([{"kind": "Deployment", "name": "app", "namespace": others}]);
    let spec =
        json!({"rolloutRestartTargets": elsewhere, "baseURL": "http://127.0.0.1:1", "namespace": others});
    tenant.create("elsewhere", spec).await.unwrap();
    // A Secret that says it belongs to the others' object, with their record, and with a person's key as a previous one.
    let mut forged: Json = serde_json::from_str(&record).unwrap();
    forged["previous"] = json!([
        {"keyID": neighbours.of_a_person, "revokeAfter": "2020-01-01T00:00:00Z"},
        {"keyID": neighbours.key, "revokeAfter": "2020-01-01T00:00:00Z"},
    ]);
    let owner = json!([{
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "name": "theirs",
        "uid": theirs.metadata.uid, "controller": true,
    }]);
    let annotations = json!({"boltz.bio/record": forged.to_string(), "boltz.bio/adoptable-by": "adopts"});
    let labels = json!({"boltz.bio/owner-uid": theirs.metadata.uid});
    tenant.make_secret("adopts", json!({"annotations": annotations, "labels": labels})).await;
    tenant
        .make_secret("owned", json!({"annotations": annotations, "labels": labels, "ownerReferences": owner}))
        .await;
    tenant.create("adopts", json!({"secret": {"adopt": true}, "rotation": {"overlap": "0s"}})).await.unwrap();
    tenant.create("owned", json!({"rotation": {"overlap": "0s"}})).await.unwrap();
    // The tenant's own Secret and object, forged.
    tenant.create("forged", json!({"rotation": {"overlap": "0s"}})).await.unwrap();
    env.ready("forged").await;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"boltz.bio/record": forged.to_string()}}}));
    tenant.secrets().patch("forged", &PatchParams::default(), &patch).await.unwrap();
    let ledger = theirs.annotations().get("boltz.bio/attempts").expect("the ledger of a current key");
    let annotations = json!({"boltz.bio/attempts": ledger, "boltz.bio/rotate-now": "1"});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    tenant.objects().patch("forged", &PatchParams::default(), &patch).await.unwrap();
    // Only the operator writes status.
    let status = Patch::Merge(json!({"status": {"previousKeys": [{"keyID": neighbours.key}]}}));
    let refused = tenant.objects().patch_status("forged", &PatchParams::default(), &status).await;
    assert!(matches!(&refused, Err(kube::Error::Api(error)) if error.code == 403), "{refused:?}");

    env.ready("forged").await;
    env.ready("elsewhere").await;
    // Past the settle time and all overlaps.
    env.passes(8).await;
    neighbours.are_unharmed().await;
    for name in ["by-name", "elsewhere", "adopts", "owned", "forged"] {
        let _ = tenant.objects().delete(name, &DeleteParams::default()).await;
        env.gone(name).await;
    }
    env.passes(3).await;
    neighbours.are_unharmed().await;
    // With all that the tenant has written, a rotation of the others goes as always.
    let rotate = Patch::Merge(json!({"metadata": {"annotations": {"boltz.bio/rotate-now": "1"}}}));
    neighbours.objects().patch("theirs", &PatchParams::default(), &rotate).await.unwrap();
    env.wait("their key is revoked because they asked for it", || {
        if env.revoked_ids().contains(&neighbours.key) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    assert!(env.active_ids().contains(&neighbours.of_a_person));
}

/// A display name that is the name of a key of others: the operator's own marker comes after it.
#[tokio::test]
async fn a_marker_in_a_display_name_makes_no_key_that_of_others() {
    let neighbours = Neighbours::with(&[]).await;
    let env = &neighbours.env;
    let tenant = Tenant::of(env, &env.namespace, "edit").await;
    let name = env.emulator.key(&neighbours.key).unwrap().name;
    let marker = name.split(' ').next_back().unwrap().to_owned();
    for (object, display_name) in
        [("whole", name.clone()), ("marker", marker.clone()), ("spaced", format!("x {marker}"))]
    {
        tenant.create(object, json!({"displayName": display_name})).await.unwrap();
        env.ready(object).await;
    }
    env.passes(3).await;
    let of_tenant = env.id_of("whole").await;
    // The others' object goes, and only its own key.
    neighbours.objects().delete("theirs", &DeleteParams::default()).await.unwrap();
    env.wait("their key is revoked", || {
        if env.active_ids().contains(&neighbours.key) { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    env.passes(3).await;
    assert!(env.active_ids().contains(&of_tenant), "it is the tenant's");
    env.judge_all(&["whole", "marker", "spaced"], &[&neighbours.of_a_person]).await;
}

/// Line breaks and quotes in everything that a tenant can write.
#[tokio::test]
async fn what_a_tenant_writes_forges_no_log_line_event_header_or_metric() {
    let neighbours = Neighbours::with(&["--log-format", "json"]).await;
    let env = &neighbours.env;
    let tenant = Tenant::of(env, &env.namespace, "edit").await;
    let evil = "1\r\nx-api-key: evil\n{\"level\":\"ERROR\",\"message\":\"forged line\"}\nboltz_orphaned_keys 666\u{1b}[31m";
    let refused = tenant.create("refused", json!({"workspaceID": "ws\r\nx: y"})).await.unwrap_err();
    assert!(refused.contains("workspaceID"), "{refused}");
    tenant.create("evil", json!({"displayName": &evil[..40]})).await.unwrap();
    env.ready("evil").await;
    let annotations = json!({
        "boltz.bio/rotate": evil, "boltz.bio/retry": evil, "boltz.bio/deletion-policy": evil,
        "boltz.bio/attempts": evil, "boltz.bio/paused": evil,
    });
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    tenant.objects().patch("evil", &PatchParams::default(), &patch).await.unwrap();
    env.passes(3).await;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"boltz.bio/record": evil}}}));
    tenant.secrets().patch("evil", &PatchParams::default(), &patch).await.unwrap();
    env.passes(5).await;
    let metrics = env.operator.get("/metrics").await.unwrap();
    for line in metrics.lines() {
        assert_ne!(line, "boltz_orphaned_keys 666");
        assert!(["#", "boltz_", "process_"].iter().any(|begin| line.starts_with(begin)), "{line}");
    }
    let log = env.operator.log();
    // The last line may be half written.
    let (lines, _) = log.rsplit_once('\n').unwrap();
    for line in lines.lines() {
        let line: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(line["message"], "forged line");
    }
    let events = env.control_plane.kubectl(&["get", "events", "-n", &env.namespace, "-o", "json"]).unwrap();
    let events: Json = serde_json::from_str(&events).unwrap();
    for event in events["items"].as_array().unwrap() {
        let note = event["message"].as_str().unwrap_or_default();
        assert!(!note.contains(['\n', '\r', '\u{1b}']), "{note:?}");
    }
    neighbours.are_unharmed().await;
}

/// Forty objects at a rate of thirty new keys per minute: the others' next key does not wait for them.
#[tokio::test]
async fn a_tenant_with_many_objects_does_not_exhaust_the_mints_of_others() {
    let neighbours = Neighbours::with(&["--max-mints-per-minute", "30"]).await;
    let env = &neighbours.env;
    let tenant = Tenant::of(env, &env.namespace, "edit").await;
    for number in 0..40 {
        tenant.create(&format!("many-{number}"), json!({})).await.unwrap();
    }
    env.wait("the tenant's objects get keys", || match env.emulator.count(Operation::Create) {
        0 | 1 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
    let next = serde_json::from_value(object("next", &json!({}))).unwrap();
    neighbours.objects().create(&PostParams::default(), &next).await.unwrap();
    neighbours.ready_elsewhere("next").await;
    let objects = tenant.objects().list(&Default::default()).await.unwrap();
    let waiting = objects.iter().filter(|object| !is(object, "Ready")).count();
    assert!(waiting > 20, "{waiting} objects of the tenant still wait");
    neighbours.are_unharmed().await;
}
