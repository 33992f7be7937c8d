//! What the container engine tells of itself. It is asked for less than it tells, so that no engine is too new.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::host::quota::EngineStorage;
use crate::telemetry::error_chain;
use crate::telemetry::printable;

/// How long it may take; `info` waits for storage drivers.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_REPLY: usize = 1 << 20;

/// The part of `/info` that matters here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) driver: String,
    driver_status: Vec<(String, String)>,
    pub(super) docker_root_dir: String,
    pub(super) memory_limit: bool,
    pub(super) swap_limit: bool,
    pub(super) pids_limit: bool,
    #[serde(rename = "CpuCfsQuota")]
    pub(super) cpu_quota: bool,
    pub(super) cgroup_driver: String,
    pub(super) cgroup_version: String,
    pub(super) security_options: Vec<String>,
    pub(super) runtimes: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
    pub(super) live_restore_enabled: bool,
    #[serde(rename = "CDISpecDirs")]
    pub(super) cdi_spec_dirs: Option<Vec<String>>,
}

impl Info {
    /// What it tells of its storage.
    pub(super) fn storage(&self) -> EngineStorage {
        EngineStorage {
            driver: printable(&self.driver, 64),
            root: self.docker_root_dir.clone().into(),
            status: self.driver_status.clone(),
        }
    }
    /// Whether one of its security options has this name.
    pub(super) fn has(&self, option: &str) -> bool {
        let name = format!("name={option}");
        self.security_options.iter().any(|one| one.split(',').any(|part| part == name))
    }
}

/// Asks the engine on this socket; if it does not answer, why.
pub(super) async fn info(socket: &Path) -> Result<Info, String> {
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().unix_socket(socket).build()?;
        let mut reply = client.get("http://docker/info").send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = reply.chunk().await? {
            if body.len() + chunk.len() > MAX_REPLY {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok::<_, reqwest::Error>(body)
    };
    let body = tokio::time::timeout(LIMIT, asked)
        .await
        .map_err(|_| format!("it does not say what it can within {LIMIT:?}"))?
        .map_err(|error| error_chain(&error))?;
    serde_json::from_slice(&body).map_err(|error| format!("it answered something else: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_old_and_new_are_understood() {
        let old = r#"{"Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]],"DockerRootDir":"/var/lib/docker",
            "MemoryLimit":true,"SwapLimit":false,"PidsLimit":true,"CpuCfsQuota":true,"CgroupDriver":"cgroupfs","CgroupVersion":"1",
            "SecurityOptions":["name=seccomp,profile=default"],"Runtimes":{"runc":{"path":"runc"}},"LiveRestoreEnabled":true}"#;
        let info: Info = serde_json::from_str(old).unwrap();
        assert!(info.has("seccomp") && !info.has("userns") && info.cpu_quota && info.cdi_spec_dirs.is_none());
        assert_eq!(info.storage().status, [("Backing Filesystem".to_owned(), "extfs".to_owned())]);
        let new = r#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]],"CgroupVersion":"2",
            "CDISpecDirs":["/etc/cdi","/var/run/cdi"],"Runtimes":{"nvidia":{"path":"x","status":{}}},"New":{"a":[1]}}"#;
        let info: Info = serde_json::from_str(new).unwrap();
        assert_eq!(info.cdi_spec_dirs.unwrap().len(), 2);
        assert!(serde_json::from_str::<Info>(r#"{"Driver":7}"#).is_err());
    }
}
