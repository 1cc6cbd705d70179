//! Which pods use a Secret, and how old their copy of it is.
//!
//! Variables are fixed when a container starts. Mounted files are updated by the kubelet within about a minute, but not
//! those that are mounted by `subPath`.

use crate::words::{BAD, DIM, GOOD, plain, relative, styled};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Volume};
use kube::ResourceExt;
use serde::Serialize;

/// How long the kubelet may take to update a mounted file: its sync period and the delay of its cache.
const FILES_ARE_UPDATED_WITHIN: SignedDuration = SignedDuration::from_secs(120);

/// How a container gets the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Source {
    /// A variable from one key of the Secret.
    Env { variable: String },
    /// All keys of the Secret as variables.
    EnvFrom,
    /// A volume with the Secret.
    Volume { path: String },
    /// A projected volume with the Secret among others.
    ProjectedVolume { path: String },
    /// A single file of such a volume, which is never updated.
    SubPath { path: String },
}

impl Source {
    fn is_fixed_at_start(&self) -> bool {
        matches!(self, Self::Env { .. } | Self::EnvFrom | Self::SubPath { .. })
    }

    pub fn text(&self) -> String {
        let text = match self {
            Self::Env { variable } => format!("env {variable}"),
            Self::EnvFrom => "envFrom".to_owned(),
            Self::Volume { path } => format!("volume {path}"),
            Self::ProjectedVolume { path } => format!("projected volume {path}"),
            Self::SubPath { path } => format!("subPath {path}"),
        };
        plain(&text)
    }
}

/// How old the copy is that a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Copy {
    Current,
    /// A mounted file with the current key, in a container that started before it was issued.
    Updated,
    /// A mounted file that the kubelet is about to update.
    BeingUpdated,
    /// A previous key, until the container is restarted.
    Old,
    /// The container does not run.
    NotRunning,
    /// When the key was issued is not known.
    Unknown,
}

/// A container that uses the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub pod: String,
    pub container: String,
    /// `deployment/web`, or the pod itself.
    pub workload: String,
    pub source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    pub copy: Copy,
}

impl User {
    /// In words.
    pub fn copy_text(&self, now: Timestamp) -> String {
        let started = self.started_at.map(|at| format!("started {}", relative(at, now))).unwrap_or_default();
        match self.copy {
            Copy::Current => styled(GOOD, "current key"),
            Copy::Updated => {
                "its file has the current key; a program that read it only at its start may have an old one"
                    .to_owned()
            }
            Copy::BeingUpdated => "its file is updated within two minutes".to_owned(),
            Copy::Old => styled(BAD, &format!("OLD KEY: {started}, before the rotation")),
            Copy::NotRunning => styled(DIM, "does not run; starts with the current key"),
            Copy::Unknown => styled(DIM, "it is not known when the key was issued"),
        }
    }
}

/// The containers of these pods that use the Secret. `issued_at`: when the current key was stored in it.
pub fn users(pods: &[Pod], secret: &str, issued_at: Option<Timestamp>, now: Timestamp) -> Vec<User> {
    let mut users: Vec<User> = pods.iter().flat_map(|pod| users_in(pod, secret, issued_at, now)).collect();
    users.sort_by(|one, other| (&one.pod, &one.container).cmp(&(&other.pod, &other.container)));
    users
}

fn users_in(pod: &Pod, secret: &str, issued_at: Option<Timestamp>, now: Timestamp) -> Vec<User> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Vec::new();
    }
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let statuses: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|status| [&status.container_statuses, &status.init_container_statuses])
        .flatten()
        .flatten()
        .collect();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users = Vec::new();
    for container in containers {
        let status = statuses.iter().find(|status| status.name == container.name);
        let running = status.and_then(|status| status.state.as_ref()?.running.as_ref());
        let started_at = running.and_then(|running| Some(running.started_at.as_ref()?.0));
        for source in sources(container, volumes, secret) {
            let copy = match (running, issued_at) {
                (None, _) => Copy::NotRunning,
                (_, None) => Copy::Unknown,
                (_, Some(issued_at)) => copy_age(&source, started_at, issued_at, now),
            };
            users.push(User {
                pod: pod.name_any(),
                container: container.name.clone(),
                workload: workload(pod),
                source,
                started_at,
                copy,
            });
        }
    }
    users
}

fn copy_age(source: &Source, started_at: Option<Timestamp>, issued_at: Timestamp, now: Timestamp) -> Copy {
    if started_at.is_some_and(|started_at| started_at >= issued_at) {
        Copy::Current
    } else if source.is_fixed_at_start() {
        Copy::Old
    } else if now.duration_since(issued_at) < FILES_ARE_UPDATED_WITHIN {
        Copy::BeingUpdated
    } else {
        Copy::Updated
    }
}

fn sources(container: &Container, volumes: &[Volume], secret: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for variable in container.env.iter().flatten() {
        let reference = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
        if reference.is_some_and(|reference| reference.name == secret) {
            sources.push(Source::Env { variable: variable.name.clone() });
        }
    }
    let from = container.env_from.iter().flatten().filter_map(|from| from.secret_ref.as_ref());
    if from.into_iter().any(|reference| reference.name == secret) {
        sources.push(Source::EnvFrom);
    }
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = volumes.iter().find(|volume| volume.name == mount.name) else { continue };
        let path = mount.mount_path.clone();
        let whole =
            volume.secret.as_ref().is_some_and(|source| source.secret_name.as_deref() == Some(secret));
        let projected = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
            .any(|source| source.secret.as_ref().is_some_and(|source| source.name == secret));
        let is_sub_path = mount.sub_path.is_some() || mount.sub_path_expr.is_some();
        match (whole, projected) {
            (false, false) => {}
            _ if is_sub_path => sources.push(Source::SubPath { path }),
            (true, _) => sources.push(Source::Volume { path }),
            (false, true) => sources.push(Source::ProjectedVolume { path }),
        }
    }
    sources
}

/// What to restart: a ReplicaSet's Deployment has its name without the hash of the pod template. Kind and name of an owner
/// are free text: see [`is_name`].
fn workload(pod: &Pod) -> String {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else { return format!("pod/{}", pod.name_any()) };
    let hash = pod.labels().get("pod-template-hash").map(|hash| format!("-{hash}"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&hash));
    match (owner.kind.as_str(), deployment) {
        ("ReplicaSet", Some(name)) => plain(&format!("deployment/{name}")),
        (kind, _) => plain(&format!("{}/{}", kind.to_lowercase(), owner.name)),
    }
}

/// Whether the workload can be written into a command that a shell runs.
fn is_name(workload: &str) -> bool {
    workload.split_once('/').is_some_and(|(kind, name)| {
        let is_of_names = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        !kind.is_empty()
            && kind.bytes().all(|byte| byte.is_ascii_lowercase())
            && !name.is_empty()
            && name.bytes().all(is_of_names)
    })
}

/// What to do so that every user has the current key: commands, or a remark where none is safe.
pub fn restarts(users: &[User], namespace: &str) -> Vec<String> {
    let step = |user: &User| match user.workload.split('/').next() {
        _ if !is_name(&user.workload) => format!("# pod/{}: its controller has an invalid name", user.pod),
        Some("deployment" | "statefulset" | "daemonset") => {
            format!("kubectl --namespace {namespace} rollout restart {}", user.workload)
        }
        // A Job is a computation: without its pod it begins anew, or fails.
        Some("job") => format!(
            "# {}: let it end before the old key is revoked, or delete and create the Job again",
            user.workload
        ),
        // Nothing would make a new one.
        Some("pod") => format!("# {} has no controller: delete it and create it again", user.workload),
        _ => format!(
            "kubectl --namespace {namespace} delete pod {}  # {} makes a new one",
            user.pod, user.workload
        ),
    };
    let mut steps: Vec<String> = users.iter().filter(|user| user.copy == Copy::Old).map(step).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::NOW;
    use serde_json::{Value as Json, json};

    fn pod(container: Json, volumes: Json, started_at: Option<&str>) -> Pod {
        let state = started_at.map_or(json!({"waiting": {}}), |at| json!({"running": {"startedAt": at}}));
        let mut container = container;
        container["name"] = json!("app");
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-5d4f-x", "labels": {"pod-template-hash": "5d4f"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u", "controller": true,
                }],
            },
            "spec": {"containers": [container], "volumes": volumes},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap()
    }

    fn env() -> Json {
        json!({"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "design", "key": "BOLTZ_API_KEY"}}}]})
    }

    fn found(pod: Pod, issued_at: Option<&str>) -> Vec<(Source, Copy)> {
        let issued_at = issued_at.map(|at| at.parse().unwrap());
        let found = users(&[pod], "design", issued_at, NOW.parse().unwrap());
        found.into_iter().map(|user| (user.source, user.copy)).collect()
    }

    #[test]
    fn each_way_to_use_a_secret_is_found() {
        let volume = json!([{"name": "v", "secret": {"secretName": "design"}}]);
        let projected = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "design"}}]}}]);
        let other = json!([{"name": "v", "secret": {"secretName": "other"}}]);
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/key"}]});
        let sub_path =
            json!({"volumeMounts": [{"name": "v", "mountPath": "/key", "subPath": "BOLTZ_API_KEY"}]});
        let path = || "/key".to_owned();
        for (container, volumes, source) in [
            (env(), json!([]), Some(Source::Env { variable: "KEY".to_owned() })),
            (json!({"envFrom": [{"secretRef": {"name": "design"}}]}), json!([]), Some(Source::EnvFrom)),
            (json!({"envFrom": [{"secretRef": {"name": "other"}}]}), json!([]), None),
            (json!({}), volume.clone(), None),
            (mount.clone(), volume.clone(), Some(Source::Volume { path: path() })),
            (mount.clone(), projected.clone(), Some(Source::ProjectedVolume { path: path() })),
            (mount, other, None),
            (sub_path.clone(), volume, Some(Source::SubPath { path: path() })),
            (sub_path, projected, Some(Source::SubPath { path: path() })),
        ] {
            let found = found(pod(container.clone(), volumes, Some(NOW)), None);
            let sources: Vec<Source> = found.into_iter().map(|(source, _)| source).collect();
            assert_eq!(sources, Vec::from_iter(source), "{container}");
        }
    }

    #[test]
    fn how_old_a_copy_is() {
        let volume = json!([{"name": "v", "secret": {"secretName": "design"}}]);
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/key"}]});
        let (early, late) = (Some("2026-11-26T10:00:00Z"), Some("2026-11-26T11:59:30Z"));
        for (container, started_at, issued_at, copy) in [
            (env(), early, late, Copy::Old),
            (env(), late, early, Copy::Current),
            (env(), late, late, Copy::Current),
            (env(), None, late, Copy::NotRunning),
            (env(), early, None, Copy::Unknown),
            (mount.clone(), early, late, Copy::BeingUpdated),
            (mount.clone(), early, Some("2026-11-26T11:00:00Z"), Copy::Updated),
            (mount, late, early, Copy::Current),
        ] {
            let found = found(pod(container.clone(), volume.clone(), started_at), issued_at);
            let copies: Vec<Copy> = found.into_iter().map(|(_, copy)| copy).collect();
            assert_eq!(copies, [copy], "{container}, started {started_at:?}, issued {issued_at:?}");
        }
    }

    #[test]
    fn the_deployment_is_restarted_and_not_its_replica_set() {
        let pods = [pod(env(), json!([]), Some("2026-11-26T10:00:00Z"))];
        let users = users(&pods, "design", Some(NOW.parse().unwrap()), NOW.parse().unwrap());
        assert_eq!(restarts(&users, "team"), ["kubectl --namespace team rollout restart deployment/web"]);
    }

    #[test]
    fn what_nobody_would_make_again_is_not_deleted() {
        let invalid = "# pod/web-5d4f-x: its controller has an invalid name";
        for (kind, name, step) in [
            (
                Some("Job"),
                "x",
                "# job/x: let it end before the old key is revoked, or delete and create the Job again",
            ),
            (
                Some("Machine"),
                "x",
                "kubectl --namespace team delete pod web-5d4f-x  # machine/x makes a new one",
            ),
            (Some("StatefulSet"), "x.y-0", "kubectl --namespace team rollout restart statefulset/x.y-0"),
            (Some("Deployment"), "web; curl x|sh", invalid),
            (Some("Deployment"), "web\n", invalid),
            (Some("Deployment"), "", invalid),
            (Some("ReplicaSet"), "$(x)-5d4f", invalid),
            (Some("a;b"), "x", invalid),
            (Some("Deployment/x"), "x", invalid),
            (None, "", "# pod/web-5d4f-x has no controller: delete it and create it again"),
        ] {
            let mut pod = pod(env(), json!([]), Some("2026-11-26T10:00:00Z"));
            let owners = pod.metadata.owner_references.as_mut().unwrap();
            match kind {
                Some(kind) => {
                    owners[0].kind = kind.to_owned();
                    owners[0].name = name.to_owned();
                }
                None => owners.clear(),
            }
            let users = users(&[pod], "design", Some(NOW.parse().unwrap()), NOW.parse().unwrap());
            assert_eq!(restarts(&users, "team"), [step], "{kind:?} {name:?}");
        }
    }

    #[test]
    fn pods_that_have_ended_use_nothing() {
        let mut pod = pod(env(), json!([]), None);
        pod.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        assert_eq!(found(pod, None), []);
    }
}
