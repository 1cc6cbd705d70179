//! `/metrics`, `/healthz`, `/readyz`, `/debug`.

use crate::observability::{
    metrics::{Format, Metrics},
    watches::Watches,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{self, ConnectInfo},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{ready, stream};
use serde_json::Value as Json;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

/// How many responses with metrics may be on their way at the same time. Each holds a thread until it is written.
pub const MAX_SCRAPES: usize = 4;
/// A client that reads slower than this does not keep others from their metrics.
const SLOW: Duration = Duration::from_secs(10);
/// The piece of a response that is in memory at once.
const CHUNK: usize = 64 * 1024;

type Debug = Arc<dyn Fn(&[String]) -> Json + Send + Sync>;

/// What the endpoints read. They change nothing.
pub struct State {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Whether this process serves, or stands by.
    pub ready: watch::Receiver<bool>,
    /// The state of each watch.
    pub watches: Arc<Watches>,
    /// What only a restart cures.
    pub stuck: watch::Receiver<Vec<String>>,
    /// What the process does now, without keys.
    pub debug: Debug,
}

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, state: State) -> std::io::Result<()> {
    let State { metrics, ready, watches, stuck, debug } = state;
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    let healthy = stuck.clone();
    let router = Router::new()
        .route("/healthz", get(async move || healthz(&healthy.borrow())))
        .route("/readyz", get(async move || readyz(*ready.borrow(), &watches)))
        .route("/metrics", get(scrape).with_state((metrics, scrapes)))
        .route("/debug", get(show_debug).with_state((debug, stuck)));
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Fails only if a restart helps.
fn healthz(stuck: &[String]) -> (StatusCode, String) {
    match stuck {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        stuck => (StatusCode::SERVICE_UNAVAILABLE, format!("stuck:\n{}\n", stuck.join("\n"))),
    }
}

fn readyz(is_ready: bool, watches: &Watches) -> (StatusCode, String) {
    let failures = watches.failures();
    if is_ready {
        (StatusCode::OK, format!("ready\n{failures}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}{failures}", watches.missing()))
    }
}

/// Only for clients in the pod itself, which includes `kubectl port-forward`: needs the right `create` on `pods/portforward`.
async fn show_debug(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    extract::State((debug, stuck)): extract::State<(Debug, watch::Receiver<Vec<String>>)>,
) -> Response {
    // Others of 127.0.0.0/8 are addresses of proxies in the pod.
    if ![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&peer.ip().to_canonical()) {
        let message = "only from the pod itself: use kubectl port-forward\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let stuck = stuck.borrow().clone();
    // This thread also renews the lease, and a lock may be held by what is stuck.
    match timeout(SLOW, spawn_blocking(move || debug(&stuck))).await {
        Ok(Ok(state)) => axum::Json(state).into_response(),
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the state cannot be read: a lock is held\n").into_response()
        }
    }
}

/// The metrics, in the format that the client asks for, unless too many ask at the same time.
async fn scrape(
    extract::State((metrics, scrapes)): extract::State<(Arc<Metrics>, Arc<Semaphore>)>,
    headers: HeaderMap,
) -> Response {
    let Ok(permit) = scrapes.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests for metrics at the same time\n")
            .into_response();
    };
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let (written, to_send) = mpsc::channel(1);
    let (sender, mut chunks) = mpsc::channel(1);
    // This thread also renews the lease.
    spawn_blocking(move || {
        let mut writer = ChunkWriter { chunk: String::new(), written };
        // Fails only if the client is gone, or too slow.
        let _ = metrics.write(format, &mut writer).and_then(|()| writer.end());
    });
    tokio::spawn(async move {
        send(to_send, sender).await;
        drop(permit);
    });
    let chunks = stream::poll_fn(move |context| {
        Poll::Ready(match ready!(chunks.poll_recv(context)) {
            Some(Chunk::Text(text)) => Some(Ok(text)),
            Some(Chunk::End) => None,
            // Without an error, the client would take a part for the whole.
            None => Some(Err(std::io::Error::other("the client reads too slowly"))),
        })
    });
    ([(CONTENT_TYPE, format.content_type())], Body::from_stream(chunks)).into_response()
}

enum Chunk {
    Text(Bytes),
    End,
}

/// Sends all chunks, and waits until the client has read them, for some time for each.
async fn send(mut chunks: mpsc::Receiver<Chunk>, client: mpsc::Sender<Chunk>) {
    while let Some(chunk) = chunks.recv().await {
        if !matches!(timeout(SLOW, client.send(chunk)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(SLOW, client.closed()).await;
}

/// Sends text in chunks. Fails if the receiver is gone.
struct ChunkWriter {
    chunk: String,
    written: mpsc::Sender<Chunk>,
}

impl ChunkWriter {
    fn flush(&mut self) -> std::fmt::Result {
        let text = std::mem::take(&mut self.chunk);
        self.written.blocking_send(Chunk::Text(text.into())).map_err(|_| std::fmt::Error)
    }

    fn end(mut self) -> std::fmt::Result {
        self.flush()?;
        self.written.blocking_send(Chunk::End).map_err(|_| std::fmt::Error)
    }
}

impl std::fmt::Write for ChunkWriter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.chunk.push_str(text);
        if self.chunk.len() < CHUNK { Ok(()) } else { self.flush() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::watches::Resource;

    async fn ask(scrapes: &Arc<Semaphore>, accept: &'static str) -> Response {
        let headers = HeaderMap::from_iter([(ACCEPT, axum::http::HeaderValue::from_static(accept))]);
        scrape(extract::State((Arc::new(Metrics::new()), Arc::clone(scrapes))), headers).await
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

    #[test]
    fn probes_say_what_is_wrong() {
        assert_eq!(healthz(&[]), (StatusCode::OK, "ok\n".to_owned()));
        let (status, body) = healthz(&["the runtime runs no tasks".to_owned()]);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "stuck:\nthe runtime runs no tasks\n");

        let watches = Watches::new(Arc::new(Metrics::new()));
        assert_eq!(readyz(true, &watches), (StatusCode::OK, "ready\n".to_owned()));
        let (status, body) = readyz(false, &watches);
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("ConfigMap"), "{body}");
        watches.begin(["a"]);
        watches.record_failure("a", Resource::Secrets, Some(403), "secrets is forbidden");
        let (_, body) = readyz(false, &watches);
        let lines = ["not ready", "namespace a: the list of boltzapikeys is not complete yet", ""];
        assert!(body.starts_with(&lines.join("\n")), "{body}");
        assert!(body.contains("namespace a: cannot watch secrets: secrets is forbidden"), "{body}");
    }

    #[tokio::test]
    async fn only_the_pod_itself_sees_the_state() {
        let debug: Debug = Arc::new(|stuck| serde_json::json!({"stuck": stuck}));
        let (_sender, stuck) = watch::channel(vec!["the runtime runs no tasks".to_owned()]);
        for (peer, allowed) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.7:1", false),
            ("[fd00::7]:1", false),
            ("[::ffff:10.0.0.7]:1", false),
        ] {
            let state = extract::State((Arc::clone(&debug), stuck.clone()));
            let response = show_debug(ConnectInfo(peer.parse().unwrap()), state).await;
            assert_eq!(response.status() == StatusCode::OK, allowed, "{peer}");
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.starts_with(br#"{"stuck":["the runtime"#), allowed, "{peer}");
        }
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
