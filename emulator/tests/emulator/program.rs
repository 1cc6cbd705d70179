//! The program: its flags, its one line, its end.

use crate::client::{KEYS, TestEnv, http, ok};
use serde_json::json;
use std::{
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltz-emulator"));
    command.args(arguments).env_remove("BOLTZ_API_KEY").env_remove("BOLTZ_EMULATOR_LISTEN");
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn started(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    (child, url)
}

async fn ended(mut command: Command) -> Output {
    timeout(Duration::from_secs(20), command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn it_listens_where_it_says_and_takes_its_admin_key_and_its_day() {
    let (mut child, url) =
        started(program(&["--listen", "127.0.0.1:0", "--admin-key", "mine", "--day", "10s"])).await;
    let request = http().post(format!("{url}{KEYS}")).header("x-api-key", "mine");
    let answer = ok(request.json(&json!({"name": "n", "expires_in_days": 1}))).await;
    let time = |name: &str| answer["key_details"][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("created_at").duration_until(time("expires_at")).as_secs(), 10);

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    let status = timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_admin_key_may_come_from_the_environment() {
    let mut command = program(&["--listen", "127.0.0.1:0"]);
    command.env("BOLTZ_API_KEY", "from-environment");
    let (_child, url) = started(command).await;
    ok(http().get(format!("{url}{KEYS}")).header("x-api-key", "from-environment")).await;
}

#[tokio::test]
async fn wrong_flags_are_named() {
    for (arguments, named) in [
        (vec!["--day", "0s"], "--day"),
        (vec!["--day", "-1h"], "--day"),
        (vec!["--day", "tomorrow"], "--day"),
        (vec!["--admin-key", ""], "--admin-key"),
        (vec!["--listen", "nowhere"], "--listen"),
    ] {
        let output = ended(program(&arguments)).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_taken_port_ends_it_with_a_reason() {
    let env = TestEnv::new().await;
    let address = env.emulator.base_url().replace("http://", "");
    let output = ended(program(&["--listen", &address])).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[tokio::test]
async fn the_workload_says_whose_key_it_uses_and_when_it_is_refused() {
    let env = TestEnv::new().await;
    let id = env.emulator.create_foreign("mounted").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), env.emulator.key(&id).unwrap().plaintext).unwrap();
    let url = env.emulator.base_url();
    let path = file.path().to_str().unwrap();
    let flags = ["--base-url", &url, "--key-file", path, "--interval", "20ms", "--listen", "127.0.0.1:0"];
    let mut command = program(&[&["workload"], &flags[..]].concat());
    // As the image sets it, for the emulator itself.
    command.env("BOLTZ_EMULATOR_LISTEN", ":8099");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said =
        async || timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(said().await, format!("authenticated as {id}"));
    let other = env.emulator.create_foreign("renewed").unwrap();
    std::fs::write(file.path(), env.emulator.key(&other).unwrap().plaintext).unwrap();
    // A write is not atomic: a half-written file may be read once.
    while said().await != format!("authenticated as {other}") {}
    env.emulator.deactivate(&other);
    assert_eq!(said().await, "refused: 401 Unauthorized");
}
