//! An engine of our own, handles on it, and what would show that something was left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::host::Policy;
use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::engine::docker::images::ImagePolicy;
use compute_subnet::lease::engine::docker::share::SharePolicy;
use compute_subnet::lease::engine::docker::{DockerEngine, DockerOptions, PullLimits};
use compute_subnet::lease::{Container, ContainerEngine as _, ContainerSpec};
use tokio::time::Instant;

/// No wait of a test reaches this unless something is wrong.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// The images, by the names that `scripts/docker` gives them.
const IMAGES: &[&str] = &["bookworm", "legacy", "scratch"];
/// What a lease may write for each device, bytes: the canary's prover goes in, many leases go on one disk.
pub(crate) const DISK: u64 = 160 << 20;
/// The firewall's tables in which an engine keeps rules.
const TABLES: &[&str] = &["filter", "nat"];

/// The engine, with all that belongs to it.
pub(crate) struct Bed {
    dir: PathBuf,
    /// Apart from the engine, as a service of its own: what crashes is the engine alone.
    containerd: std::process::Child,
    dockerd: Option<std::process::Child>,
    /// The engine's record of its networks was taken away, as it did not start with it, see [`Bed::start_engine`].
    pub(crate) lost_networks: bool,
    /// The engine's data directory.
    data: PathBuf,
    /// The SSH server that is put into containers.
    pub(crate) sshd: PathBuf,
    /// A key pair of a renter: the private one's file.
    pub(crate) key: PathBuf,
    /// The public one.
    pub(crate) public_key: String,
}

/// What is on the host beside containers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    containers: BTreeSet<String>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
    images: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    rules: BTreeSet<String>,
    /// Tables of rules for tenants.
    tables: BTreeSet<String>,
    /// Files of leases' volumes.
    files: BTreeSet<String>,
    /// Where volumes and containers' layers are mounted.
    mounts: BTreeSet<String>,
    /// Loop devices of volumes.
    loops: BTreeSet<String>,
    /// The miners' own record of containers.
    record: BTreeSet<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end; its output, and a panic with its errors when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out =
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Makes the images of the tests where they are not there yet; with a way to Debian's archive.
pub(crate) fn images() {
    run(root().join("scripts/docker").to_str().unwrap(), &["images"]);
}

/// Says that a part of a test was left out, and why; also in the file that `scripts/test` makes its table of.
pub(crate) fn left_out(what: &str) {
    println!("       LEFT OUT: {what}");
    if let Some(file) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, format!("{text}{what}\n")).unwrap();
    }
}

/// Where volumes and layers below this directory are mounted, the last first.
fn mounts(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = text.lines().filter_map(|line| line.split(' ').nth(4));
    let ours = at.filter(|at| {
        at.strip_prefix(dir.to_str().unwrap())
            .is_some_and(|rest| rest.contains("/volumes") || rest.contains("/overlay2/"))
    });
    let mut ours: Vec<String> = ours.map(str::to_owned).collect();
    ours.reverse();
    ours
}

/// The names of what is in this directory.
fn names_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn unmount(dir: &Path) {
    mounts(dir).iter().for_each(|at| drop(Command::new("umount").arg(at).status()));
}

/// What the kernel tells of each process that has not ended: its number, and the text of this file.
fn processes(file: &str) -> impl Iterator<Item = (i32, String)> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(move |pid: i32| {
        let read = |name: &str| {
            Some(String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).ok()?).into_owned())
        };
        let ended = read("stat")?.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        if ended { None } else { Some((pid, read(file)?)) }
    })
}

/// Which of these containers this text names.
fn named<'a>(containers: &'a BTreeSet<String>, text: &str) -> Option<&'a String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|word| containers.get(word))
}

/// The processes in the control groups of these containers, in words.
pub(crate) fn processes_of(containers: &BTreeSet<String>) -> Vec<String> {
    if containers.is_empty() {
        return Vec::new();
    }
    let own =
        |(pid, groups): (i32, String)| Some(format!("process {pid} of container {}", named(containers, &groups)?));
    processes("cgroup").filter_map(own).collect()
}

/// Ends what is left of these containers, also what runs beside each of them for the engine.
pub(crate) fn end_processes_of(containers: &BTreeSet<String>) {
    let inside = processes("cgroup").filter(|(_, groups)| named(containers, groups).is_some());
    let beside = processes("cmdline")
        .filter(|(_, words)| words.contains("containerd-shim") && named(containers, words).is_some());
    for (pid, _) in inside.chain(beside) {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
    }
}

/// Starts what runs containers for the engine.
fn containerd(dir: &Path) -> std::process::Child {
    let config = dir.join("containerd.toml");
    std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n").unwrap();
    let log = std::fs::File::create(dir.join("containerd.log")).unwrap();
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config).arg("--root").arg(dir.join("containerd"));
    command.arg("--state").arg(dir.join("state")).arg("--address").arg(dir.join("containerd.sock"));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("containerd: install docker.io")
}

/// Ends a program in order.
fn stop(child: &mut std::process::Child) {
    if child.try_wait().is_ok_and(|ended| ended.is_none()) {
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
}

impl Bed {
    pub(crate) async fn make() -> Bed {
        let sshd = root().join("target/sshd/compute-sshd");
        assert!(sshd.is_file(), "{} is missing: run scripts/sshd", sshd.display());
        let dir = root().join("target/docker/t");
        unmount(&dir);
        // An engine that was killed leaves its own directory mounted.
        drop(Command::new("umount").arg("--recursive").arg(dir.join("data")).stderr(Stdio::null()).status());
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let key = dir.join("key");
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key.to_str().unwrap()]);
        let public_key = std::fs::read_to_string(dir.join("key.pub")).unwrap().trim().to_owned();
        let containerd = containerd(&dir);
        let mut bed =
            Bed { data: dir.join("data"), dir, containerd, dockerd: None, lost_networks: false, sshd, key, public_key };
        bed.start_engine(true).await;
        for image in IMAGES {
            let tar = root().join(format!("target/docker/{image}.tar"));
            bed.docker(&["import", tar.to_str().unwrap(), &format!("compute-test:{image}")]);
        }
        bed.docker(&[
            "import",
            "--change",
            "VOLUME /data",
            root().join("target/docker/scratch.tar").to_str().unwrap(),
            "compute-test:volume",
        ]);
        bed
    }

    /// Where all of it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Starts the engine; what it knew before it knows again. Docker 20.10 that is killed while it makes or removes a network may leave a
    /// record of it with which it never starts again (a panic in libnetwork's `reservePools`): then that record is
    /// taken away, as an operator would have to, and [`Bed::lost_networks`] says so.
    pub(crate) async fn start_engine(&mut self, live_restore: bool) {
        let path = |name: &str| self.dir.join(name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path("docker.log")).unwrap();
        let driver = if self.has_volumes() { "overlay2" } else { "vfs" };
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(&self.data)
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--containerd")
            .arg(path("containerd.sock"))
            .args(["--storage-driver", driver, "--bridge", "none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if live_restore {
            command.arg("--live-restore");
        }
        let log = || std::fs::read_to_string(path("docker.log")).unwrap_or_default();
        let (mut before, begun) = (log().len(), Instant::now());
        let mut start = || command.spawn().expect("dockerd: install docker.io, run as root");
        let mut dockerd = start();
        while !self.answers() {
            assert!(begun.elapsed() < LONG, "the engine does not answer:\n{}", log());
            let said = log();
            if dockerd.try_wait().unwrap().is_some() && said.get(before..).is_some_and(|s| s.contains("reservePools")) {
                std::fs::remove_file(self.data.join("network/files/local-kv.db")).unwrap();
                (self.lost_networks, before, dockerd) = (true, said.len(), start());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.dockerd = Some(dockerd);
    }

    /// Whether volumes can lie below containers here: on a disk that is an overlay itself, as that of many containers, the engine
    /// cannot have another.
    pub(crate) fn has_volumes(&self) -> bool {
        run("stat", &["-f", "-c", "%T", self.dir.to_str().unwrap()]).trim() != "overlayfs"
    }

    fn answers(&self) -> bool {
        let out =
            Command::new("docker").arg("-H").arg(format!("unix://{}", self.socket().display())).arg("version").output();
        out.is_ok_and(|out| out.status.success())
    }

    /// Ends the engine with `kill -9`.
    pub(crate) fn kill_engine(&mut self) {
        let mut dockerd = self.dockerd.take().unwrap();
        dockerd.kill().unwrap();
        dockerd.wait().unwrap();
        let _ = std::fs::remove_file(self.dir.join("docker.pid"));
    }

    /// Ends the engine and what runs containers for it with `kill -9`, and has both back without the engine's record of this container:
    /// its processes run on.
    pub(crate) async fn forget(&mut self, container: &str) {
        self.kill_engine();
        self.containerd.kill().unwrap();
        self.containerd.wait().unwrap();
        let record = self.data.join("containers").join(container);
        drop(Command::new("umount").arg(record.join("mounts/shm")).stderr(Stdio::null()).status());
        std::fs::remove_dir_all(record).unwrap();
        self.containerd = containerd(&self.dir);
        self.start_engine(true).await;
    }

    /// Ends the engine in order.
    pub(crate) fn stop_engine(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            stop(&mut dockerd);
        }
    }

    /// Restarts the engine in order, which drops the firewall rules it forgot, and removes bridges that belong to none of its
    /// networks any more: an engine that is killed between a bridge and its record of it leaves the bridge. Those in this program's own
    /// network are all this engine's.
    pub(crate) async fn restart_after_kills(&mut self) {
        self.stop_engine();
        self.start_engine(true).await;
        let left = self.traces();
        for interface in left.interfaces {
            let name = interface.trim_end_matches(':');
            println!("       left by the killed engine itself: the bridge {name}");
            run("ip", &["link", "del", name]);
        }
    }

    /// Takes everything away.
    pub(crate) fn end(&mut self) {
        self.clear();
        self.stop_engine();
        stop(&mut self.containerd);
        // Mounts of the engine's own are gone with it; what is left are files.
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// Docker's own client.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let host = format!("unix://{}", self.socket().display());
        run("docker", &[&["-H", &host], args].concat())
    }

    /// Runs a command in a lease's container, past its SSH server; what it prints, and whether it succeeded.
    pub(crate) fn inside(&self, container: &Container, command: &str) -> (bool, String) {
        let host = format!("unix://{}", self.socket().display());
        let out =
            Command::new("docker").args(["-H", &host, "exec", &container.id, "sh", "-c", command]).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    pub(crate) fn options(&self, miner: u8) -> DockerOptions {
        DockerOptions {
            miner: Hotkey([miner; 32]),
            socket: self.socket(),
            lock: self.dir.join("engine.lock"),
            sshd: self.sshd.clone(),
            bind: "127.0.0.1".parse().unwrap(),
            ports: "46000-46099".parse().unwrap(),
            ssh_ready: LONG,
            runtime: None,
            subnets: "10.214.0.0/20".parse().unwrap(),
            share: SharePolicy { cpu: 0.9, memory: 0.5, shm: 0.5, pids: 256 },
            images: ImagePolicy {
                named: IMAGES.iter().map(|name| ((*name).to_owned(), format!("compute-test:{name}"))).collect(),
                default: Some("bookworm".into()),
                allow: vec!["docker.io/library/compute-test".into()],
                require_digest: false,
            },
            at_hand: Vec::new(),
            original_image: None,
            pulls: PullLimits { time: LONG, size: 1 << 30, wait: Duration::from_secs(20) },
            volumes: self.volumes(miner),
            disk: DISK,
            disk_quota: if self.has_volumes() { Policy::Enforce } else { Policy::BestEffort },
            egress: Policy::Enforce,
            state: self.dir.join(format!("state-{miner}")),
        }
    }

    /// Another Docker's data directory from the next start on, as when a disk is not mounted; `data` is the first one.
    pub(crate) fn data_in(&mut self, name: &str) {
        self.data = self.dir.join(name);
    }

    /// Where the volumes of this miner's leases are.
    pub(crate) fn volumes(&self, miner: u8) -> PathBuf {
        self.dir.join(format!("volumes-{miner}"))
    }

    /// The names of the files there.
    pub(crate) fn in_volumes(&self, miner: u8) -> BTreeSet<String> {
        names_in(&self.volumes(miner))
    }

    /// The loop devices of volumes, by their files.
    pub(crate) fn loops(&self) -> BTreeSet<String> {
        let listed = run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]);
        listed.lines().filter(|file| file.contains(self.dir.to_str().unwrap())).map(str::to_owned).collect()
    }

    /// Takes all mounts of volumes away, as the end of the machine does. No container may run.
    pub(crate) fn unmount_volumes(&self) {
        unmount(&self.dir);
    }

    /// A handle of this miner, which offers 32 devices.
    pub(crate) fn engine(&self, miner: u8) -> Arc<DockerEngine> {
        self.with(miner, |_| {})
    }

    /// The same, told something else.
    pub(crate) fn with(&self, miner: u8, change: impl FnOnce(&mut DockerOptions)) -> Arc<DockerEngine> {
        let mut options = self.options(miner);
        change(&mut options);
        let engine = DockerEngine::new(options);
        engine.offers(32);
        engine
    }

    /// The same, with the tasks that go on beside calls.
    pub(crate) fn following(&self, miner: u8) -> Arc<DockerEngine> {
        let engine = DockerEngine::start(self.options(miner), &tokio::runtime::Handle::current());
        engine.offers(32);
        engine
    }

    /// The container of a lease, if it is there.
    pub(crate) async fn found(&self, miner: u8, lease: LeaseId) -> Option<Container> {
        let listed = self.engine(miner).list().await.unwrap();
        listed.into_iter().find(|container| container.labels.lease == lease)
    }

    pub(crate) fn spec(&self, lease: u8, device: u8) -> ContainerSpec {
        ContainerSpec {
            lease: LeaseId([lease; 16]),
            fencing_epoch: 1,
            expires_at_ms: 1 << 42,
            renter: Hotkey([9; 32]),
            devices: vec![DeviceId::cpu(device)],
            ssh_public_key: Some(self.public_key.clone()),
            image: String::new(),
        }
    }

    /// What is there now.
    pub(crate) fn traces(&self) -> Traces {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let mut rules = BTreeSet::new();
        for table in TABLES {
            // Only this engine's networks: others on the machine come and go as they like.
            let listed = run("iptables", &["-w", "-t", table, "-S"]);
            rules.extend(
                listed.lines().filter(|rule| rule.contains(" cs") || rule.contains("10.214.")).map(str::to_owned),
            );
        }
        let links = run("ip", &["-o", "link", "show", "type", "bridge"]);
        let ours = self.docker(&["network", "ls", "--format", "{{.ID}} {{.Name}}"]);
        Traces {
            containers: lines(self.docker(&["ps", "-aq"])),
            networks: lines(ours),
            volumes: lines(self.docker(&["volume", "ls", "-q"])),
            images: lines(self.docker(&["images", "-aq", "--no-trunc"])),
            interfaces: links
                .lines()
                .filter_map(|l| l.split_whitespace().nth(1))
                .filter(|l| l.starts_with("cs"))
                .map(str::to_owned)
                .collect(),
            rules,
            tables: lines(run("nft", &["list", "tables"]))
                .into_iter()
                .filter(|t| t.contains("compute_subnet_"))
                .collect(),
            files: (1..=2).flat_map(|miner| self.in_volumes(miner)).collect(),
            mounts: mounts(&self.dir).into_iter().collect(),
            loops: self.loops(),
            record: (1..=2).flat_map(|miner| names_in(&self.options(miner).state.join("containers"))).collect(),
        }
    }

    /// Waits until the host is as it was.
    pub(crate) async fn assert_nothing_left(&self, before: &Traces) {
        let begun = Instant::now();
        loop {
            let now = self.traces();
            if now.containers == before.containers && now == *before {
                return;
            }
            assert!(begun.elapsed() < LONG, "left behind:\n{before:#?}\n{now:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Has the engine run again after a test that failed, and removes what that left.
    pub(crate) async fn recover(&mut self) {
        if !self.answers() {
            self.stop_engine();
            self.data_in("data");
            self.start_engine(true).await;
        }
        self.clear();
    }

    /// Removes what a test left.
    pub(crate) fn clear(&self) {
        let left = self.docker(&["ps", "-aq"]);
        let left: Vec<&str> = left.lines().collect();
        if !left.is_empty() {
            self.docker(&[&["rm", "-f", "-v"], &left[..]].concat());
        }
        self.docker(&["network", "prune", "-f"]);
        unmount(&self.dir);
        for miner in 1..=2 {
            let _ = std::fs::remove_dir_all(self.volumes(miner));
            let record = self.options(miner).state.join("containers");
            let ids = names_in(&record).iter().filter_map(|name| Some(name.split_once('.')?.1.to_owned())).collect();
            end_processes_of(&ids);
            let _ = std::fs::remove_dir_all(record);
        }
        for miner in ["01010101", "02020202"] {
            // There are none where no test failed.
            let table = format!("compute_subnet_{miner}");
            let _ = Command::new("nft").args(["delete", "table", "inet", &table]).stderr(Stdio::null()).status();
        }
    }

    /// Logs in with the renter's key, checking the host key that was told, and runs a command. `None` when it does not work.
    pub(crate) fn login(&self, container: &Container, key: &Path, command: &str) -> Option<String> {
        let known = self.dir.join("known_hosts");
        let port = container.ssh_port.to_string();
        std::fs::write(&known, format!("[127.0.0.1]:{port} {}\n", container.host_key.as_deref().unwrap())).unwrap();
        let known = format!("UserKnownHostsFile={}", known.display());
        let options = [
            "StrictHostKeyChecking=yes",
            &known,
            "GlobalKnownHostsFile=none",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "ConnectTimeout=10",
        ];
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-p", &port, "-i"]).arg(key);
        options.iter().for_each(|option| {
            ssh.args(["-o", option]);
        });
        let out = ssh.args(["root@127.0.0.1", command]).stdin(Stdio::null()).output().unwrap();
        if !out.status.success() {
            println!("       ssh: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A panic outside of a test: the engine must not outlive its files.
        if let Some(dockerd) = &mut self.dockerd {
            stop(dockerd);
        }
        stop(&mut self.containerd);
    }
}

/// Waits until something is so, and says what if it never is.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
