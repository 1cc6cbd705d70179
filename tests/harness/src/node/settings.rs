//! The configuration of containerd and kubelet.

use super::{
    image::PAUSE_IMAGE,
    network::{BRIDGE, NODE_ADDRESS, PODS},
};
use serde_json::{Value as Json, json};
use std::path::Path;

/// containerd's, for the version 2 of its file that releases 1.6 to 2.x read.
pub fn containerd(folder: &Path, plugins: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Neither may be possible where the machine is a container itself.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
"#
    )
}

/// The pods' network: an address each, on the bridge.
pub fn cni(folder: &Path) -> Json {
    let bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "ipam": {
            "type": "host-local",
            "dataDir": folder.join("addresses"),
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    json!({"cniVersion": "1.0.0", "name": BRIDGE, "plugins": [bridge]})
}

/// The kubelet's. A mounted Secret follows within two seconds.
pub fn kubelet(folder: &Path, authority: &Path, cgroup: &str, port: u16) -> Json {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "tlsCertFile": folder.join("kubelet.crt"),
        "tlsPrivateKeyFile": folder.join("kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}/containerd.sock", folder.display()),
        "cgroupDriver": "cgroupfs",
        // Another kubelet on this machine must not take our pods for its own lost ones, nor we its.
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "failSwapOn": false,
        "resolvConf": "",
        "podLogsDir": folder.join("pod-logs"),
        "volumePluginDir": folder.join("volume-plugins"),
        "syncFrequency": "2s",
        // The machine's disk and memory are not this test's affair.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}
