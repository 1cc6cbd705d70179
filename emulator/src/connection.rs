//! The accept loop, and how a connection is cut.

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tower::ServiceExt;

/// The connection that a request came on.
#[derive(Clone, Debug, Default)]
pub struct Connection(Arc<Notify>);

impl Connection {
    /// Closes it at once. Bytes that were handed to the network still arrive.
    pub async fn cut<T>(&self) -> T {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// Serves until the future is dropped; all connections end with it.
pub async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, router.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, usually: some will be free again.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let connection = Connection::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    tokio::select! {
        result = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended early");
            }
        }
        () = connection.0.notified() => {}
    }
}
