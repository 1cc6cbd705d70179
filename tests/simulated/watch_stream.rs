//! A watch: the changes after a version, as they come; bookmarks; frozen, cut or too old where a schedule wants it.

use crate::{
    api_server::{Call, Change, failure, is_selected, metadata_of, resource_of, text},
    fault_injection::{ProcessRun, lock},
};
use axum::body::{Body, Bytes};
use futures::stream;
use http::{Response, StatusCode};
use serde_json::{Value as Json, json};
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How a process's watches are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Nothing arrives before then.
    pub frozen_until: Option<Instant>,
    /// Grows: every watch that began before is cut.
    pub cuts: u64,
    /// The next watch that starts is told that its version is too old.
    pub expired: bool,
}

struct Watch {
    run: ProcessRun,
    call: Call,
    version: u64,
    cuts: u64,
    end: Instant,
    ready: VecDeque<String>,
    is_over: bool,
}

/// Begins a watch.
pub fn start(run: &ProcessRun, call: &Call) -> Result<Response<Body>, io::Error> {
    let mut line = lock(&run.line);
    let version: u64 = call.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let seconds = call.query.get("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut watch = Watch {
        run: run.clone(),
        call: call.clone(),
        version,
        cuts: line.cuts,
        end: Instant::now() + Duration::from_secs(seconds),
        ready: VecDeque::new(),
        is_over: false,
    };
    if std::mem::take(&mut line.expired) {
        let (_, gone) = failure(StatusCode::GONE, "Expired", "too old resource version");
        watch.ready.push_back(told("ERROR", &gone));
        watch.is_over = true;
    }
    drop(line);
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line.map(Bytes::from), watch))
    });
    Ok(Response::new(Body::from_stream(lines)))
}

fn told(kind: &str, object: &Json) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<String, io::Error>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.is_over {
                return None;
            }
            let Line { frozen_until, cuts, .. } = *lock(&self.run.line);
            if cuts > self.cuts {
                self.is_over = true;
                return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch was cut")));
            }
            if let Some(until) = frozen_until.filter(|until| *until > Instant::now()) {
                tokio::time::sleep_until(until).await;
                continue;
            }
            let world = Arc::clone(&self.run.world);
            let (mut changed, shifted) = {
                let server = lock(&world.server);
                let first = server.history.partition_point(|change| change.version <= self.version);
                let told: Vec<String> =
                    server.history[first..].iter().filter_map(|change| self.tell(change)).collect();
                self.ready.extend(told);
                self.version = self.version.max(server.version());
                (server.changed.subscribe(), world.shifted.notified())
            };
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = shifted => {}
                () = tokio::time::sleep_until(self.end) => {
                    self.is_over = true;
                    let mark = json!({
                        "kind": if self.call.wants_metadata { "PartialObjectMetadata" } else { "Bookmark" },
                        "apiVersion": "v1",
                        "metadata": {"resourceVersion": self.version.to_string()},
                    });
                    return Some(Ok(told("BOOKMARK", &mark)));
                }
            }
        }
    }

    /// The change as this watch sees it: an object that leaves the selection is deleted for it.
    fn tell(&self, change: &Change) -> Option<String> {
        let (resource, namespace) = resource_of(&self.call.path)?;
        let meta = &change.after["metadata"];
        if change.resource != resource || namespace.is_some_and(|wanted| wanted != text(&meta["namespace"])) {
            return None;
        }
        let selector = self.call.query.get("labelSelector").map(String::as_str);
        let was = change.before.as_ref().is_some_and(|before| is_selected(before, selector));
        let is = !change.is_deletion && is_selected(&change.after, selector);
        let kind = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        let object =
            if self.call.wants_metadata { metadata_of(&change.after) } else { Json::clone(&change.after) };
        Some(told(kind, &object))
    }
}
