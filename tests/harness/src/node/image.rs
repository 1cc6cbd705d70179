//! Container images that hold one static program.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// Keeps a pod's namespaces, as every container runtime wants it; prints the files that it is given.
const PAUSE: &str = r#"
fn main() {
    for file in std::env::args().skip(1) {
        println!("{}", std::fs::read_to_string(&file).unwrap_or_else(|error| format!("{file}: {error}")));
    }
    loop {
        std::thread::park();
    }
}
"#;

/// The image of pods that only wait; its name on the node.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";

/// Compiles the pause program and packs it; the archive.
pub fn pause(folder: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir(folder)?;
    let (source, program) = (folder.join("pause.rs"), folder.join("pause"));
    std::fs::write(&source, PAUSE)?;
    let flags = ["--edition=2024", "-Copt-level=s", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"];
    run("rustc", flags.map(OsStr::new).into_iter().chain([program.as_os_str(), source.as_os_str()]))?;
    let archive = folder.join("pause.tar");
    pack(&program, &archive)?;
    Ok(archive)
}

/// Writes an image of one static program as an archive, in the layout of `docker save`.
fn pack(program: &Path, archive: &Path) -> io::Result<()> {
    let folder = archive.with_extension("image");
    std::fs::create_dir(&folder)?;
    let layer = folder.join("layer.tar");
    let file = program.file_name().unwrap_or_default();
    tar(&layer, program.parent().unwrap_or(Path::new("/")), &[file])?;
    let digest = Sha256::digest(std::fs::read(&layer)?);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {"Entrypoint": [format!("/{}", file.display())]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]);
    std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    tar(archive, &folder, &["manifest.json", "config.json", "layer.tar"].map(OsStr::new))
}

fn tar(archive: &Path, folder: &Path, files: &[&OsStr]) -> io::Result<()> {
    let options = ["--create", "--owner=0", "--group=0", "--directory"].map(OsStr::new);
    let paths = [folder.as_os_str(), OsStr::new("--file"), archive.as_os_str()];
    run("tar", options.into_iter().chain(paths).chain(files.iter().copied()))
}

fn run<'a>(program: &str, arguments: impl Iterator<Item = &'a OsStr>) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))))
}
