//! The floor: a loop that makes the operator's calls in the operator's order, and nothing else. It opens the same watches
//! and has as many calls in flight, with the same client libraries. It knows no failure, no ledger that matters, no
//! schedule and no metrics; it keeps one small entry for each object.
//!
//! | module | idea |
//! |---|---|
//! | `calls` | one function for each thing that happens to an object: the calls, one after the other |
//! | `list` | objects, Secrets and keys listed once: the floor of a restart |

mod calls;
mod list;

use crate::BenchError;
use calls::{Calls, Held, Seen};
use clap::ValueEnum;
use futures::StreamExt;
use kube::core::WatchEvent;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Semaphore;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Issues, rotates and deletes until it is killed.
    Loop,
    /// Lists everything once.
    List,
}

/// What is known of each object.
type Known = Arc<Mutex<HashMap<String, Held>>>;

/// Runs the task with the cluster of `KUBECONFIG` and the Boltz of `BOLTZ_BASE_URL`.
pub async fn run(task: Task, concurrency: usize) -> Result<(), BenchError> {
    let calls = Arc::new(Calls::new().await?);
    match task {
        Task::List => list::list(&calls).await,
        Task::Loop => {
            let secrets = watch_secrets(&calls);
            let objects = watch_objects(&calls, concurrency);
            tokio::try_join!(secrets, objects).map(drop)
        }
    }
}

/// The operator watches the metadata of its Secrets, too, and finds its own writes there.
async fn watch_secrets(calls: &Calls) -> Result<(), BenchError> {
    loop {
        let version = calls.list_secrets(50).await?.version;
        let mut events = std::pin::pin!(calls.watch_secrets(&version).await?);
        while let Some(event) = events.next().await {
            drop(event?);
        }
    }
}

async fn watch_objects(calls: &Arc<Calls>, concurrency: usize) -> Result<(), BenchError> {
    let (known, room) = (Known::default(), Arc::new(Semaphore::new(concurrency)));
    loop {
        let listed = calls.list_objects(100).await?;
        for object in listed.items {
            react(calls, &known, &room, object);
        }
        let mut events = std::pin::pin!(calls.watch_objects(&listed.version).await?);
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event? {
                react(calls, &known, &room, object);
            }
        }
    }
}

/// Begins what the object needs, if nothing is under way for it.
fn react(calls: &Arc<Calls>, known: &Known, room: &Arc<Semaphore>, object: Seen) {
    let held = {
        let mut known = known.lock();
        let held = known.entry(object.metadata.uid.clone()).or_default();
        if held.is_busy || !held.needs_work(&object) {
            return;
        }
        held.is_busy = true;
        held.clone()
    };
    let (calls, known, room) = (Arc::clone(calls), Arc::clone(known), Arc::clone(room));
    tokio::spawn(async move {
        let _place = room.acquire().await;
        let uid = object.metadata.uid.clone();
        match calls.work(&object, held).await {
            Ok(held) => drop(known.lock().insert(uid, held)),
            Err(error) => eprintln!("{}: {error}", object.metadata.name),
        }
    });
}
