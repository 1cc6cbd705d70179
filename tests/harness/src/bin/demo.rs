//! `make demo`: the operator's main job, shown on a control plane of its own.

use boltz_emulator::{Emulator, EmulatorError, Options, Settings};
use boltz_harness::{ControlPlane, ControlPlaneOptions, HarnessError, OperatorProcess, eventually};
use clap::Parser;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// A key that lives 18 s: in this demo a day has 18 s.
const MANIFEST: &str = "\
apiVersion: boltz.bio/v1alpha1
kind: BoltzApiKey
metadata:
  name: design-jobs
spec:
  expiresInDays: 1
  rotation:
    overlap: 5s
";
const DAY: Duration = Duration::from_secs(18);
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows the operator at work: issue, store, use, rotate, revoke.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leaves everything running until Ctrl-C and prints the KUBECONFIG to use.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Harness(#[from] HarnessError),
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    #[error("{0}")]
    Unexpected(String),
}

impl From<String> for DemoError {
    fn from(text: String) -> Self {
        Self::Unexpected(text)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whatever ends this future drops what it started.
    tokio::select! {
        result = demo(&arguments) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("demo: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            println!("\nStopping everything.");
            ExitCode::SUCCESS
        }
    }
}

async fn demo(arguments: &Arguments) -> Result<(), DemoError> {
    let started = Instant::now();
    say("Starting etcd and kube-apiserver");
    let control_plane = ControlPlane::start(ControlPlaneOptions::whole()).await?;
    control_plane.install_operator().await?;

    say("Starting the Boltz emulator, whose days have 18 s, and the operator");
    let settings = Settings {
        day_milliseconds: u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX),
        ..Settings::default()
    };
    let emulator = Emulator::start(Options { settings, ..Options::default() }).await?;
    let operator = start_operator(&control_plane, &emulator)?;
    operator.wait_ready().await?;

    say("A platform team applies this manifest");
    println!("{MANIFEST}");
    let shell = Shell { control_plane: &control_plane };
    shell.kubectl_with_input("apply -f -", MANIFEST)?;
    shell.kubectl("wait --for=condition=Ready --timeout=30s boltzapikey/design-jobs")?;
    shell.kubectl("get boltzapikeys")?;
    shell.kubectl("get secret design-jobs")?;

    say("A program authenticates at Boltz with the key, as mounted from the Secret");
    let first = mounted_key(&control_plane)?;
    println!("{}", who_am_i(&emulator, &first).await?);

    say("Before the key expires, the operator replaces it");
    eventually(PATIENCE, "the rotation", async || {
        let key = mounted_key(&control_plane).map_err(|error| error.to_string())?;
        if key == first { Err("the old key".to_owned()) } else { Ok(()) }
    })
    .await?;
    shell.kubectl("wait --for=jsonpath={.status.rotations}=1 --timeout=30s boltzapikey/design-jobs")?;
    shell.kubectl("get boltzapikeys -o wide")?;
    println!("During the overlap both keys work:");
    let second = mounted_key(&control_plane)?;
    println!("{}\n{}", who_am_i(&emulator, &first).await?, who_am_i(&emulator, &second).await?);

    say("After the overlap of 5 s the old key is revoked");
    eventually(PATIENCE, "the revocation", async || match who_am_i(&emulator, &first).await {
        Ok(_) => Err("it works".to_owned()),
        Err(_) => Ok(()),
    })
    .await?;
    show_keys(&emulator);
    println!(
        "The program above never stopped using the old key, so the event of its revocation is a warning:"
    );
    shell.kubectl("get events")?;

    if arguments.keep {
        say("Everything keeps running until Ctrl-C. In another terminal");
        println!("export KUBECONFIG={}", control_plane.kubeconfig("admin").display());
        println!("export PATH={}:$PATH", control_plane.binaries().display());
        println!("kubectl get boltzapikeys --watch");
        println!("curl {}/_emulator/state", emulator.base_url());
        println!("tail -f {}", operator.log_file().display());
        println!("curl {}/metrics", operator.base_url());
        println!(
            "\nA key of 18 s is replaced every 12 s. There is no node, so no pod starts, and no Helm release is needed."
        );
        return std::future::pending().await;
    }

    say("The team deletes the object");
    shell.kubectl("delete boltzapikey design-jobs --timeout=30s")?;
    show_keys(&emulator);
    if !emulator.active_keys().is_empty() {
        return Err("a key outlived its object".to_owned().into());
    }
    say(&format!("Every key is accounted for. That took {} s", started.elapsed().as_secs()));
    Ok(())
}

fn start_operator(control_plane: &ControlPlane, emulator: &Emulator) -> Result<OperatorProcess, DemoError> {
    let binary =
        OperatorProcess::built_binary().map_err(|error| DemoError::Io("find the operator", error))?;
    let arguments = [
        ("--boltz-base-url", emulator.base_url()),
        ("--settle-time", "2s".to_owned()),
        ("--request-timeout", "1s".to_owned()),
        ("--inventory-interval", "2s".to_owned()),
        ("--lease-namespace", "boltz-system".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect::<Vec<_>>();
    let environment = [("BOLTZ_API_KEY".to_owned(), emulator.admin_key().to_owned())];
    OperatorProcess::start(&binary, &control_plane.kubeconfig("operator"), &arguments, &environment)
        .map_err(|error| DemoError::Io("start the operator", error))
}

/// What a kubelet would write into a volume: there is no node here.
fn mounted_key(control_plane: &ControlPlane) -> Result<String, DemoError> {
    let template = "go-template={{.data.BOLTZ_API_KEY | base64decode}}";
    Ok(control_plane.kubectl(&["get", "secret", "design-jobs", "-o", template])?)
}

/// Asks Boltz whose the key is.
async fn who_am_i(emulator: &Emulator, key: &str) -> Result<String, DemoError> {
    let ask = async {
        let request = reqwest::Client::new().get(format!("{}/compute/v1/auth/me", emulator.base_url()));
        request.header("x-api-key", key).send().await?.error_for_status()?.text().await
    };
    let answer = ask.await.map_err(|error| error.to_string())?;
    let me: serde_json::Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
    Ok(format!(
        "GET /compute/v1/auth/me: I am {}, a {} key of {}",
        me["api_key_id"], me["key_type"], me["workspace_id"]
    ))
}

fn show_keys(emulator: &Emulator) {
    println!("Boltz's keys:");
    for key in emulator.keys() {
        let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
        println!("  {state:8} {}  {}", key.id, key.name);
    }
}

fn say(text: &str) {
    println!("\n== {text}.");
}

/// Runs the kubectl that was built, and shows command and output.
struct Shell<'a> {
    control_plane: &'a ControlPlane,
}

impl Shell<'_> {
    fn kubectl(&self, arguments: &str) -> Result<(), DemoError> {
        self.kubectl_with_input(arguments, "")
    }

    fn kubectl_with_input(&self, arguments: &str, input: &str) -> Result<(), DemoError> {
        println!("$ kubectl {arguments}");
        let arguments: Vec<&str> = arguments.split(' ').collect();
        print!("{}", self.control_plane.kubectl_with_input(&arguments, input)?);
        Ok(())
    }
}
