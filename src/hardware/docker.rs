//! Whether a container engine answers on its socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::telemetry::{error_chain, printable};

/// The version reply of an engine is a few KiB; more is not one.
const MAX_REPLY: usize = 256 * 1024;

/// Whether a container engine answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DockerPresence {
    /// It answers.
    Present {
        /// Its version, for example `27.5.1`.
        version: String,
        /// The newest API version it serves, for example `1.47`.
        api_version: String,
    },
    /// It does not.
    Absent {
        /// Why, and what to do.
        reason: String,
    },
}

impl DockerPresence {
    /// Whether it answers.
    pub fn is_present(&self) -> bool {
        matches!(self, DockerPresence::Present { .. })
    }
    fn absent(reason: impl AsRef<str>) -> Self {
        DockerPresence::Absent { reason: printable(reason.as_ref(), 512) }
    }
}

impl Default for DockerPresence {
    fn default() -> Self {
        DockerPresence::absent("not reported")
    }
}

impl std::fmt::Display for DockerPresence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DockerPresence::Present { version, .. } => write!(f, "Docker {version}"),
            DockerPresence::Absent { reason } => write!(f, "no Docker: {reason}"),
        }
    }
}

#[derive(Deserialize)]
struct VersionReply {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "ApiVersion", default)]
    api_version: String,
}

/// Asks the engine on this Unix socket for its version, within `deadline` in all.
pub async fn docker_presence(socket: &Path, deadline: Duration) -> DockerPresence {
    match tokio::time::timeout(deadline, ask(socket)).await {
        Ok(Ok(presence)) => presence,
        Ok(Err(reason)) => DockerPresence::absent(reason),
        Err(_) => {
            DockerPresence::absent(format!("no answer on {} within {deadline:?}; is dockerd stuck?", socket.display()))
        }
    }
}

async fn ask(socket: &Path) -> Result<DockerPresence, String> {
    let at = socket.display();
    match tokio::fs::metadata(socket).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(format!("no socket at {at}; is Docker installed and running?"));
        }
        Err(e) => return Err(format!("{at}: {e}")),
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .unix_socket(socket)
        .build()
        .map_err(|e| format!("{at}: {}", error_chain(&e)))?;
    let mut reply = client.get("http://docker/version").send().await.map_err(|e| match io_kind(&e) {
        Some(io::ErrorKind::PermissionDenied) => {
            format!("no permission to use {at}; add this user to the group that owns it")
        }
        Some(io::ErrorKind::ConnectionRefused) => format!("nobody listens on {at}; start Docker"),
        _ => format!("{at}: {}", error_chain(&e)),
    })?;
    if !reply.status().is_success() {
        return Err(format!("{at} answered {} to a version request", reply.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|e| format!("{at}: {}", error_chain(&e)))? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(format!("{at} answered with more than {MAX_REPLY} bytes; that is no container engine"));
        }
        body.extend_from_slice(&chunk);
    }
    let version: VersionReply =
        serde_json::from_slice(&body).map_err(|e| format!("{at} answered something that is no version: {e}"))?;
    Ok(DockerPresence::Present {
        version: printable(&version.version, 64),
        api_version: printable(&version.api_version, 64),
    })
}

/// The kind of the I/O error at the bottom of an error, if there is one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    const LIMIT: Duration = Duration::from_secs(5);

    /// An engine that answers every connection with these bytes, or never if there are none.
    fn engine(reply: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0u8; 1024];
                    let n = peer.read(&mut request).await.unwrap();
                    assert!(request[..n].starts_with(b"GET /version "));
                    if reply.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    let _ = peer.write_all(reply).await;
                });
            }
        });
        (dir, socket)
    }

    fn reason(presence: DockerPresence) -> String {
        match presence {
            DockerPresence::Absent { reason } => reason,
            present => panic!("{present}"),
        }
    }

    #[tokio::test]
    async fn an_engine_that_answers_is_present_with_its_version() {
        let (_dir, socket) = engine(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"Version\":\"27.5.1\",\"ApiVersion\":\"1.47\",\"Os\":\"linux\"}",
        );
        let found = docker_presence(&socket, LIMIT).await;
        assert_eq!(found, DockerPresence::Present { version: "27.5.1".into(), api_version: "1.47".into() });
    }

    #[tokio::test]
    async fn a_missing_socket_is_told_plainly() {
        let dir = tempfile::tempdir().unwrap();
        let said = reason(docker_presence(&dir.path().join("none.sock"), LIMIT).await);
        assert!(said.starts_with("no socket at ") && said.ends_with("is Docker installed and running?"), "{said}");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        drop(UnixListener::bind(&socket).unwrap());
        let said = reason(docker_presence(&socket, LIMIT).await);
        assert!(said.starts_with("nobody listens on "), "{said}");
    }

    #[tokio::test]
    async fn an_engine_that_never_answers_is_given_up_at_the_deadline() {
        let (_dir, socket) = engine(b"");
        let said = reason(docker_presence(&socket, Duration::from_millis(50)).await);
        assert!(said.contains("within 50ms"), "{said}");
    }

    #[tokio::test]
    async fn something_else_on_the_socket_is_no_engine() {
        let (_dir, socket) = engine(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello");
        let said = reason(docker_presence(&socket, LIMIT).await);
        assert!(said.contains("no version"), "{said}");
        let (_dir, socket) = engine(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let said = reason(docker_presence(&socket, LIMIT).await);
        assert!(said.contains("answered 404"), "{said}");
    }
}
