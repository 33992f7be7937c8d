//! Volumes on real loop devices, beneath overlays as a container engine mounts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use compute_subnet::host::quota::{EngineStorage, NameFiles, Quota, QuotaError, VolumeKey};
use compute_subnet::ids::LeaseId;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A machine with a disk of its own, so that no other program writes to it: volumes, and an engine's directory with one container.
struct Machine {
    /// Where the disk is mounted.
    disk: PathBuf,
    _dir: TempDir,
    quota: Quota,
    runtime: tokio::runtime::Runtime,
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (file, disk) = (dir.path().join("disk.img"), dir.path().join("disk"));
        fs::File::create(&file).unwrap().set_len(4 << 30).unwrap();
        fs::create_dir(&disk).unwrap();
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file));
        done(Command::new("mount").args(["-o", "loop"]).args([&file, &disk]));
        let engine = EngineStorage { driver: "overlay2".into(), root: disk.join("engine"), status: vec![] };
        let quota = runtime.block_on(Quota::detect(&disk.join("volumes"), &engine)).unwrap();
        assert!(matches!(quota, Quota::Volumes(_)), "loop devices work here: {}", quota.holds());
        Machine { disk, _dir: dir, quota, runtime }
    }

    fn volumes(&self) -> PathBuf {
        self.disk.join("volumes")
    }

    /// The directory of a layer as the engine makes it: the image below in `lower`, what it put there itself in `diff`.
    fn layer(&self) -> PathBuf {
        let layer = self.disk.join("engine/overlay2/0a1b");
        if !layer.exists() {
            let image = self.disk.join("engine/overlay2/image/diff");
            fs::create_dir_all(image.join("bin")).unwrap();
            copy_program(Path::new("/bin/sleep"), &image);
            for part in ["diff/etc", "work", "merged"] {
                fs::create_dir_all(layer.join(part)).unwrap();
            }
            fs::write(layer.join("link"), "SHORT").unwrap();
            fs::write(layer.join("lower"), image.to_str().unwrap()).unwrap();
            fs::write(layer.join("diff/etc/made-by-the-engine"), "1").unwrap();
        }
        layer
    }

    fn prepare(&self, key: VolumeKey, bytes: u64) -> Result<Vec<(PathBuf, &'static str)>, QuotaError> {
        let names = NameFiles { hostname: "tenant".into(), resolvers: vec!["1.1.1.1".parse().unwrap()] };
        self.runtime.block_on(self.quota.prepare(key, bytes, &names)).map(|prepared| prepared.binds)
    }
    fn attach(&self, key: VolumeKey) -> Result<bool, QuotaError> {
        self.runtime.block_on(self.quota.attach(key, &self.layer().join("diff")))
    }
    fn release(&self, key: VolumeKey) -> bool {
        self.runtime.block_on(self.quota.release(key)).unwrap()
    }

    /// Mounts the container's root as the engine does at its start, from the files of the layer; the value unmounts it.
    fn started(&self) -> Option<Root> {
        let layer = self.layer();
        let lower = fs::read_to_string(layer.join("lower")).ok()?;
        // Names in it count from the directory of layers.
        let lower = layer.parent().unwrap().join(lower).canonicalize().ok()?.display().to_string();
        let merged = layer.join("merged");
        let (upper, work) = (layer.join("diff"), layer.join("work"));
        let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        done(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&merged));
        Some(Root(merged))
    }

    /// What is mounted below this machine's disk.
    fn mounted(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = format!("{}/", self.disk.display());
        text.lines().filter(|line| line.contains(&here)).map(str::to_owned).collect()
    }
    fn in_volumes(&self) -> Vec<String> {
        let names = fs::read_dir(self.volumes()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
    /// Loop devices whose file is in the directory of the volumes.
    fn loops(&self) -> usize {
        let out = Command::new("losetup").args(["--list", "--noheadings", "--output", "BACK-FILE"]).output().unwrap();
        let volumes = self.volumes();
        String::from_utf8_lossy(&out.stdout).lines().filter(|line| line.contains(volumes.to_str().unwrap())).count()
    }
    fn assert_empty(&self) {
        assert_eq!(self.in_volumes(), [""; 0]);
        assert_eq!(self.mounted(), [""; 0]);
        assert_eq!(self.loops(), 0);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A check that failed in the middle leaves mounts, and a directory with mounts in it cannot be removed.
        for line in self.mounted().iter().rev() {
            if let Some(at) = line.split(' ').nth(4) {
                let _ = Command::new("umount").arg(at).status();
            }
        }
        let _ = Command::new("umount").arg(&self.disk).status();
    }
}

/// A container's root, mounted.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn done(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A program and its libraries.
fn copy_program(program: &Path, root: &Path) {
    let out = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([program.to_owned()]) {
        let to = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
}

fn key(n: u8) -> VolumeKey {
    VolumeKey { lease: LeaseId([n; 16]), epoch: 3 }
}

/// Free bytes of the host's disk.
fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Writes until the disk is full; what was written.
fn fill(path: &Path) -> u64 {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let block = vec![1; 1 << 20];
    let mut written = 0;
    loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                return written;
            }
        }
        assert!(written < 1024 * MIB, "nothing stopped it");
    }
}

struct Process(Child);
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn a_tenant_that_fills_its_disk_fills_its_own() {
    let machine = Machine::new();
    let size = 64 * MIB;
    let before = free(&machine.disk);
    let binds = machine.prepare(key(1), size).unwrap();
    assert!(before - free(&machine.disk) >= size, "its room is taken from the host at once");
    assert_eq!(machine.prepare(key(1), size).unwrap(), binds, "a repeat finds what is there");
    assert!(machine.attach(key(1)).unwrap());
    assert!(!machine.attach(key(1)).unwrap(), "it is there already");
    {
        let root = machine.started().unwrap();
        assert_eq!(fs::read_to_string(root.0.join("etc/made-by-the-engine")).unwrap(), "1", "what was there stays");
        let process =
            Command::new("chroot").arg(&root.0).args(["/bin/sleep", "600"]).stdout(Stdio::null()).spawn().unwrap();
        let process = Process(process);
        // Its root changes a moment after it was started.
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        let verified = loop {
            let verified = machine.runtime.block_on(machine.quota.verify(key(1), process.0.id()));
            if verified.is_ok() || tokio::time::Instant::now() > limit {
                break verified;
            }
            std::thread::yield_now();
        };
        verified.unwrap();
        let other = machine.runtime.block_on(machine.quota.verify(key(1), std::process::id()));
        assert!(
            matches!(other, Err(QuotaError::NotHeld { .. })),
            "a process with the host's root is told apart: {other:?}"
        );

        let host = free(&machine.disk);
        let written = fill(&root.0.join("big"));
        assert!((size / 2..size).contains(&written), "{written} of {size}");
        for (file, target) in &binds {
            let written = fill(file);
            assert!(written < MIB, "{target} is in the same volume, and full: {written} more");
        }
        let less = host.saturating_sub(free(&machine.disk));
        assert!(less < 8 * MIB, "the host lost {less} bytes while the tenant wrote {written}");
    }
    assert!(machine.release(key(1)));
    assert!(!machine.release(key(1)), "a repeat finds nothing");
    machine.assert_empty();
    let back = free(&machine.disk);
    assert!(back + 8 * MIB >= before, "the host has its room again: {before} before, {back} after");
}

pub(crate) fn what_a_killed_miner_left_half_made_is_swept() {
    let machine = Machine::new();
    machine.prepare(key(1), 32 * MIB).unwrap();
    machine.attach(key(1)).unwrap();
    machine.prepare(key(2), 32 * MIB).unwrap();
    // As a kill leaves them: while a file was allocated; after it was named, and before it was mounted; a copy of a layer.
    fs::write(machine.volumes().join(format!("{}.part", key(3))), [0; 4096]).unwrap();
    fs::rename(machine.volumes().join(format!("{}.part", key(3))), machine.volumes().join(format!("{}.img", key(4))))
        .unwrap();
    fs::write(machine.volumes().join(format!("{}.part", key(3))), [0; 4096]).unwrap();
    fs::create_dir(machine.volumes().join(key(5).to_string())).unwrap();
    fs::create_dir(machine.volumes().join(key(2).to_string()).join("layer.part")).unwrap();
    fs::write(machine.volumes().join("an operator's note"), "stays").unwrap();

    let kept = machine.runtime.block_on(machine.quota.sweep(&[key(2)])).unwrap();
    assert_eq!(kept, [key(1), key(3), key(4), key(5)]);
    assert_eq!(machine.runtime.block_on(machine.quota.list()).unwrap(), [key(2)]);
    assert_eq!((machine.mounted().len(), machine.loops()), (1, 1), "the one that is kept is left alone");
    machine.attach(key(2)).unwrap_err(); // `lower` went with the first lease's volume, as the engine's own removal takes it.
    machine.release(key(2));
    fs::remove_file(machine.volumes().join("an operator's note")).unwrap();
    machine.assert_empty();
    // A half-made one does not keep the next from being made.
    fs::write(machine.volumes().join(format!("{}.part", key(6))), [0; 4096]).unwrap();
    machine.prepare(key(6), 32 * MIB).unwrap();
    machine.release(key(6));
    machine.assert_empty();
}

pub(crate) fn a_container_without_its_volume_does_not_start_on_the_hosts_disk() {
    let machine = Machine::new();
    machine.prepare(key(1), 32 * MIB).unwrap();
    machine.attach(key(1)).unwrap();
    let root = machine.started().unwrap();
    fs::write(root.0.join("kept"), "work").unwrap();
    drop(root);
    // A reboot: nothing is mounted, everything is there.
    for line in machine.mounted().iter().rev() {
        done(Command::new("umount").arg(line.split(' ').nth(4).unwrap()));
    }
    assert_eq!(machine.loops(), 0);
    assert!(machine.started().is_none(), "the engine finds no image for it");
    machine.attach(key(1)).unwrap();
    let root = machine.started().unwrap();
    assert_eq!(fs::read_to_string(root.0.join("kept")).unwrap(), "work");
    drop(root);
    machine.release(key(1));
    machine.assert_empty();
}

pub(crate) fn what_a_killed_engine_left_mounted_goes_with_the_volume() {
    let machine = Machine::new();
    machine.prepare(key(1), 64 * MIB).unwrap();
    assert!(machine.attach(key(1)).unwrap());
    let left = machine.started().unwrap();
    assert!(machine.release(key(1)), "nobody is in it");
    machine.assert_empty();
    drop(left);
}

pub(crate) fn a_lease_that_the_disk_has_no_room_for_is_refused() {
    let machine = Machine::new();
    let refused = machine.prepare(key(1), free(&machine.disk)).unwrap_err();
    assert!(matches!(refused, QuotaError::NoRoom { .. }), "{refused}");
    let small = machine.prepare(key(1), MIB).unwrap_err();
    assert!(matches!(small, QuotaError::TooSmall { .. }), "{small}");
    machine.assert_empty();
}
