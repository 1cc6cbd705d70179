//! A program that uses a Boltz key as workloads do: for trying out rotations, and for tests of them.

use axum::{Router, body::Body, http::StatusCode, routing::get};
use boltz_emulator::{listen, parse_listen};
use clap::Args;
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpStream;

/// One request must be answered within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// In bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Authenticates again and again, and says on standard error when it is refused.
#[derive(Debug, Args)]
pub struct Workload {
    /// Where Boltz is: http:// only.
    #[arg(long, env = "BOLTZ_BASE_URL")]
    base_url: Uri,

    /// The key as a file, read again for each request; else the variable BOLTZ_API_KEY, as it was at the start.
    #[arg(long)]
    key_file: Option<PathBuf>,

    /// The time between two requests.
    #[arg(long, default_value = "200ms", value_name = "DURATION", value_parser = crate::milliseconds)]
    interval: u64,

    /// Where GET /readyz answers 200 once a request has been answered.
    #[arg(long, default_value = ":8080", value_parser = parse_listen)]
    listen: SocketAddr,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until it is dropped.
pub async fn run(workload: Workload) -> Result<(), Failure> {
    let ready = Arc::new(AtomicBool::new(false));
    let listener = listen(workload.listen).await?;
    let probe = Arc::clone(&ready);
    let readiness = get(move || async move {
        if probe.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    });
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/readyz", readiness)).await });
    let mut last = None;
    loop {
        match authenticate(&workload).await {
            Ok(Answer::Key(id)) => {
                ready.store(true, Ordering::Relaxed);
                if last.as_ref() != Some(&id) {
                    eprintln!("authenticated as {id}");
                }
                last = Some(id);
            }
            Ok(Answer::Refused(status)) => eprintln!("refused: {status}"),
            Err(error) => eprintln!("no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(workload.interval)).await;
    }
}

/// What Boltz says of the key.
enum Answer {
    /// Its id.
    Key(String),
    /// The status instead of 200.
    Refused(StatusCode),
}

/// Asks Boltz whose the key is.
async fn authenticate(workload: &Workload) -> Result<Answer, Failure> {
    let key = match &workload.key_file {
        Some(file) => std::fs::read_to_string(file)?,
        None => std::env::var("BOLTZ_API_KEY")?,
    };
    let authority = workload.base_url.authority().ok_or("the base URL has no host")?.as_str();
    let request = Request::get("/compute/v1/auth/me")
        .header(header::HOST, authority)
        .header("x-api-key", key)
        .body(Body::empty())?;
    let ask = async {
        let (host, port) = (workload.base_url.host().unwrap_or_default(), workload.base_url.port_u16());
        let stream = TcpStream::connect((host, port.unwrap_or(80))).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Ok(Answer::Refused(answer.status()));
        }
        let body = axum::body::to_bytes(Body::new(answer.into_body()), LONGEST_ANSWER).await?;
        let me: serde_json::Value = serde_json::from_slice(&body)?;
        Ok::<_, Failure>(Answer::Key(me["api_key_id"].as_str().unwrap_or_default().to_owned()))
    };
    tokio::time::timeout(TIMEOUT, ask).await?
}
