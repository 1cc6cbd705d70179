//! What users do while the operator is in trouble.

use crate::test_env::{PATIENCE, TestEnv};
use boltz_harness::eventually;
use k8s_openapi::api::core::v1::{Namespace, Secret};
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
}

/// All that do something.
pub const ALL: [User; 9] = [
    User::DeletesIt,
    User::DeletesAndRecreatesIt,
    User::DeletesTheSecret,
    User::EditsTheSecret,
    User::EditsTheSpec,
    User::AsksForARotation,
    User::DeletesTheNamespace,
    User::StripsTheFinalizer,
    User::Suspends,
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
            Self::StripsTheFinalizer | Self::Suspends => 0,
            // What is edited or deleted may be replaced twice: before the edit is seen, and after it.
            _ => 2,
        }
    }

    /// Before the operator is back.
    pub async fn acts(self, env: &TestEnv) -> Result<(), String> {
        match self {
            Self::Waits => {}
            Self::DeletesIt | Self::DeletesAndRecreatesIt => {
                unless_gone(env.objects().delete("key", &DeleteParams::default()).await)?;
            }
            Self::DeletesTheSecret => {
                for secret in secrets(env).await? {
                    // The operator may have been faster.
                    let _ = env.secrets().delete(&secret.name_any(), &DeleteParams::default()).await;
                }
            }
            Self::EditsTheSecret => {
                for secret in secrets(env).await? {
                    let edit = Patch::Merge(json!({"stringData": {"BOLTZ_API_KEY": "edited"}}));
                    let _ = env.secrets().patch(&secret.name_any(), &PatchParams::default(), &edit).await;
                }
            }
            Self::EditsTheSpec => patch(env, json!({"spec": {"allowedIPs": ["192.0.2.9"]}})).await?,
            Self::AsksForARotation => {
                patch(env, json!({"metadata": {"annotations": {"boltz.bio/rotate": "again"}}})).await?;
            }
            Self::DeletesTheNamespace => {
                let namespaces: Api<Namespace> = Api::all(env.client.clone());
                let deleted = namespaces.delete(&env.namespace, &DeleteParams::default()).await;
                deleted.map_err(|error| error.to_string())?;
            }
            Self::StripsTheFinalizer => patch(env, json!({"metadata": {"finalizers": null}})).await?,
            Self::Suspends => patch(env, json!({"spec": {"suspend": true}})).await?,
        }
        Ok(())
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
                env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
            }
            Self::Suspends => {
                env.until("key", "it is seen to be suspended", |object| {
                    let status = object.status.as_ref();
                    status.and_then(|status| status.observed_generation) == object.metadata.generation
                })
                .await;
                env.patch("key", json!({"spec": {"suspend": false}})).await;
            }
            _ => {}
        }
        Ok(())
    }
}

async fn patch(env: &TestEnv, patch: serde_json::Value) -> Result<(), String> {
    unless_gone(env.objects().patch("key", &PatchParams::default(), &Patch::Merge(patch)).await)
}

/// Where the call deletes the object, it may be gone before the user comes.
fn unless_gone<T>(answer: Result<T, kube::Error>) -> Result<(), String> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        answer => answer.map(drop).map_err(|error| error.to_string()),
    }
}

async fn secrets(env: &TestEnv) -> Result<Vec<Secret>, String> {
    let list = env.secrets().list(&ListParams::default()).await;
    list.map(|list| list.items).map_err(|error| error.to_string())
}
