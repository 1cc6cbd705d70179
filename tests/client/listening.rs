//! The operator's port, where a node has IPv6 and where it has none.

use serde_json::json;
use std::{io, path::Path, process::Command, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A library that makes the kernel refuse IPv6, as one that was started with `ipv6.disable=1` does.
const WITHOUT_IPV6: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol) {
    if (domain == AF_INET6) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    int (*next)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return next(domain, type, protocol);
}
"#;

fn without_ipv6(folder: &Path) -> String {
    let source = folder.join("without_ipv6.c");
    let library = folder.join("without_ipv6.so");
    std::fs::write(&source, WITHOUT_IPV6).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.unwrap().success());
    library.to_str().unwrap().to_owned()
}

async fn health(host: &str, port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.0 200") { Ok(()) } else { Err(io::Error::other(answer)) }
}

#[tokio::test]
async fn the_operator_is_reached_by_ipv6_and_ipv4_or_by_ipv4_alone() {
    let folder = tempfile::tempdir().unwrap();
    // An API server that never answers: the port is there all the same.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let server = json!({"server": format!("http://{}", silent.local_addr().unwrap())});
    let config = json!({
        "clusters": [{"name": "silent", "cluster": server}],
        "contexts": [{"name": "silent", "context": {"cluster": "silent"}}],
        "current-context": "silent",
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
    for (preload, ipv6) in [(String::new(), has_ipv6), (without_ipv6(folder.path()), false)] {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let _operator = tokio::process::Command::new(env!("CARGO_BIN_EXE_boltz-operator"))
            .args(["--listen", &format!(":{port}"), "--cluster-name", "any", "--lease-namespace", "any"])
            .env("KUBECONFIG", &kubeconfig)
            .env("BOLTZ_API_KEY", "sk_bc_admin_live_none")
            .env("LD_PRELOAD", &preload)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        boltz_harness::eventually(Duration::from_secs(60), "the port", async || {
            health("127.0.0.1", port).await
        })
        .await
        .unwrap();
        assert_eq!(health("::1", port).await.is_ok(), ipv6, "with {preload:?}");
    }
}
