//! How much a tenant may write, so that a full disk is the tenant's and never the host's.
//!
//! Three ways, the first that works is taken ([`Quota::detect`]):
//!
//! 1. **A volume for each lease** ([`Volumes`]): a file of the lease's size, allocated whole, with a file system in it, mounted
//!    where the engine keeps the container's writable layer. Everything the tenant writes anywhere in its container lands there.
//!    It needs root, `overlay2`, and loop devices.
//! 2. **Project quotas** ([`Quota::Project`]): the engine's own `storage-opt size=`, on XFS with `pquota`. They count; they do not hold
//!    against malice: Linux lets the owner of a file give it another project (`FS_IOC_FSSETXATTR`), also inside a container
//!    without any capability, and what belongs to another project is not counted.
//! 3. Nothing. `compute-miner doctor` says why.
//!
//! # What is written where
//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container are files of the engine on the host's disk, writable for
//! the tenant and outside of any limit of its layer. [`Prepared::binds`] puts files of the volume in their place. `/dev/shm` and other
//! `tmpfs` count as the container's memory; the engine's log of the container's output needs a limit of its own.
//!
//! # The order of calls
//! `prepare` → the engine creates the container with what that returned → `attach` → the engine starts it → `verify`; `attach` before
//! every later start too (after a reboot nothing is mounted); the engine removes the container → `release`. A container that is
//! started without its volume finds no root file system and ends at once: it never runs without its limit.

mod mounts;
mod volumes;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::command::CommandError;

pub(crate) use volumes::needs_volume;
pub use volumes::{VolumeKey, Volumes};

/// What the container engine tells of its storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStorage {
    /// Docker's `Driver`: `overlay2`, or what containerd's snapshotter is called.
    pub driver: String,
    /// Docker's `DockerRootDir`.
    pub root: PathBuf,
    /// Docker's `DriverStatus`, by its names.
    pub status: Vec<(String, String)>,
}

/// Why a tenant's disk is not limited as it should be.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// Nothing here can limit a container.
    #[error("no container can be limited here: {0}")]
    Unavailable(String),
    /// The disk has not the room for another lease.
    #[error("{dir}: {asked} bytes and a reserve of {reserve} bytes are wanted, {free} bytes are free")]
    NoRoom {
        /// Where volumes are.
        dir: PathBuf,
        /// What the lease needs.
        asked: u64,
        /// What stays free for the host.
        reserve: u64,
        /// What there is.
        free: u64,
    },
    /// A size that no file system fits into.
    #[error("{asked} bytes are less than the {least} that a volume needs")]
    TooSmall {
        /// What was asked for.
        asked: u64,
        /// The least.
        least: u64,
    },
    /// A program of the system did not do its part.
    #[error("the volume of lease {lease}, epoch {epoch}", lease = .key.lease, epoch = .key.epoch)]
    Command {
        /// Whose volume.
        key: VolumeKey,
        /// The cause.
        #[source]
        source: CommandError,
    },
    /// A file or directory could not be used.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The engine's directories are not what they should be.
    #[error("the engine's layer {path}: {why}")]
    Layer {
        /// The layer.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The container runs, and what it writes is not in its volume.
    #[error("process {pid} of lease {lease} does not write into its volume: {why}", lease = .key.lease)]
    NotHeld {
        /// Whose volume.
        key: VolumeKey,
        /// A process of the container.
        pid: u32,
        /// What was found instead.
        why: String,
    },
    /// There is no such volume.
    #[error("the volume of lease {lease}, epoch {epoch}, is not there (is its disk mounted?)", lease = .key.lease, epoch = .key.epoch)]
    NoVolume {
        /// Whose.
        key: VolumeKey,
    },
}

/// What the engine has to know at the container's creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Files of the host to bind into the container, and where: read-write, without propagation.
    pub binds: Vec<(PathBuf, &'static str)>,
    /// The value of `storage-opt size`, in bytes.
    pub storage_opt: Option<u64>,
}

/// What a container's name files say, where they are files of its volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFiles {
    /// The container's host name.
    pub hostname: String,
    /// The name servers it asks.
    pub resolvers: Vec<IpAddr>,
}

/// How this machine limits what a tenant writes.
#[derive(Debug)]
pub enum Quota {
    /// A volume for each lease, which holds against malice.
    Volumes(Volumes),
    /// The engine's project quotas, which hold against accidents.
    Project,
}

impl Quota {
    /// Finds the best way, by trying it: makes a small volume in `dir` and takes it away again. `dir` is made if it is missing, readable
    /// for root alone; it should lie on the disk whose room is meant for tenants.
    ///
    /// # Errors
    /// [`QuotaError::Unavailable`], with all reasons; [`QuotaError::NoRoom`] where that could not be tried.
    pub async fn detect(dir: &Path, engine: &EngineStorage) -> Result<Quota, QuotaError> {
        let why = match layers(engine) {
            Ok(()) => match Volumes::open(dir.to_owned()).await {
                Ok(volumes) => match volumes.try_out().await {
                    Ok(()) => return Ok(Quota::Volumes(volumes)),
                    // A full disk says nothing of what this machine can hold.
                    Err(error @ QuotaError::NoRoom { .. }) => return Err(error),
                    Err(error) => crate::telemetry::error_chain(&error),
                },
                Err(error) => crate::telemetry::error_chain(&error),
            },
            Err(why) => why,
        };
        let mountinfo = tokio::fs::read_to_string("/proc/self/mountinfo").await.unwrap_or_default();
        match project_quotas(engine, &mountinfo) {
            Ok(()) => Ok(Quota::Project),
            Err(project) => Err(QuotaError::Unavailable(format!("no volumes ({why}), no project quotas ({project})"))),
        }
    }

    /// What holds the volumes that are in `dir` from before, whatever could be made now; `None` where there certainly are none. Nothing is
    /// made or tried: a disk that is full now, or a setting that is another, says nothing of what is there.
    ///
    /// # Errors
    /// [`QuotaError::Io`] where that cannot be seen: there may be volumes.
    pub async fn existing(dir: &Path) -> Result<Option<Quota>, QuotaError> {
        Ok(Volumes::existing(dir).await?.map(Quota::Volumes))
    }

    /// What is held, for people.
    pub fn holds(&self) -> &'static str {
        match self {
            Quota::Volumes(_) => "a volume for each lease: all that a tenant writes is limited, and allocated before",
            Quota::Project => {
                "project quotas of XFS: they hold against accidents; a tenant can leave them on purpose (FS_IOC_FSSETXATTR)"
            }
        }
    }

    /// Makes the place for what this lease writes, `bytes` in all. A repeat finds what is there.
    ///
    /// # Errors
    /// See [`QuotaError`]; what was made is removed by [`Quota::release`] or [`Quota::sweep`].
    pub async fn prepare(&self, key: VolumeKey, bytes: u64, names: &NameFiles) -> Result<Prepared, QuotaError> {
        match self {
            Quota::Volumes(volumes) => {
                volumes.make(key, bytes).await?;
                let binds = volumes.write_names(key, names).await?;
                Ok(Prepared { binds, storage_opt: None })
            }
            Quota::Project => Ok(Prepared { binds: Vec::new(), storage_opt: Some(bytes) }),
        }
    }

    /// Puts the volume where the engine keeps the container's writable layer; `upper` is what the engine tells as
    /// `GraphDriver.Data.UpperDir`. The container must not run, unless it is there already. `true`: it was not.
    ///
    /// # Errors
    /// See [`QuotaError`]; the container must not be started then.
    pub async fn attach(&self, key: VolumeKey, upper: &Path) -> Result<bool, QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.attach(key, upper).await,
            Quota::Project => Ok(false),
        }
    }

    /// Whether this lease has a volume.
    ///
    /// # Errors
    /// [`QuotaError::Io`].
    pub async fn has(&self, key: VolumeKey) -> Result<bool, QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.has(key).await,
            Quota::Project => Ok(false),
        }
    }

    /// Whether this process of the started container really writes into its volume.
    ///
    /// # Errors
    /// [`QuotaError::NotHeld`]: destroy the container.
    pub async fn verify(&self, key: VolumeKey, pid: u32) -> Result<(), QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.verify(key, pid).await,
            Quota::Project => Ok(()),
        }
    }

    /// Takes away what [`Quota::prepare`] made, with all that is in it. `false`: there was nothing. Only after the container is removed.
    ///
    /// # Errors
    /// See [`QuotaError`]; a repeat goes on where it stopped.
    pub async fn release(&self, key: VolumeKey) -> Result<bool, QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.release(key).await,
            Quota::Project => Ok(false),
        }
    }

    /// The volumes there are, sorted.
    ///
    /// # Errors
    /// [`QuotaError::Io`].
    pub async fn list(&self) -> Result<Vec<VolumeKey>, QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.list().await,
            Quota::Project => Ok(Vec::new()),
        }
    }

    /// Takes away all that is nobody's: volumes that are not in `keep`, and what a crash left half-made. Says which it were.
    ///
    /// # Errors
    /// See [`QuotaError`].
    pub async fn sweep(&self, keep: &[VolumeKey]) -> Result<Vec<VolumeKey>, QuotaError> {
        match self {
            Quota::Volumes(volumes) => volumes.sweep(keep).await,
            Quota::Project => Ok(Vec::new()),
        }
    }
}

/// Whether the engine keeps its containers where a volume can be mounted.
fn layers(engine: &EngineStorage) -> Result<(), String> {
    let containerd = engine.status.iter().any(|(name, value)| name == "driver-type" && value.contains("containerd"));
    match (engine.driver.as_str(), containerd) {
        ("overlay2", false) => Ok(()),
        (driver, true) => Err(format!(
            "the engine keeps images in containerd ({driver}); set \"features\": {{\"containerd-snapshotter\": false}} in its daemon.json"
        )),
        (driver, false) => Err(format!(
            "the engine's storage driver is {driver}; set \"storage-driver\": \"overlay2\" in its daemon.json"
        )),
    }
}

/// Whether the engine can limit a container by itself.
fn project_quotas(engine: &EngineStorage, mountinfo: &str) -> Result<(), String> {
    layers(engine)?;
    let mounts = mounts::parse(mountinfo);
    let root = engine.root.display();
    let Some(mount) = mounts::holding(&mounts, &engine.root) else {
        return Err(format!("nothing is known of the file system below {root}"));
    };
    match (mount.kind.as_str(), mount.options.iter().any(|option| option == "prjquota" || option == "pquota")) {
        ("xfs", true) => Ok(()),
        ("xfs", false) => Err(format!("{root} is on XFS, mounted without pquota")),
        (kind, _) => Err(format!("{root} is on {kind}, not on XFS with pquota")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(driver: &str, status: &[(&str, &str)]) -> EngineStorage {
        EngineStorage {
            driver: driver.to_owned(),
            root: "/var/lib/docker".into(),
            status: status.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn volumes_go_where_the_engine_has_layers_of_its_own() {
        assert_eq!(layers(&engine("overlay2", &[("Backing Filesystem", "extfs")])), Ok(()));
        assert!(layers(&engine("vfs", &[])).unwrap_err().contains("\"storage-driver\": \"overlay2\""));
        let snapshotter = engine("overlayfs", &[("driver-type", "io.containerd.snapshotter.v1")]);
        assert!(layers(&snapshotter).unwrap_err().contains("containerd-snapshotter"));
    }

    #[test]
    fn project_quotas_are_xfs_mounted_for_them() {
        let root = "27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let with = |options: &str| format!("{root}30 27 8:1 / /var/lib/docker rw - xfs /dev/sdb1 {options}\n");
        let engine = engine("overlay2", &[]);
        assert_eq!(project_quotas(&engine, &with("rw,prjquota")), Ok(()));
        assert_eq!(
            project_quotas(&engine, &with("rw")),
            Err("/var/lib/docker is on XFS, mounted without pquota".to_owned())
        );
        assert!(project_quotas(&engine, root).unwrap_err().contains("is on ext4"));
    }
}
