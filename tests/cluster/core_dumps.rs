//! A crash leaves no core dump: it would hold the admin key and the keys in hand.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::json;
use std::{os::unix::process::ExitStatusExt, time::Duration};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// Whether the process leaves a core dump when it crashes.
async fn dumps(mut process: Child) -> bool {
    let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap())).unwrap();
    kill_process(pid, Signal::ABORT).unwrap();
    let status = process.wait().await.unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    status.core_dumped()
}

#[tokio::test]
async fn a_crash_leaves_no_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    // As generous as this machine allows; the processes below inherit it.
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
    let other = Command::new("sleep").arg("60").current_dir(&folder).kill_on_drop(true).spawn().unwrap();
    if !dumps(other).await {
        boltz_harness::skip("this machine makes no core dumps");
        return;
    }

    // An API server that never answers: whoever has called it is past its start, and waits.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let server = json!({"server": format!("http://{}", silent.local_addr().unwrap())});
    let config = json!({
        "clusters": [{"name": "silent", "cluster": server}],
        "contexts": [{"name": "silent", "context": {"cluster": "silent"}}],
        "current-context": "silent",
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let operator = Command::new(env!("CARGO_BIN_EXE_boltz-operator"))
        .args(["--listen", "127.0.0.1:0"])
        .env("KUBECONFIG", &kubeconfig)
        .env("BOLTZ_API_KEY", "sk_bc_admin_live_none")
        .current_dir(&folder)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let call =
        timeout(Duration::from_secs(60), silent.accept()).await.expect("it calls the API server").unwrap();
    assert!(!dumps(operator).await, "the operator has dumped core");
    drop(call);
}
