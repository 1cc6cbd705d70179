//! The control plane itself: identities, audit log, restarts, clean-up.

use boltz_harness::{
    Component, ControlPlane, ControlPlaneOptions, OPERATOR_USER,
    child_process::OwnedProcess,
    eventually,
    owner::{self, Owner},
};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn who_am_i(client: Client) -> (String, Vec<String>) {
    let review =
        Api::all(client).create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap();
    (user.username.unwrap(), user.groups.unwrap())
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_identity_is_who_it_says() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let (user, groups) = who_am_i(control_plane.operator_client().await.unwrap()).await;
    assert_eq!(user, OPERATOR_USER);
    assert_eq!(
        groups,
        ["system:serviceaccounts", "system:serviceaccounts:boltz-system", "system:authenticated"]
    );
    let (user, groups) = who_am_i(control_plane.admin_client().await.unwrap()).await;
    assert_eq!((user.as_str(), groups[0].as_str()), ("admin", "system:masters"));
    let tenant = control_plane.client_for("tenant", Some("team-a")).await.unwrap();
    assert_eq!(
        who_am_i(tenant).await,
        ("tenant".to_owned(), vec!["team-a".into(), "system:authenticated".into()])
    );
}

#[tokio::test]
async fn the_operator_has_no_rights_but_those_it_is_given() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let namespace = control_plane.namespace("rights").await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(control_plane.operator_client().await.unwrap(), &namespace);
    let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
    assert!(secrets.list(&Default::default()).await.is_err_and(|error| refused(&error)));
    control_plane
        .apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: Role\n\
             metadata: {{name: reader, namespace: {namespace}}}\n\
             rules: [{{apiGroups: [''], resources: [secrets], verbs: [list]}}]\n\
             ---\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: RoleBinding\n\
             metadata: {{name: reader, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}\n\
             subjects: [{{kind: ServiceAccount, name: boltz-operator, namespace: boltz-system}}]\n"
        ))
        .unwrap();
    eventually(PATIENCE, "the Role counts", async || secrets.list(&Default::default()).await).await.unwrap();
    let new = Secret { metadata: config_map("new").metadata, ..Default::default() };
    assert!(secrets.create(&PostParams::default(), &new).await.is_err_and(|error| refused(&error)));
}

#[tokio::test]
async fn the_audit_log_tells_writes_from_dry_runs_and_reads() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let namespace = control_plane.namespace("audit").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin_client().await.unwrap(), &namespace);
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    maps.create(&dry_run, &config_map("a")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err();
    maps.get("a").await.unwrap();
    maps.delete("a", &Default::default()).await.unwrap();
    // Blocking mode: what has been answered is in the log.
    let events: Vec<_> = control_plane
        .audit_events()
        .into_iter()
        .filter(|event| event.object_ref.namespace == namespace && event.object_ref.resource == "configmaps")
        .filter(|event| event.user.username == "admin")
        .map(|event| (event.verb.clone(), event.is_write(), event.is_dry_run(), event.response_status.code))
        .collect();
    let expected = [
        ("create", false, true, 201),
        ("create", true, false, 201),
        ("create", true, false, 409),
        ("get", false, false, 200),
        ("delete", true, false, 200),
    ]
    .map(|(verb, write, dry_run, code)| (verb.to_owned(), write, dry_run, code));
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_deleted_namespace_goes_with_what_is_in_it() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let namespace = control_plane.namespace("doomed").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin_client().await.unwrap(), &namespace);
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    control_plane.kubectl(&["delete", "namespace", &namespace, "--timeout=30s"]).unwrap();
    let error = control_plane.kubectl(&["get", "namespace", &namespace]).unwrap_err();
    assert!(error.to_string().contains("NotFound"), "{error}");
}

#[tokio::test]
async fn a_crd_is_served_once_applied() {
    let control_plane = ControlPlane::shared().await.unwrap();
    control_plane
        .apply(
            "apiVersion: apiextensions.k8s.io/v1\n\
             kind: CustomResourceDefinition\n\
             metadata: {name: things.harness.example}\n\
             spec:\n  group: harness.example\n  scope: Cluster\n  names: {kind: Thing, plural: things}\n  versions:\n  \
             - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n",
        )
        .unwrap();
    control_plane.kubectl(&["get", "things.harness.example"]).unwrap();
}

#[tokio::test]
async fn kubectl_and_the_api_server_are_of_the_pinned_version() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let versions = control_plane.kubectl(&["version"]).unwrap();
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        assert!(versions.contains("Client Version: v1.36.3"), "{versions}");
        assert!(versions.contains("Server Version: v1.36.3"), "{versions}");
    }
}

#[tokio::test]
async fn killed_paused_and_restarted_it_keeps_its_data() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let namespace = control_plane.namespace("restart").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin_client().await.unwrap(), &namespace);
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();

    control_plane.kill(Component::ApiServer);
    maps.get("a").await.unwrap_err();
    control_plane.restart(Component::ApiServer).await.unwrap();
    eventually(PATIENCE, "the object is there", async || maps.get("a").await).await.unwrap();

    control_plane.restart(Component::Etcd).await.unwrap();
    eventually(PATIENCE, "the object is there", async || maps.get("a").await).await.unwrap();

    control_plane.signal(Component::ApiServer, "STOP");
    let paused = tokio::time::timeout(Duration::from_millis(300), maps.get("a")).await;
    assert!(paused.is_err(), "a stopped API server answers nothing");
    control_plane.signal(Component::ApiServer, "CONT");
    eventually(PATIENCE, "the object is there", async || maps.get("a").await).await.unwrap();

    let folder = control_plane.folder().to_owned();
    let pids = pids(&control_plane);
    drop(control_plane);
    assert!(!folder.exists());
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    // Its key is gone.
    std::fs::remove_file(control_plane.folder().join("certificates/server.key")).unwrap();
    let error = control_plane.restart(Component::ApiServer).await.unwrap_err().to_string();
    assert!(error.starts_with("kube-apiserver did not start: it ended with 1"), "{error}");
    assert!(error.contains("server.key: no such file or directory"), "{error}");
}

/// The owner that the next test kills; by itself it does nothing.
#[tokio::test]
async fn owner() {
    if !owner::is_asked_for() {
        return;
    }
    let options = ControlPlaneOptions::whole();
    let control_plane = ControlPlane::start(options).await.unwrap();
    let pids = pids(&control_plane).into_iter().map(|pid| pid.to_string());
    let folder = control_plane.folder().display().to_string();
    owner::owns(&std::iter::once(folder).chain(pids).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_owner() {
    let owner = Owner::start("control_plane::owner");
    let [folder, pids @ ..] = owner.owned.as_slice() else { panic!("it owns nothing") };
    let folder = PathBuf::from(folder);
    let pids: Vec<u32> = pids.iter().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    assert!(folder.exists() && pids.iter().all(|pid| is_alive(*pid)));

    drop(owner);
    eventually(PATIENCE, "everything has ended", async || {
        let alive: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if alive.is_empty() && !folder.exists() { Ok(()) } else { Err(format!("alive: {alive:?}")) }
    })
    .await
    .unwrap();
}

#[test]
fn a_process_says_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("it.log");
    let start = |script: &str| OwnedProcess::start(Path::new("/bin/sh"), &["-c", script], &[], &log).unwrap();
    let mut exits = start("echo said; exit 7");
    assert_eq!(exits.wait(PATIENCE), Some(7));
    assert_eq!(exits.log(), "said\n");
    let mut obeys = start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    while !obeys.log().contains("ready") {
        std::thread::yield_now();
    }
    assert_eq!(obeys.try_wait(), None);
    obeys.signal("TERM");
    assert_eq!(obeys.wait(PATIENCE), Some(3));
    let mut killed = start("exec sleep 60");
    killed.kill();
    assert_eq!(killed.try_wait(), Some(128 + 9));
    assert_eq!(exits.log(), "said\nready\n", "each start appends");
}

fn pids(control_plane: &ControlPlane) -> Vec<u32> {
    let all = [Component::Etcd, Component::ApiServer, Component::ControllerManager];
    all.into_iter().filter_map(|component| control_plane.pid(component)).collect()
}

/// A zombie is not: nobody may be there to reap it.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
}
