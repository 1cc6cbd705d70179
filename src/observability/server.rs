//! `/metrics`, `/healthz`, `/readyz`.

use crate::observability::{metrics::Metrics, watches::Watches};
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};

/// The content type of OpenMetrics text, as its specification names it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    let metrics = move || async move { ([(CONTENT_TYPE, OPENMETRICS)], metrics.to_text()).into_response() };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    axum::serve(listener, router).await
}
