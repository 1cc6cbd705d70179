//! What users do while the operator is in trouble.

use super::scenario::Scenario;
use crate::test_env::{PATIENCE, TestEnv};
use boltz_harness::eventually;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Waits,
    DeletesIt,
    DeletesAndRecreatesIt,
    DeletesTheSecret,
    EditsTheSecret,
    EditsTheSpec,
    AsksForARotation,
    DeletesTheNamespace,
    StripsTheFinalizer,
    Suspends,
    Pauses,
}

/// Whether there was something to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    Yes,
    No,
}

/// All that do something.
pub const ALL: [User; 10] = [
    User::DeletesIt,
    User::DeletesAndRecreatesIt,
    User::DeletesTheSecret,
    User::EditsTheSecret,
    User::EditsTheSpec,
    User::AsksForARotation,
    User::DeletesTheNamespace,
    User::StripsTheFinalizer,
    User::Suspends,
    User::Pauses,
];

impl User {
    pub fn name(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::DeletesIt => "deletes it",
            Self::DeletesAndRecreatesIt => "recreates it",
            Self::DeletesTheSecret => "deletes Secret",
            Self::EditsTheSecret => "edits Secret",
            Self::EditsTheSpec => "edits spec",
            Self::AsksForARotation => "rotates",
            Self::DeletesTheNamespace => "ends namespace",
            Self::StripsTheFinalizer => "strips finalizer",
            Self::Suspends => "suspends",
            Self::Pauses => "pauses",
        }
    }

    /// The value in the Secret need not work any more.
    pub fn breaks_the_secret(self) -> bool {
        matches!(self, Self::EditsTheSecret | Self::DeletesAndRecreatesIt) || self.ends_the_object()
    }

    pub fn ends_the_object(self) -> bool {
        matches!(self, Self::DeletesIt | Self::DeletesTheNamespace)
    }

    /// How many keys more than without the user, at most.
    pub fn posts(self) -> usize {
        match self {
            Self::Waits | Self::DeletesIt | Self::DeletesTheNamespace => 0,
            Self::StripsTheFinalizer | Self::Suspends | Self::Pauses => 0,
            // What is edited or deleted may be replaced twice: before the edit is seen, and after it.
            _ => 2,
        }
    }

    /// Before the operator is back.
    pub async fn acts(self, env: &TestEnv) -> Result<Acted, String> {
        match self {
            Self::Waits => Ok(Acted::Yes),
            Self::DeletesIt | Self::DeletesAndRecreatesIt => {
                let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
                if object.is_none_or(|object| object.metadata.deletion_timestamp.is_some()) {
                    return Ok(Acted::No);
                }
                acted(env.objects().delete("key", &DeleteParams::default()).await)
            }
            Self::DeletesTheSecret => {
                for_all_secrets(env, async |name| env.secrets().delete(name, &DeleteParams::default()).await)
                    .await
            }
            Self::EditsTheSecret => {
                let edit = Patch::Merge(json!({"stringData": {"BOLTZ_API_KEY": "edited"}}));
                for_all_secrets(env, async |name| {
                    env.secrets().patch(name, &PatchParams::default(), &edit).await
                })
                .await
            }
            Self::EditsTheSpec => patch(env, json!({"spec": {"allowedIPs": ["192.0.2.9"]}})).await,
            Self::AsksForARotation => {
                patch(env, json!({"metadata": {"annotations": {"boltz.bio/rotate": "again"}}})).await
            }
            Self::DeletesTheNamespace => {
                let namespaces: Api<Namespace> = Api::all(env.client.clone());
                acted(namespaces.delete(&env.namespace, &DeleteParams::default()).await)
            }
            Self::StripsTheFinalizer => {
                let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
                if object.is_none_or(|object| object.finalizers().is_empty()) {
                    return Ok(Acted::No);
                }
                patch(env, json!({"metadata": {"finalizers": null}})).await
            }
            Self::Suspends => patch(env, json!({"spec": {"suspend": true}})).await,
            Self::Pauses => patch(env, paused(Some("true"))).await,
        }
    }

    /// Once the operator is back.
    pub async fn follows_up(self, env: &TestEnv) -> Result<(), String> {
        match self {
            Self::DeletesAndRecreatesIt => {
                eventually(PATIENCE, "the first object is gone", async || {
                    match env.objects().get_opt("key").await {
                        Ok(None) => Ok(()),
                        Ok(Some(_)) => Err("it is there".to_owned()),
                        Err(error) => Err(error.to_string()),
                    }
                })
                .await?;
                env.create("key", Scenario::Create.spec()).await;
            }
            Self::Suspends => {
                env.until("key", "it is seen to be suspended", |object| {
                    let status = object.status.as_ref();
                    status.and_then(|status| status.observed_generation) == object.metadata.generation
                })
                .await;
                env.patch("key", json!({"spec": {"suspend": false}})).await;
            }
            Self::Pauses => {
                env.until("key", "it is seen to be paused", |object| {
                    let status = object.status.as_ref();
                    let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
                    conditions.any(|condition| condition.type_ == "Ready" && condition.reason == "Paused")
                })
                .await;
                env.patch("key", paused(None)).await;
            }
            _ => {}
        }
        Ok(())
    }
}

fn paused(value: Option<&str>) -> serde_json::Value {
    json!({"metadata": {"annotations": {"boltz.bio/paused": value}}})
}

async fn patch(env: &TestEnv, patch: serde_json::Value) -> Result<Acted, String> {
    acted(env.objects().patch("key", &PatchParams::default(), &Patch::Merge(patch)).await)
}

/// Where the call deletes something, it may be gone before the user comes.
fn acted<T>(answer: Result<T, kube::Error>) -> Result<Acted, String> {
    match answer {
        Ok(_) => Ok(Acted::Yes),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Acted::No),
        Err(error) => Err(error.to_string()),
    }
}

/// Does it to each Secret that is there.
async fn for_all_secrets<T>(
    env: &TestEnv,
    act: impl AsyncFn(&str) -> Result<T, kube::Error>,
) -> Result<Acted, String> {
    let secrets = env.secrets().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
    let mut any = Acted::No;
    for secret in secrets.items {
        if acted(act(&secret.name_any()).await)? == Acted::Yes {
            any = Acted::Yes;
        }
    }
    Ok(any)
}
