//! `BoltzAccounts`: who may use them, that objects stay with theirs, that one does not slow another down, and how they go.

use crate::{
    kubectl_boltz::Plugin,
    test_env::{EnvOptions, PATIENCE, TestEnv, condition, emulator, is, observed, owned},
};
use boltz_emulator::{Effect, Emulator, Fault, Operation, Outcome, Settings, StandingFault};
use boltz_harness::eventually;
use boltz_operator::api::{BoltzAccount, BoltzApiKey};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What the operator needs beside its usual rights.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: accounts}
rules:
  - {apiGroups: [boltz.bio], resources: [boltzaccounts], verbs: [get, list, watch, patch]}
  - {apiGroups: [boltz.bio], resources: [boltzaccounts/status], verbs: [patch]}
  - {apiGroups: [""], resources: [namespaces], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: accounts}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: accounts}
subjects: [{kind: ServiceAccount, name: boltz-operator, namespace: boltz-system}]
"#;

/// The namespace of an operator outside the cluster is that of its kubeconfig.
const OPERATOR_NAMESPACE: &str = "default";

struct Accounts {
    env: TestEnv,
    /// The Boltz of each account, by its place in `organizations`.
    boltz: Vec<Arc<Emulator>>,
}

impl Accounts {
    /// An operator, and a Boltz for each of these organizations besides that of the flags.
    async fn new(organizations: &[&str]) -> Self {
        let mut boltz = Vec::new();
        for organization in organizations {
            let organization_id = Some((*organization).to_owned());
            boltz.push(emulator(Settings { organization_id, ..Settings::default() }).await);
        }
        let urls: Vec<String> = boltz.iter().map(|emulator| emulator.base_url()).collect();
        let options = EnvOptions {
            own_control_plane: true,
            all_namespaces: true,
            arguments: owned(&["--allowed-boltz-urls", &urls.join(",")]),
            environment: vec![("BOLTZ_OPERATOR_BOLTZ_ACCOUNTS".to_owned(), "true".to_owned())],
            ..EnvOptions::default()
        };
        let env = TestEnv::with_options(options).await;
        env.control_plane.apply(include_str!("../../../crds/boltzaccounts.yaml")).unwrap();
        env.control_plane.apply(RIGHTS).unwrap();
        Self { env, boltz }
    }

    fn api(&self) -> Api<BoltzAccount> {
        Api::all(self.env.client.clone())
    }

    /// A Secret with the admin key of that Boltz.
    async fn secret(&self, name: &str, boltz: usize) {
        let secret = json!({
            "metadata": {"name": name}, "stringData": {"admin-key": self.boltz[boltz].admin_key()},
        });
        let secrets: Api<Secret> = Api::namespaced(self.env.client.clone(), OPERATOR_NAMESPACE);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }

    /// An account of that Boltz, and its Secret.
    async fn account(&self, name: &str, boltz: usize, spec: Json) {
        self.secret(&format!("{name}-admin-key"), boltz).await;
        let mut whole = json!({
            "adminKeySecretRef": {"name": format!("{name}-admin-key")},
            "baseURL": self.boltz[boltz].base_url(),
            "inventoryInterval": "1s",
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let account = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzAccount", "metadata": {"name": name}, "spec": whole,
        });
        let account = serde_json::from_value(account).unwrap();
        self.api().create(&PostParams::default(), &account).await.unwrap();
    }

    async fn until(&self, name: &str, what: &str, is_so: impl Fn(&BoltzAccount) -> bool) -> BoltzAccount {
        let seen = eventually(PATIENCE, what, async || match self.api().get(name).await {
            Ok(account) if is_so(&account) => Ok(account),
            Ok(account) => Err(serde_json::to_string(&account).unwrap()),
            Err(error) => Err(error.to_string()),
        });
        match seen.await {
            Ok(account) => account,
            Err(error) => panic!("{error}\n{}", self.env.operator.process().last_lines(40)),
        }
    }

    async fn ready(&self, name: &str) -> BoltzAccount {
        self.until(name, "the account is Ready", |account| reason(account, "Ready").0 == "True").await
    }

    async fn until_gone(&self, name: &str) {
        let gone =
            eventually(PATIENCE, "the account is gone", async || match self.api().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        gone.await.unwrap();
    }

    async fn patch(&self, name: &str, patch: Json) {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn until_active(&self, boltz: usize, count: usize) {
        self.env
            .wait(&format!("{count} active keys"), || {
                let active = self.boltz[boltz].active_keys().len();
                if active == count { Ok(()) } else { Err(format!("{active} active keys")) }
            })
            .await;
    }
}

fn reason(account: &BoltzAccount, kind: &str) -> (String, String) {
    let conditions = account.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map(|found| (found.status.clone(), found.reason.clone())).unwrap_or_default()
}

fn with(account: &str) -> Json {
    json!({"accountRef": {"name": account}})
}

fn is_denied(object: &BoltzApiKey) -> bool {
    condition(object, "Stalled").is_some_and(|it| it.status == "True" && it.reason == "PolicyDenied")
        && observed(object)
}

#[tokio::test]
async fn an_account_serves_those_whom_it_selects_and_goes_with_its_last_key() {
    let all = Accounts::new(&["org_other"]).await;
    let env = &all.env;
    env.create("early", with("other")).await;
    env.not_ready("early", "PolicyDenied").await;
    all.account("other", 0, json!({"namespaceSelector": {"matchLabels": {"team": "a"}}})).await;
    let account = all.ready("other").await;
    assert_eq!(account.finalizers(), ["boltz.bio/account-in-use"]);
    let status = account.status.unwrap();
    assert_eq!(status.organization_id.as_deref(), Some("org_other"));
    assert_eq!(status.admin_key_prefix.as_deref(), Some("sk_bc_admin_"));
    let denied = env.not_ready("early", "PolicyDenied").await;
    assert_eq!(denied.status.unwrap().account_name, None, "it has made no attempt");
    assert_eq!(all.boltz[0].count(Operation::Create), 0);

    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
    namespaces.patch(&env.namespace, &PatchParams::default(), &label).await.unwrap();
    let early = env.ready("early").await.status.unwrap();
    assert_eq!(early.account_name.as_deref(), Some("other"));
    env.create("of-flags", json!({})).await;
    assert_eq!(env.ready("of-flags").await.status.unwrap().account_name, None);
    all.until_active(0, 1).await;
    assert_eq!(env.active_ids().len(), 1);
    let counts = |account: &BoltzAccount| account.status.as_ref().unwrap().keys.map(|keys| keys.current);
    all.until("other", "its key is counted", |account| counts(account) == Some(1)).await;

    // Its keys are still managed, and no new one is issued.
    all.api().delete("other", &DeleteParams::default()).await.unwrap();
    all.until("other", "it waits for its keys", |account| reason(account, "Ready").1 == "Deleting").await;
    env.create("late", with("other")).await;
    env.not_ready("late", "PolicyDenied").await;
    assert!(is(&env.get("early").await, "Ready"));
    for name in ["early", "late"] {
        env.delete(name).await;
        env.gone(name).await;
    }
    all.until_active(0, 0).await;
    all.until_gone("other").await;
    assert!(is(&env.get("of-flags").await, "Ready"));
}

#[tokio::test]
async fn an_object_stays_with_its_account() {
    let all = Accounts::new(&["org_a", "org_b"]).await;
    let env = &all.env;
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        all.account(name, index, json!({"namespaceSelector": {}})).await;
        all.ready(name).await;
    }
    env.create("of-a", with("a")).await;
    env.create("of-flags", json!({})).await;
    let before = [env.id_of("of-a").await, env.id_of("of-flags").await];
    env.patch("of-a", json!({"spec": with("b")})).await;
    env.until("of-a", "the change is denied", is_denied).await;
    // Another default is for new objects only.
    all.patch("b", json!({"metadata": {"annotations": {"boltz.bio/is-default-account": "true"}}})).await;
    env.until("of-flags", "the change is denied", is_denied).await;
    env.create("new", json!({})).await;
    assert_eq!(env.ready("new").await.status.unwrap().account_name.as_deref(), Some("b"));
    for name in ["of-a", "of-flags"] {
        env.annotate(name, "boltz.bio/rotate", "1").await;
        env.until(name, "a rotation where it was", |object| {
            object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
        })
        .await;
    }
    assert_eq!(
        before,
        [
            env.record("of-a").await.previous[0].key_id.clone(),
            env.record("of-flags").await.previous[0].key_id.clone()
        ]
    );
    assert_eq!((all.boltz[0].active_keys().len(), all.boltz[1].active_keys().len()), (2, 1));
    assert_eq!(env.active_ids().len(), 2);
}

/// An account whose Boltz fails, limits its calls, or does not answer.
#[tokio::test]
async fn a_broken_account_slows_no_other() {
    let all = Accounts::new(&["org_broken", "org_good"]).await;
    let env = &all.env;
    for (index, name) in ["broken", "good"].into_iter().enumerate() {
        all.account(name, index, json!({"namespaceSelector": {}})).await;
        all.ready(name).await;
    }
    let hang = || {
        StandingFault::of(Fault {
            operation: None,
            ..Fault::once(Operation::Create, Effect::None, Outcome::Hang)
        })
    };
    let status = |status| {
        let fault = Fault::once(Operation::Create, Effect::None, Outcome::status(status));
        StandingFault::of(Fault { operation: None, ..fault })
    };
    for (number, (what, fault)) in
        [("500", status(500)), ("429", status(429)), ("hangs", hang())].into_iter().enumerate()
    {
        all.boltz[0].stand("broken", fault);
        // More than are reconciled at the same time.
        for index in 0..60 {
            env.create(&format!("broken-{number}-{index}"), with("broken")).await;
        }
        env.until(&format!("broken-{number}-59"), what, |object| {
            condition(object, "Ready").is_some_and(|ready| ready.status == "False") && observed(object)
        })
        .await;
        for index in 0..3 {
            let name = format!("good-{number}-{index}");
            let started = Instant::now();
            env.create(&name, with("good")).await;
            env.ready(&name).await;
            let took = started.elapsed();
            assert!(took <= Duration::from_secs(2), "{what}: the first key of another account took {took:?}");
        }
    }
}

#[tokio::test]
async fn a_namespace_gets_as_many_live_keys_as_it_may_have() {
    let all = Accounts::new(&["org_limited"]).await;
    let env = &all.env;
    let keys = json!({"maxPerNamespace": 3});
    all.account("limited", 0, json!({"namespaceSelector": {}, "keys": keys})).await;
    all.ready("limited").await;
    for index in 0..8 {
        env.create(&format!("key-{index}"), with("limited")).await;
    }
    all.until_active(0, 3).await;
    let mut ready = Vec::new();
    for index in 0..8 {
        let name = format!("key-{index}");
        let object = env.until(&name, "it is Ready, or denied", |it| is(it, "Ready") || is_denied(it)).await;
        ready.extend(is(&object, "Ready").then_some(name));
    }
    assert_eq!((ready.len(), all.boltz[0].count(Operation::Create)), (3, 3), "no key was requested in vain");
    // Create, retain, delete, repeat: the key goes with its object, whatever its annotation says.
    env.annotate(&ready[0], "boltz.bio/deletion-policy", "Retain").await;
    let retained = env.record(&ready[0]).await.key_id;
    env.delete(&ready[0]).await;
    env.gone(&ready[0]).await;
    assert!(all.boltz[0].active_keys().iter().all(|key| key.id != retained));
    // As the garbage collector does, which this control plane does not have.
    env.secrets().delete(&ready[0], &DeleteParams::default()).await.unwrap();
    // Its place is for another one.
    all.until_active(0, 3).await;
}

#[tokio::test]
async fn what_a_tenant_edits_gives_no_more_live_keys() {
    let all = Accounts::new(&["org_limited"]).await;
    let env = &all.env;
    all.account("limited", 0, json!({"namespaceSelector": {}, "keys": {"maxPerNamespace": 3}})).await;
    all.ready("limited").await;
    for name in ["suspended", "edited", "stripped"] {
        env.create(name, with("limited")).await;
        env.ready(name).await;
    }
    // The key lives on, and no Secret names it.
    env.patch("suspended", json!({"spec": {"suspend": true}})).await;
    env.until("suspended", "it is suspended", observed).await;
    env.secrets().delete("suspended", &DeleteParams::default()).await.unwrap();
    // The key is said to be of another account.
    let mut record = serde_json::to_value(env.record("edited").await).unwrap();
    record["account"] = json!("nope");
    let annotations = json!({"metadata": {"annotations": {"boltz.bio/record": record.to_string()}}});
    let patch = Patch::Merge(annotations);
    env.secrets().patch("edited", &PatchParams::default(), &patch).await.unwrap();
    // The object is gone, and its key is an orphan, unless the operator was faster.
    env.patch("stripped", json!({"metadata": {"finalizers": []}})).await;
    env.objects().delete("stripped", &DeleteParams::default()).await.unwrap();
    let settled = async |name: &str| {
        env.until(name, "it is Ready, or denied", |it| is(it, "Ready") || is_denied(it)).await;
    };
    for index in 0..3 {
        env.create(&format!("more-{index}"), with("limited")).await;
        settled(&format!("more-{index}")).await;
    }
    let before = all.boltz[0].count(Operation::List);
    env.wait("more passes", || {
        let passes = all.boltz[0].count(Operation::List) - before;
        if passes >= 3 { Ok(()) } else { Err(format!("{passes} passes")) }
    })
    .await;
    for index in 0..3 {
        settled(&format!("more-{index}")).await;
    }
    let active = all.boltz[0].active_keys().len();
    assert!(active <= 3, "{active} live keys");
}

/// Somebody removes the finalizer of an account whose admin key is lost.
#[tokio::test]
async fn an_object_whose_account_is_gone_can_be_deleted_and_keeps_its_key() {
    let all = Accounts::new(&["org_gone"]).await;
    let env = &all.env;
    all.account("gone", 0, json!({"namespaceSelector": {}})).await;
    all.ready("gone").await;
    env.create("key", with("gone")).await;
    env.ready("key").await;
    all.api().delete("gone", &DeleteParams::default()).await.unwrap();
    all.until("gone", "it waits for its keys", |account| reason(account, "Ready").1 == "Deleting").await;
    all.patch("gone", json!({"metadata": {"finalizers": null}})).await;
    all.until_gone("gone").await;
    let says_that_it_is_gone = |object: &BoltzApiKey| {
        let message = condition(object, "Stalled").map(|condition| condition.message.clone());
        message.is_some_and(|message| message.contains("does not exist"))
    };
    env.annotate("key", "boltz.bio/rotate", "1").await;
    env.until("key", "it says so", says_that_it_is_gone).await;
    env.delete("key").await;
    let advice = |object: &BoltzApiKey| {
        let conditions =
            object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| condition.message.contains("boltz.bio/deletion-policy=Retain"))
    };
    env.until("key", "it says what to do", advice).await;
    env.annotate("key", "boltz.bio/deletion-policy", "Retain").await;
    env.gone("key").await;
    assert_eq!(all.boltz[0].active_keys().len(), 1);
}

/// It was never used, so it has no keys.
#[tokio::test]
async fn an_account_that_was_never_used_goes_at_once() {
    let all = Accounts::new(&["org_new", "org_newer"]).await;
    all.account("elsewhere", 0, json!({"baseURL": "https://elsewhere.example"})).await;
    let refused = |account: &BoltzAccount| reason(account, "Ready").1 == "BaseURLNotAllowed";
    all.until("elsewhere", "its address is refused", refused).await;
    // It counts for nothing that an object names it and has got no key.
    all.env.create("key", with("elsewhere")).await;
    all.env.not_ready("key", "PolicyDenied").await;
    all.api().delete("elsewhere", &DeleteParams::default()).await.unwrap();
    all.until_gone("elsewhere").await;
    // Another one of its name may be of another organization.
    for (boltz, organization) in ["org_new", "org_newer"].into_iter().enumerate() {
        all.account("again", boltz, json!({"namespaceSelector": {}})).await;
        let account = all.ready("again").await;
        assert_eq!(account.status.unwrap().organization_id.as_deref(), Some(organization));
        // As a person does who knows better.
        all.api().delete("again", &DeleteParams::default()).await.unwrap();
        let strip = json!({"metadata": {"finalizers": null}});
        if all.api().get_opt("again").await.unwrap().is_some() {
            let _ = all.api().patch("again", &PatchParams::default(), &Patch::Merge(strip)).await;
        }
        all.until_gone("again").await;
        let secrets: Api<Secret> = Api::namespaced(all.env.client.clone(), OPERATOR_NAMESPACE);
        secrets.delete("again-admin-key", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn what_an_account_does_not_allow_is_not_requested() {
    let all = Accounts::new(&["org_strict", "org_elsewhere"]).await;
    let env = &all.env;
    let policy = json!({
        "namespaceSelector": {},
        "workspaces": {"allowed": ["ws_1"], "default": "ws_1"},
        "modes": ["test"],
        "keys": {"maxExpiresInDays": 30, "requireExpiry": true, "allowRetain": false},
    });
    all.account("strict", 0, policy).await;
    all.ready("strict").await;
    let good = json!({"accountRef": {"name": "strict"}, "mode": "test", "expiresInDays": 30});
    for (name, change) in [
        ("workspace", json!({"workspaceID": "ws_2"})),
        ("mode", json!({"mode": "live"})),
        ("long", json!({"expiresInDays": 31})),
        ("endless", json!({"expiresInDays": null})),
        ("retained", json!({"deletionPolicy": "Retain"})),
    ] {
        let mut spec = good.clone();
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        env.create(name, spec).await;
        env.not_ready(name, "PolicyDenied").await;
    }
    assert_eq!(all.boltz[0].count(Operation::Create), 0);
    env.create("good", good).await;
    let status = env.ready("good").await.status.unwrap();
    assert_eq!(status.workspace_id.as_deref(), Some("ws_1"), "the account's default workspace");
    // What becomes narrower revokes nothing.
    all.patch("strict", json!({"spec": {"keys": {"maxExpiresInDays": 7}}})).await;
    env.until("good", "the violation is reported", is_denied).await;
    assert!(is(&env.get("good").await, "Ready"));
    all.until_active(0, 1).await;
}

#[tokio::test]
async fn the_example_serves_two_organizations() {
    let all = Accounts::new(&["org_development", "org_production"]).await;
    let namespace = json!({"metadata": {"name": "design-production", "labels": {"stage": "production"}}});
    let namespaces: Api<Namespace> = Api::all(all.env.client.clone());
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    all.secret("boltz-development", 0).await;
    all.secret("boltz-production", 1).await;
    // Only the addresses are others.
    let mut urls = all.boltz.iter().map(|boltz| boltz.base_url());
    let example = include_str!("../../../examples/accounts/two-organizations.yaml").lines().map(|line| {
        let is_account = line == "  adminKeySecretRef:";
        let url = is_account.then(|| format!("  baseURL: {}\n", urls.next().unwrap()));
        format!("{}{line}\n", url.unwrap_or_default())
    });
    let example: String = example.collect();
    let control_plane = all.env.control_plane.clone();
    // The emulators go on answering meanwhile.
    let applied = tokio::task::spawn_blocking(move || {
        control_plane.kubectl_with_input(&["create", "--validate=strict", "--filename=-"], &example)
    });
    applied.await.unwrap().unwrap();
    all.ready("development").await;
    all.ready("production").await;
    let objects: Api<BoltzApiKey> = Api::namespaced(all.env.client.clone(), "design-production");
    let issued = eventually(PATIENCE, "the key is issued", async || match objects.get("design").await {
        Ok(object) if is(&object, "Ready") => Ok(object),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(issued.await.unwrap().status.unwrap().account_name.as_deref(), Some("production"));
    assert_eq!(all.boltz.iter().map(|boltz| boltz.active_keys().len()).collect::<Vec<_>>(), [0, 1]);
    let said = Plugin::of_admin(&all.env).run(&["doctor"]);
    assert!(said.out.contains("✓ BoltzAccounts: 2 are Ready"), "{said:?}");
}

#[tokio::test]
async fn an_account_with_another_address_than_the_allowed_ones_is_not_served() {
    let all = Accounts::new(&["org_allowed"]).await;
    let elsewhere = emulator(Settings::default()).await;
    all.env.create("earlier", with("elsewhere")).await;
    all.env.not_ready("earlier", "PolicyDenied").await;
    let account = json!({"namespaceSelector": {}, "baseURL": elsewhere.base_url()});
    all.account("elsewhere", 0, account).await;
    let refused = |account: &BoltzAccount| reason(account, "Ready").1 == "BaseURLNotAllowed";
    all.until("elsewhere", "its address is refused", refused).await;
    all.env.create("key", with("elsewhere")).await;
    // Also those that were there before their account say why.
    for name in ["key", "earlier"] {
        all.env
            .until(name, "it says why", |it| {
                is_denied(it)
                    && condition(it, "Stalled").is_some_and(|it| it.message.contains("--allowed-boltz-urls"))
            })
            .await;
    }
    assert_eq!(elsewhere.requests().len(), 0, "nothing was sent there");
}

#[tokio::test]
async fn orphans_are_in_the_status_of_their_account() {
    let all = Accounts::new(&["org_orphans"]).await;
    all.account("orphans", 0, json!({"namespaceSelector": {}})).await;
    all.ready("orphans").await;
    let name = format!("orphan bo.{}.550e8400e29b41d4.0123456789ab", all.env.namespace);
    let orphan = all.boltz[0].create_foreign(&name).unwrap();
    all.boltz[0].create_foreign("a person's key").unwrap();
    let listed = |account: &BoltzAccount| {
        let status = account.status.clone().unwrap_or_default();
        let keys = status.keys.unwrap_or_default();
        status.orphans.iter().any(|known| known.key_id == orphan) && (keys.orphaned, keys.foreign) == (1, 1)
    };
    let account = all.until("orphans", "the orphan is listed", listed).await;
    let reported = account.status.unwrap().orphans.remove(0);
    assert!(name.ends_with(&reported.name), "{}", reported.name);
    assert!(reported.created_at.is_some());
    let metric = r#"boltz_orphaned_keys{account="orphans"} 1"#;
    all.env.until_metric(metric).await;
    // One request is for all accounts.
    let of_flags = all.env.emulator.create_foreign(&name).unwrap();
    let plugin = Plugin::of_admin(&all.env);
    let published = eventually(PATIENCE, "both orphans are published", async || {
        let said = plugin.run(&["orphans"]);
        if [&orphan, &of_flags].iter().all(|id| said.out.contains(*id)) {
            Ok(said.out)
        } else {
            Err(said.out)
        }
    });
    let table = published.await.unwrap();
    let line = |id: &str| table.lines().find(|line| line.starts_with(id)).unwrap().trim_end().to_owned();
    assert!(line(&orphan).ends_with(" orphans") && line(&of_flags).ends_with(" -"), "{table}");
    let keys = plugin.json(&["keys", "-A"]);
    let named = keys["keys"].as_array().unwrap().iter().find(|key| key["keyID"] == orphan.as_str()).unwrap();
    assert_eq!((&named["account"], &named["state"]), (&json!("orphans"), &json!("orphan")));
    let said = plugin.expect(0, &["orphans", "--revoke", "--yes", "--older-than", "0s"]);
    assert!([&orphan, &of_flags].iter().all(|id| said.out.contains(&format!("{id} revoked"))), "{said:?}");
    all.until_active(0, 1).await;

    let orphan = all.boltz[0].create_foreign(&name).unwrap();
    all.patch("orphans", json!({"spec": {"orphanPolicy": "Revoke", "orphanGrace": "1s"}})).await;
    all.until_active(0, 1).await;
    all.until("orphans", "no orphan is listed", |account| account.status.clone().unwrap().orphans.is_empty())
        .await;
    assert!(all.boltz[0].active_keys().iter().all(|key| key.id != orphan));

    // What is published of an account goes with it.
    all.api().delete("orphans", &DeleteParams::default()).await.unwrap();
    all.until_gone("orphans").await;
    let published: Api<ConfigMap> = Api::namespaced(all.env.client.clone(), "boltz-system");
    let data = published.get("boltz-operator-orphans").await.unwrap().data.unwrap();
    let names: Vec<&String> = data.keys().filter(|key| key.split('.').count() > 2).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn an_admin_key_is_read_again_and_must_be_of_the_same_organization() {
    let all = Accounts::new(&["org_first"]).await;
    all.account("first", 0, json!({"namespaceSelector": {}})).await;
    all.ready("first").await;
    let secrets: Api<Secret> = Api::namespaced(all.env.client.clone(), OPERATOR_NAMESPACE);
    let replace = async |key: &str| {
        let patch = Patch::Merge(json!({"stringData": {"admin-key": key}}));
        secrets.patch("first-admin-key", &PatchParams::default(), &patch).await.unwrap();
    };
    // A key that Boltz refuses does not replace the one before.
    replace("sk_bc_admin_live_wrong").await;
    all.env.until_metric(r#"boltz_admin_key_new_unproved{account="first"} 1"#).await;
    assert_eq!(reason(&all.api().get("first").await.unwrap(), "Ready").0, "True");
    all.boltz[0].change(|settings| settings.organization_id = Some("org_second".to_owned()));
    replace(all.boltz[0].admin_key()).await;
    let other = |it: &BoltzAccount| reason(it, "AdminKeyValid").1 == "OtherOrganization";
    all.until("first", "the organization is another one", other).await;
    all.boltz[0].change(|settings| settings.organization_id = Some("org_first".to_owned()));
    all.ready("first").await;
    secrets.delete("first-admin-key", &DeleteParams::default()).await.unwrap();
    all.until("first", "there is no key", |it| reason(it, "Ready").1 == "AdminKeyMissing").await;
    let said = Plugin::of_admin(&all.env).run(&["doctor"]);
    assert!(said.out.contains("✗ BoltzAccounts: first is not Ready: AdminKeyMissing: "), "{said:?}");
    let account = all.api().get("first").await.unwrap();
    assert!(!serde_json::to_string(&account).unwrap().contains("live_emulated"), "no key in the status");
}
