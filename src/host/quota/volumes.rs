//! A file for each lease, allocated whole, with a file system in it, mounted where the engine keeps the container's layer.
//!
//! In the directory of the volumes, KEY being lease and fencing epoch:
//!
//! - `KEY.part`: a file that is being made. A crash leaves it; nobody uses it.
//! - `KEY.img`: the file with its file system. That it has this name says that it is complete.
//! - `KEY/`: where it is mounted. In it `layer/` (the container's writable layer) and `names/` (its `/etc/hosts` and the like).
//!
//! What is mounted is asked of the kernel each time. The loop device belongs to the mount and goes with it (`mount -o loop`), so
//! none is ever left over. The file is allocated before it is used: what a lease may write is the host's no more from its first
//! moment, and no tenant's writing ever finds the host's disk full. Blocks of an earlier tenant are never read: the host's
//! file system gives zeros for what was allocated and not written.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

use super::mounts::{self, Mount};
use super::{NameFiles, QuotaError};
use crate::host::command::run;
use crate::ids::LeaseId;

/// How long one program may take; a file system is made in milliseconds, but on a disk that others keep busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Left free for the host, in bytes.
const RESERVE: u64 = 1 << 30;
/// The smallest volume, in bytes: less than a journal and a container's first files take.
const LEAST: u64 = 16 << 20;
/// The link in a layer below a volume that stands for the image.
const NO_VOLUME: &str = "no-volume";
/// Volumes begin and end at whole blocks of the host, in bytes.
const BLOCK: u64 = 1 << 20;

/// Whose volume it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// The lease.
    pub lease: LeaseId,
    /// The fencing epoch of its container.
    pub epoch: u64,
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lease, self.epoch)
    }
}

impl FromStr for VolumeKey {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (lease, epoch) = text.split_once('-').ok_or(())?;
        let key = VolumeKey { lease: lease.parse().map_err(drop)?, epoch: epoch.parse().map_err(drop)? };
        // `+7` and `007` are numbers too, and no names of ours.
        (key.to_string() == text).then_some(key).ok_or(())
    }
}

/// The volumes of one miner.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    /// Those in this directory, which is made if it is missing, readable for its owner alone.
    pub(super) async fn open(dir: PathBuf) -> Result<Volumes, QuotaError> {
        if !rustix::process::geteuid().is_root() {
            return Err(QuotaError::Unavailable("mounting needs root: run the miner as root".to_owned()));
        }
        let made = {
            let dir = dir.clone();
            blocking(move || {
                use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
                std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
                // The kernel tells mounts by their real names.
                dir.canonicalize()
            })
        };
        let real = made.await.map_err(failed("making", &dir))?;
        Ok(Volumes { dir: real })
    }

    /// Those that are in this directory from before; `None` where there certainly is no such directory. Nothing is made or tried.
    pub(super) async fn existing(dir: &Path) -> Result<Option<Volumes>, QuotaError> {
        let real = {
            let dir = dir.to_owned();
            blocking(move || match dir.canonicalize() {
                Ok(real) => Ok(Some(real)),
                // Below a file there is no directory either.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                Err(error) => Err(error),
            })
        };
        let real = real.await.map_err(failed("looking for", dir))?;
        Ok(real.map(|dir| Volumes { dir }))
    }

    fn image(&self, key: VolumeKey) -> PathBuf {
        self.dir.join(format!("{key}.img"))
    }
    fn part(&self, key: VolumeKey) -> PathBuf {
        self.dir.join(format!("{key}.part"))
    }
    fn place(&self, key: VolumeKey) -> PathBuf {
        self.dir.join(key.to_string())
    }

    /// Makes a volume, mounts it, and takes it away.
    pub(super) async fn try_out(&self) -> Result<(), QuotaError> {
        let mut lease = [0; 16];
        getrandom::fill(&mut lease)
            .map_err(|error| QuotaError::Unavailable(format!("the system has no random numbers: {error}")))?;
        let key = VolumeKey { lease: LeaseId(lease), epoch: 0 };
        let made = self.make(key, LEAST).await;
        let released = self.release(key).await;
        made.and(released.map(drop))
    }

    /// Sees to it that the volume is there and mounted.
    pub(super) async fn make(&self, key: VolumeKey, bytes: u64) -> Result<(), QuotaError> {
        if bytes < LEAST {
            return Err(QuotaError::TooSmall { asked: bytes, least: LEAST });
        }
        if !exists(&self.image(key)).await? {
            self.format(key, bytes / BLOCK * BLOCK).await?;
        }
        self.mount(key).await.map(drop)
    }

    /// Makes the file and its file system, under another name until both are complete.
    async fn format(&self, key: VolumeKey, bytes: u64) -> Result<(), QuotaError> {
        let part = self.part(key);
        self.room_for(bytes).await?;
        {
            let part = part.clone();
            blocking(move || {
                use std::os::unix::fs::OpenOptionsExt;
                remove_file(&part)?;
                let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
                Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
            })
        }
        .await
        .map_err(failed("allocating", &part))?;
        // `nodiscard`: or it would give the blocks back. Inode tables are zeros already, since the file is new.
        let mut arguments: Vec<OsString> =
            ["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"]
                .map(OsString::from)
                .into();
        arguments.extend(["--".into(), part.clone().into()]);
        run("mkfs.ext4", &arguments, "", LIMIT).await.map_err(|source| QuotaError::Command { key, source })?;
        let image = self.image(key);
        let renamed = {
            let (part, image, dir) = (part.clone(), image.clone(), self.dir.clone());
            blocking(move || {
                std::fs::File::open(&part)?.sync_all()?;
                std::fs::rename(&part, &image)?;
                std::fs::File::open(dir)?.sync_all()
            })
        };
        renamed.await.map_err(failed("naming", &image))
    }

    async fn room_for(&self, asked: u64) -> Result<(), QuotaError> {
        let dir = self.dir.clone();
        let stat = blocking(move || Ok(statvfs(&dir)?)).await.map_err(failed("measuring", &self.dir))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free >= asked.saturating_add(RESERVE) {
            true => Ok(()),
            false => Err(QuotaError::NoRoom { dir: self.dir.clone(), asked, reserve: RESERVE, free }),
        }
    }

    /// Sees to it that the complete file is mounted, and returns its mount.
    async fn mount(&self, key: VolumeKey) -> Result<Mount, QuotaError> {
        let (image, place) = (self.image(key), self.place(key));
        if !exists(&image).await? {
            return Err(QuotaError::NoVolume { key });
        }
        if let Some(mount) = self.mounted(key).await? {
            return Ok(mount);
        }
        let made = {
            let place = place.clone();
            blocking(move || {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place)
            })
        };
        made.await.map_err(failed("making", &place))?;
        // `noinit_itable`: the kernel need not write zeros over zeros.
        let options = "loop,nosuid,nodev,noatime,noinit_itable,errors=remount-ro";
        let arguments: [OsString; 7] =
            ["-t".into(), "ext4".into(), "-o".into(), options.into(), "--".into(), image.into(), place.clone().into()];
        run("mount", &arguments, "", LIMIT).await.map_err(|source| QuotaError::Command { key, source })?;
        self.mounted(key).await?.ok_or_else(|| QuotaError::Layer {
            path: place,
            why: "it was mounted, and the kernel does not list it".to_owned(),
        })
    }

    async fn mounted(&self, key: VolumeKey) -> Result<Option<Mount>, QuotaError> {
        let place = self.place(key);
        Ok(all_mounts().await?.into_iter().rfind(|mount| mount.at == place))
    }

    /// Writes the files that stand for the engine's own, and says what to bind where.
    pub(super) async fn write_names(
        &self,
        key: VolumeKey,
        names: &NameFiles,
    ) -> Result<Vec<(PathBuf, &'static str)>, QuotaError> {
        let dir = self.place(key).join("names");
        let contents = name_files(names);
        let binds = contents.iter().map(|(name, target, _)| (dir.join(name), *target)).collect();
        let written = {
            let dir = dir.clone();
            blocking(move || {
                std::fs::create_dir_all(&dir)?;
                for (name, _, content) in &contents {
                    let path = dir.join(name);
                    // What a tenant made of them stays.
                    if !path.exists() {
                        std::fs::write(path, content)?;
                    }
                }
                Ok(())
            })
        };
        written.await.map_err(failed("writing", &dir))?;
        Ok(binds)
    }

    /// Mounts the volume's `layer` over the directory that the engine made for the container's layer.
    ///
    /// What the engine put there at the creation is copied first, and `lower`, which names the image, names nothing below: so the
    /// engine cannot start the container without its volume, and can still tell of it. Without any `lower` it would take
    /// the layer for one without an image, start that, and remember the other path until its own end.
    pub(super) async fn attach(&self, key: VolumeKey, upper: &Path) -> Result<bool, QuotaError> {
        let volume = self.mount(key).await?;
        let refused = |why: &str| QuotaError::Layer { path: upper.to_owned(), why: why.to_owned() };
        let layer = layer_of(upper).ok_or_else(|| refused("it does not end in overlay2/ID/diff"))?.to_owned();
        let over = all_mounts().await?.into_iter().rfind(|mount| mount.at == layer);
        match over {
            Some(mount) if mount.device == volume.device => return Ok(false),
            Some(_) => return Err(refused("something else is mounted there")),
            None => {}
        }
        let copy = self.place(key).join("layer");
        if !exists(&copy).await? {
            let half = self.place(key).join("layer.part");
            for part in ["lower", "link", "diff"] {
                if !exists(&layer.join(part)).await? {
                    return Err(refused(&format!("it has no {part}")));
                }
            }
            if is_barred(&layer).await? {
                return Err(refused("it was another volume's, which is gone"));
            }
            {
                let half = half.clone();
                blocking(move || if half.exists() { std::fs::remove_dir_all(half) } else { Ok(()) })
            }
            .await
            .map_err(failed("removing", &half))?;
            // Owners, modes and extended attributes are the container's: all of them count.
            let arguments: [OsString; 4] = ["-a".into(), "--".into(), layer.clone().into(), half.clone().into()];
            run("cp", &arguments, "", LIMIT).await.map_err(|source| QuotaError::Command { key, source })?;
            let renamed = {
                let (half, copy) = (half.clone(), copy.clone());
                blocking(move || std::fs::rename(half, copy))
            };
            renamed.await.map_err(failed("naming", &copy))?;
        }
        // Another container's layer has another short name; its image may be another too.
        let links = {
            let links = [layer.join("link"), copy.join("link")];
            blocking(move || Ok([std::fs::read(&links[0])?, std::fs::read(&links[1])?]))
        };
        let [engines, ours] = links.await.map_err(failed("reading the link of", &layer))?;
        if engines != ours {
            return Err(refused(
                "the volume holds another container's layer: release it before a container is made again",
            ));
        }
        if !is_barred(&layer).await? {
            let barred = {
                let layer = layer.clone();
                blocking(move || bar(&layer))
            };
            barred.await.map_err(failed("barring", &layer))?;
        }
        let arguments: [OsString; 4] = ["--bind".into(), "--".into(), copy.into(), layer.into()];
        run("mount", &arguments, "", LIMIT).await.map_err(|source| QuotaError::Command { key, source })?;
        Ok(true)
    }

    pub(super) async fn has(&self, key: VolumeKey) -> Result<bool, QuotaError> {
        exists(&self.image(key)).await
    }

    /// Looks at the container's root from within: its file system must be of the volume's size, as overlays tell it of the
    /// layer they write into.
    pub(super) async fn verify(&self, key: VolumeKey, pid: u32) -> Result<(), QuotaError> {
        self.mounted(key).await?.ok_or(QuotaError::NoVolume { key })?;
        let (place, root) = (self.place(key), PathBuf::from(format!("/proc/{pid}/root")));
        let stats = {
            let root = root.clone();
            blocking(move || Ok((statvfs(&place)?, statvfs(&root)?)))
        };
        let (volume, container) = stats.await.map_err(failed("measuring", &root))?;
        let told = |stat: &StatVfs| (stat.f_blocks, stat.f_frsize, stat.f_files);
        if told(&volume) == told(&container) {
            return Ok(());
        }
        let bytes = |stat: &StatVfs| stat.f_blocks.saturating_mul(stat.f_frsize);
        let why = format!("its root tells {} bytes, the volume {}", bytes(&container), bytes(&volume));
        Err(QuotaError::NotHeld { key, pid, why })
    }

    /// Unmounts the volume wherever it is, and removes its file.
    pub(super) async fn release(&self, key: VolumeKey) -> Result<bool, QuotaError> {
        let place = self.place(key);
        let mut there = false;
        // Once for what is mounted, and once more for what was mounted meanwhile.
        for _ in 0..2 {
            let mounts = all_mounts().await?;
            let Some(device) = mounts.iter().rfind(|mount| mount.at == place).map(|mount| mount.device.clone()) else {
                break;
            };
            there = true;
            let places: Vec<PathBuf> =
                mounts.iter().filter(|mount| mount.device == device).map(|mount| mount.at.clone()).collect();
            // An engine that was killed leaves the container's root below.
            let ours = |mount: &Mount| places.iter().any(|place| mount.at.starts_with(place));
            // The last first: a bind before what it was bound from.
            for mount in mounts.into_iter().rev().filter(ours) {
                let arguments: [OsString; 2] = ["--".into(), mount.at.into()];
                run("umount", &arguments, "", LIMIT).await.map_err(|source| QuotaError::Command { key, source })?;
            }
        }
        let removed = {
            let (place, files) = (place.clone(), [self.image(key), self.part(key)]);
            blocking(move || {
                let mut any = remove_dir(&place)?;
                for file in &files {
                    any |= remove_file(file)?;
                }
                Ok(any)
            })
        };
        Ok(removed.await.map_err(failed("removing", &place))? || there)
    }

    /// What is in the directory, complete or not.
    async fn keys(&self) -> Result<Vec<VolumeKey>, QuotaError> {
        let dir = self.dir.clone();
        let listed = blocking(move || {
            let mut keys = Vec::new();
            for entry in std::fs::read_dir(dir)? {
                let name = entry?.file_name();
                let Some(name) = name.to_str() else { continue };
                let stem = name.strip_suffix(".img").or_else(|| name.strip_suffix(".part")).unwrap_or(name);
                keys.extend(stem.parse::<VolumeKey>().ok());
            }
            keys.sort();
            keys.dedup();
            Ok(keys)
        });
        listed.await.map_err(failed("reading", &self.dir))
    }

    pub(super) async fn list(&self) -> Result<Vec<VolumeKey>, QuotaError> {
        let mut complete = Vec::new();
        for key in self.keys().await? {
            if exists(&self.image(key)).await? {
                complete.push(key);
            }
        }
        Ok(complete)
    }

    pub(super) async fn sweep(&self, keep: &[VolumeKey]) -> Result<Vec<VolumeKey>, QuotaError> {
        let mut gone = Vec::new();
        for key in self.keys().await? {
            if !keep.contains(&key) && self.release(key).await? {
                gone.push(key);
            }
        }
        Ok(gone)
    }
}

/// File, place in the container, content.
fn name_files(names: &NameFiles) -> [(&'static str, &'static str, String); 3] {
    let hostname: String =
        names.hostname.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    let resolvers = names.resolvers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    [
        ("hosts", "/etc/hosts", hosts),
        ("hostname", "/etc/hostname", format!("{hostname}\n")),
        ("resolv.conf", "/etc/resolv.conf", resolvers),
    ]
}

async fn all_mounts() -> Result<Vec<Mount>, QuotaError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = blocking(move || std::fs::read_to_string(path)).await.map_err(failed("reading", path))?;
    Ok(mounts::parse(&text))
}

async fn exists(path: &Path) -> Result<bool, QuotaError> {
    let asked = path.to_owned();
    blocking(move || asked.try_exists()).await.map_err(failed("looking for", path))
}

/// The engine's directory of a layer: `…/overlay2/ID` of `…/overlay2/ID/diff`, or the same below the directory of a remapped user.
fn layer_of(upper: &Path) -> Option<&Path> {
    let layer = upper.parent().filter(|_| upper.file_name().is_some_and(|name| name == "diff"))?;
    layer.parent()?.file_name().is_some_and(|name| name == "overlay2").then_some(layer)
}

/// Whether this container, by its writable layer, had a volume and is nothing without it.
pub(crate) async fn needs_volume(upper: &Path) -> Result<bool, QuotaError> {
    match layer_of(upper) {
        Some(layer) => is_barred(layer).await,
        None => Ok(false),
    }
}

/// What a layer's `lower` says that cannot be started: the name, from the engine's directory of layers, of a link in it to nothing.
fn barred(layer: &Path) -> Option<String> {
    Some(format!("{}/{NO_VOLUME}", layer.file_name()?.to_str()?))
}

/// Whether the engine cannot start this layer's container from what is there.
async fn is_barred(layer: &Path) -> Result<bool, QuotaError> {
    let lower = layer.join("lower");
    let asked = lower.clone();
    let found = blocking(move || match std::fs::read(asked) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    let found = found.await.map_err(failed("reading", &lower))?;
    Ok(found.is_some_and(|found| barred(layer).is_some_and(|text| text.as_bytes() == found)))
}

/// Makes it so. The link comes first: `lower` never names what the engine could not read.
fn bar(layer: &Path) -> io::Result<()> {
    let text = barred(layer).ok_or_else(|| io::Error::other("the layer's name is no text"))?;
    match std::os::unix::fs::symlink("no-volume-is-mounted-here", layer.join(NO_VOLUME)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let part = layer.join("lower.part");
    std::fs::write(&part, text)?;
    std::fs::rename(part, layer.join("lower"))
}

/// `false`: there was none.
fn remove_file(path: &Path) -> io::Result<bool> {
    gone(std::fs::remove_file(path))
}

/// Only an empty one: what is in a volume is never removed file by file.
fn remove_dir(path: &Path) -> io::Result<bool> {
    gone(std::fs::remove_dir(path))
}

fn gone(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Files are read and written beside the actors' threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuotaError {
    let path = path.to_owned();
    move |source| QuotaError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_s_name_is_its_lease_and_its_epoch_and_nothing_else_is_taken_for_one() {
        let key = VolumeKey { lease: LeaseId([7; 16]), epoch: 12 };
        assert_eq!(key.to_string(), "07070707070707070707070707070707-12");
        assert_eq!(key.to_string().parse(), Ok(key));
        for other in
            ["", "07-1", "lost+found", "07070707070707070707070707070707-+1", "07070707070707070707070707070707-01"]
        {
            assert_eq!(other.parse::<VolumeKey>(), Err(()), "{other}");
        }
    }

    #[test]
    fn name_files_hold_one_clean_name_and_the_resolvers() {
        let names = NameFiles { hostname: "a b\n1.2.3.4 evil".to_owned(), resolvers: vec!["1.1.1.1".parse().unwrap()] };
        let [(_, _, hosts), (_, _, hostname), (_, _, resolv)] = name_files(&names);
        assert_eq!(hostname, "ab1.2.3.4evil\n");
        assert_eq!(hosts.lines().count(), 5, "no line but ours: {hosts}");
        assert_eq!(resolv, "nameserver 1.1.1.1\n");
    }
}
