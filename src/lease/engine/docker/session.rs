//! The connection to the engine, made when it is needed, and what the engine is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::Mutex;

use super::body::GpuAccess;
use super::fault::Fault;
use super::gpus::has_cdi_gpus;
use super::home::{Identity, root_at};
use super::share::Machine;
use crate::host::quota::EngineStorage;
use crate::lease::engine::EngineError;

/// How long the engine may take for an answer that changes nothing.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How long it may take for a change.
pub(super) const CHANGE: Duration = Duration::from_secs(30);
/// The longest call of all, seconds: a pull's stream has deadlines of its own.
const LONGEST: u64 = 24 * 3600;
/// The oldest API that has all that is used here: Docker Engine 20.10.
const OLDEST: (usize, usize) = (1, 41);

/// The engine, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Processors and memory.
    pub(super) machine: Machine,
    /// How it gives GPUs to containers.
    pub(super) gpus: GpuAccess,
    /// The runtimes that it knows.
    pub(super) runtimes: BTreeSet<String>,
    /// Its processors' architecture, in the words of images: `amd64`.
    pub(super) architecture: String,
    /// How it keeps containers' files.
    pub(super) storage: EngineStorage,
}

/// A connection.
pub(super) struct Session {
    /// Makes the calls.
    pub(super) docker: Docker,
    /// What is at the other end.
    pub(super) host: Host,
}

/// Makes the connection once and again after it broke.
pub(super) struct Connection {
    socket: PathBuf,
    session: Mutex<Option<Arc<Session>>>,
}

impl Connection {
    pub(super) fn to(socket: PathBuf) -> Self {
        Connection { socket, session: Mutex::new(None) }
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>, EngineError> {
        let mut known = self.session.lock().await;
        if let Some(session) = known.as_ref() {
            return Ok(session.clone());
        }
        let session = Arc::new(connect(&self.socket).await?);
        *known = Some(session.clone());
        Ok(session)
    }

    /// Forgets what was known: the engine may be another one when it is back.
    pub(super) async fn forget(&self) {
        *self.session.lock().await = None;
    }

    /// Whether the engine answers.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let session = self.session().await?;
        match within(LOOK, session.docker.ping()).await {
            Ok(_) => Ok(()),
            Err(fault) => {
                self.forget().await;
                Err(fault.reading("a sign of life"))
            }
        }
    }
}

impl Session {
    /// Which engine is at the other end, now.
    pub(super) async fn identity(&self) -> Result<Identity, Fault> {
        let info = within(LOOK, self.docker.info()).await?;
        let root = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        // A disk that does not answer says nothing, and must not hold up those who ask.
        let looked = tokio::time::timeout(LOOK, tokio::task::spawn_blocking(move || root_at(&root))).await;
        let root = looked.ok().and_then(Result::ok).flatten();
        Ok(Identity { engine: info.id.unwrap_or_default(), root })
    }
}

/// A call with its deadline.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::of(error)),
        Err(_) => Err(Fault::late(limit)),
    }
}

async fn connect(socket: &Path) -> Result<Session, EngineError> {
    let unavailable = |why: String| EngineError::Unavailable { why, source: None };
    let at = socket.to_str().ok_or_else(|| unavailable(format!("docker.socket {socket:?} is not UTF-8")))?;
    let docker = Docker::connect_with_unix(at, LONGEST, API_DEFAULT_VERSION);
    let docker = docker.map_err(|error| Fault::of(error).reading("connecting"))?;
    let docker = within(LOOK, docker.negotiate_version()).await.map_err(|fault| fault.reading("asking its version"))?;
    let version = docker.client_version();
    if (version.major_version, version.minor_version) < OLDEST {
        return Err(unavailable(format!(
            "the engine at {at} speaks API {}.{}; {}.{} is needed: install Docker Engine 20.10 or newer",
            version.major_version, version.minor_version, OLDEST.0, OLDEST.1
        )));
    }
    let info = within(LOOK, docker.info()).await.map_err(|fault| fault.reading("asking what it is"))?;
    let cdi = has_cdi_gpus(&info).await;
    Ok(Session { host: host(&info, cdi), docker })
}

fn host(info: &SystemInfo, cdi: bool) -> Host {
    let architecture = match info.architecture.as_deref().unwrap_or_default() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Host {
        machine: Machine {
            cpus: info.ncpu.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
            memory: info.mem_total.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
        },
        gpus: if cdi { GpuAccess::Cdi } else { GpuAccess::Driver },
        runtimes: info.runtimes.iter().flatten().map(|(name, _)| name.clone()).collect(),
        architecture: architecture.to_owned(),
        storage: storage(info),
    }
}

fn storage(info: &SystemInfo) -> EngineStorage {
    let pair = |row: &Vec<String>| match row.as_slice() {
        [name, value] => Some((name.clone(), value.clone())),
        _ => None,
    };
    EngineStorage {
        driver: info.driver.clone().unwrap_or_default(),
        root: info.docker_root_dir.clone().unwrap_or_default().into(),
        status: info.driver_status.iter().flatten().filter_map(pair).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_tells_of_its_storage_is_handed_on() {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let info = SystemInfo {
            driver: Some("overlay2".into()),
            docker_root_dir: Some("/srv/docker".into()),
            driver_status: Some(vec![row("Backing Filesystem", "xfs"), vec!["odd".into()]]),
            ..SystemInfo::default()
        };
        let storage = storage(&info);
        assert_eq!((storage.driver.as_str(), storage.root), ("overlay2", "/srv/docker".into()));
        assert_eq!(storage.status, [("Backing Filesystem".to_owned(), "xfs".to_owned())]);
    }

    #[tokio::test]
    async fn without_an_engine_the_error_names_the_socket_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::to(dir.path().join("none.sock"));
        let error = connection.ping().await.unwrap_err();
        assert!(matches!(error, EngineError::Unavailable { .. }));
        assert!(error.to_string().contains("none.sock; is Docker installed and running?"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_is_an_engine_that_is_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Connection::to(path).ping().await.unwrap_err();
        assert!(
            matches!(error, EngineError::Unavailable { .. }) && error.to_string().contains("start Docker"),
            "{error}"
        );
    }
}
