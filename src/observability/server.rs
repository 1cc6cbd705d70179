//! `/metrics`, `/healthz`, `/readyz`.

use crate::observability::{
    metrics::{Format, Metrics},
    watches::Watches,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{ready, stream};
use std::{sync::Arc, task::Poll, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// How many responses with metrics may be on their way at the same time. Each holds a thread until it is sent.
pub const MAX_SCRAPES: usize = 4;
/// A client that reads slower than this does not keep others from their metrics.
const SLOW: Duration = Duration::from_secs(10);
/// The piece of a response that is in memory at once.
const CHUNK: usize = 64 * 1024;

/// Serves until the listener fails. `/readyz` responds with 200 once `ready` is true, and names the watches that fail.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
    watches: Arc<Watches>,
) -> std::io::Result<()> {
    let readyz = move || {
        let (status, summary) = match *ready.borrow() {
            true => (StatusCode::OK, "ready"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "caches are not synced yet"),
        };
        let text = format!("{summary}\n{}", watches.failures());
        async move { (status, text) }
    };
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape).with_state((metrics, scrapes)));
    axum::serve(listener, router).await
}

/// The metrics, in the format that the client asks for, unless too many ask at the same time.
async fn scrape(
    State((metrics, scrapes)): State<(Arc<Metrics>, Arc<Semaphore>)>,
    headers: HeaderMap,
) -> Response {
    let Ok(permit) = scrapes.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests for metrics at the same time\n")
            .into_response();
    };
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let (sender, mut chunks) = mpsc::channel(1);
    let (complete, mut is_complete) = oneshot::channel();
    let runtime = Handle::current();
    let deadline = Instant::now() + SLOW;
    // This thread also renews the lease.
    spawn_blocking(move || {
        let _permit = permit;
        let mut writer = ChunkWriter { chunk: String::new(), sender, runtime, deadline };
        if metrics.write(format, &mut writer).and_then(|()| writer.send()).is_ok() {
            // Fails only if the client is gone.
            let _ = complete.send(());
        }
    });
    let chunks = stream::poll_fn(move |context| {
        let chunk = ready!(chunks.poll_recv(context)).map(Ok);
        // Without an error, the client would take a part for the whole.
        Poll::Ready(chunk.or_else(|| is_complete.try_recv().err().map(std::io::Error::other).map(Err)))
    });
    ([(CONTENT_TYPE, format.content_type())], Body::from_stream(chunks)).into_response()
}

/// Sends text in chunks. Fails if the client is gone, or has not read it at the deadline.
struct ChunkWriter {
    chunk: String,
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    deadline: Instant,
}

impl ChunkWriter {
    fn send(&mut self) -> std::fmt::Result {
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        let sent = self.runtime.block_on(timeout_at(self.deadline, self.sender.send(chunk)));
        sent.map_err(|_| std::fmt::Error)?.map_err(|_| std::fmt::Error)
    }
}

impl std::fmt::Write for ChunkWriter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.chunk.push_str(text);
        if self.chunk.len() < CHUNK { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(scrapes: &Arc<Semaphore>, accept: &'static str) -> Response {
        let headers = HeaderMap::from_iter([(ACCEPT, axum::http::HeaderValue::from_static(accept))]);
        scrape(State((Arc::new(Metrics::new()), Arc::clone(scrapes))), headers).await
    }

    #[tokio::test]
    async fn few_responses_are_on_their_way_at_the_same_time() {
        let scrapes = Arc::new(Semaphore::new(2));
        let mut unread = vec![ask(&scrapes, "").await, ask(&scrapes, "").await];
        assert_eq!(ask(&scrapes, "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let read = axum::body::to_bytes(unread.remove(0).into_body(), usize::MAX).await.unwrap();
        assert!(read.starts_with(b"# HELP boltz_") && !read.ends_with(b"# EOF\n"));
        let all = scrapes.acquire().await.unwrap();
        assert_eq!(ask(&scrapes, "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        let response = ask(&scrapes, "application/openmetrics-text").await;
        assert_eq!(response.headers()[CONTENT_TYPE], Format::OpenMetrics.content_type());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_keeps_nobody_out() {
        let scrapes = Arc::new(Semaphore::new(1));
        let _unread = ask(&scrapes, "").await;
        assert_eq!(ask(&scrapes, "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        tokio::time::sleep(SLOW + Duration::from_millis(1)).await;
        assert_eq!(ask(&scrapes, "").await.status(), StatusCode::OK);
    }
}
