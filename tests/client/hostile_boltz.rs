//! A server that wants to harm: endless bodies and headers, a slow drip, a certificate of an unknown authority, pages of
//! very many rows. It costs a call that fails, in limited time and memory.

use crate::inventory::SECOND;
use boltz_harness::{Authority, eventually};
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, BoltzError, CreateKeyRequest, KeyMode, KeyPage, ca_file, read_answer,
    },
    observability::metrics::Metrics,
    plan::Effect,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use secrecy::SecretString;
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// What the client reads at most of a body, and what the two sockets hold besides.
const MOST_BYTES: u64 = 24 << 20;

fn client(base_url: String, roots: Option<&str>) -> BoltzClient {
    boltz_harness::install_tls_provider();
    let (_, key) = watch::channel(Some(SecretString::from("sk_bc_admin_live_x")));
    let extra_roots_pem = roots.map(|pem| pem.as_bytes().to_vec());
    let options = BoltzClientOptions { base_url, extra_roots_pem, request_timeout: 10 * SECOND };
    BoltzClient::new(options, key, Arc::new(Metrics::new())).unwrap()
}

fn request() -> CreateKeyRequest {
    CreateKeyRequest {
        name: "n".to_owned(),
        allowed_ips: Vec::new(),
        expires_in_days: None,
        mode: KeyMode::Live,
        workspace_id: None,
    }
}

/// A server whose every response begins with this and goes on with that, with a pause before each, until the client has
/// enough. The number of bytes that it could send.
fn endless(head: &'static str, then: Vec<u8>, pause: Duration) -> (BoltzClient, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_head(&mut BufReader::new(stream.try_clone().unwrap()));
            let mut written = stream.write_all(head.as_bytes());
            while written.is_ok() {
                std::thread::sleep(pause);
                written = stream.write_all(&then);
                count.fetch_add(then.len() as u64, Ordering::Relaxed);
            }
        }
    });
    (client(format!("http://{address}"), None), sent)
}

/// Reads a request up to the end of its headers.
fn read_head(from: &mut impl BufRead) {
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_not_read_to_its_end() {
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 1 << 16], b"\r\n"].concat();
    for (head, then, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", vec![b'x'; 1 << 16], None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk.clone(), None),
        ("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n", chunk, Some(503)),
    ] {
        let (client, sent) = endless(head, then, Duration::ZERO);
        let begun = Instant::now();
        let Err(error) = client.create_key(&request(), 10 * SECOND).await else { panic!("no key: {head}") };
        assert_eq!((error.status(), error.effect()), (status, Effect::Unknown), "{head}: {error:?}");
        assert!(begun.elapsed() < 9 * SECOND, "not only because the time is over: {head}");
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < MOST_BYTES, "{sent} bytes: {head}");
    }
}

#[tokio::test]
async fn a_slow_drip_ends_with_the_timeout() {
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
        let then = if head.ends_with("\r\n\r\n") { b" ".to_vec() } else { b"x-drip: a\r\n".to_vec() };
        let (client, _) = endless(head, then, Duration::from_millis(50));
        let begun = Instant::now();
        let Err(error) = client.create_key(&request(), SECOND).await else { panic!("no key: {head}") };
        assert!(matches!(error, BoltzError::Timeout), "{head}: {error:?}");
        assert!(begun.elapsed() < 8 * SECOND, "{head}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn endless_headers_are_not_read_to_their_end() {
    let (client, sent) =
        endless("HTTP/1.1 200 OK\r\n", b"x-header: xxxxxxxxxxxxxxxx\r\n".repeat(100), Duration::ZERO);
    let begun = Instant::now();
    let Err(error) = client.create_key(&request(), 10 * SECOND).await else { panic!("no key") };
    assert!(matches!(error, BoltzError::Transport(_)), "{error:?}");
    assert!(begun.elapsed() < 9 * SECOND && sent.load(Ordering::Relaxed) < MOST_BYTES);
}

/// Four megabytes of rows without a field would be hundreds in memory.
#[test]
fn a_page_of_very_many_rows_is_refused() {
    let page = |rows: usize| format!(r#"{{"data":[{}],"has_more":false}}"#, vec!["{}"; rows].join(","));
    assert_eq!(read_answer::<KeyPage>(page(10_000).as_bytes()).unwrap().data.len(), 10_000);
    for rows in [10_001, 1_000_000] {
        let read = read_answer::<KeyPage>(page(rows).as_bytes());
        assert!(matches!(read, Err(BoltzError::Unreadable)), "{rows}");
    }
}

/// Serves `auth/me` over TLS, one connection after the other, with a certificate of that authority.
fn serve(authority: &Authority) -> SocketAddr {
    boltz_harness::install_tls_provider();
    let credential = authority.issue_server("boltz", &["127.0.0.1"]).unwrap();
    let certificate = CertificateDer::from_pem_slice(credential.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            read_head(&mut stream);
            let body = r#"{"key_type":"admin","organization_id":"org"}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let stream = stream.get_mut();
            // A client that does not trust it has gone.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_gets_no_request() {
    let (ours, another) = (Authority::create().unwrap(), Authority::create().unwrap());
    let url = format!("https://{}", serve(&another));
    for roots in [None, Some(ours.pem())] {
        let error = client(url.clone(), roots).auth_me().await.unwrap_err();
        assert!(matches!(error, BoltzError::Connect(_)), "{error:?}");
    }
    assert!(client(url, Some(another.pem())).auth_me().await.unwrap().is_some());
}

/// The authority of a proxy changes while the operator runs.
#[tokio::test]
async fn the_file_of_root_certificates_is_read_again_when_it_changes() {
    let (old, new) = (Authority::create().unwrap(), Authority::create().unwrap());
    let (of_old, of_new) = (format!("https://{}", serve(&old)), format!("https://{}", serve(&new)));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), old.pem()).unwrap();
    // Two clients with the same file.
    let clients = [of_old, of_new].map(|url| client(url, Some(old.pem())));
    for client in &clients {
        let known = old.pem().as_bytes().to_vec();
        tokio::spawn(ca_file::follow(file.path().to_owned(), known, client.clone()));
    }
    let [by_old, by_new] = &clients;
    assert!(by_old.auth_me().await.is_ok() && by_new.auth_me().await.is_err());
    // Half of a file, and none, change nothing.
    for text in [&new.pem()[..100], "", "no certificate"] {
        assert!(by_old.replace_roots(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(by_old.auth_me().await.is_ok());
    std::fs::write(file.path(), new.pem()).unwrap();
    eventually(60 * SECOND, "the new authority is trusted, and the old one is not", async || {
        match (by_old.auth_me().await, by_new.auth_me().await) {
            (Err(_), Ok(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}
