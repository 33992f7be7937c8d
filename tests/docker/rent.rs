//! A rental from end to end, as its renter sees it: `compute-devnet --docker` in a process of its own, `compute-register
//! allocate`, the command that it prints in a shell, what the limits are inside, `compute-register release`; and how long it
//! takes from the request that a validator signs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use compute_subnet::ids::LeaseId;
use compute_subnet::lease::Lease;
use compute_subnet::rental::Requirements;
use compute_subnet::web::control::ControlClient;
use compute_subnet::web::control::api::RentWish;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::bed::{Bed, LONG, until};
use crate::canary::stripped;
use crate::many::tell;

/// Proofs that cost nothing beside starting the prover: it is not what is looked at here.
const TINY: &str = "devnet:\n  gpu_scores:\n    cpu-1: { base: 1, n: 128, k: 64, rounds: 1 }\n    cpu-2: { base: 2, n: 128, k: 64, rounds: 1 }\n    cpu-3: { base: 3, n: 128, k: 64, rounds: 1 }\n    cpu-4: { base: 4, n: 128, k: 64, rounds: 1 }\n";
/// What a lease gets, by the settings of these devnets.
const CPU_SHARE: f64 = 0.5;
const MEMORY_SHARE: f64 = 0.1;
const SHM_SHARE: f64 = 0.25;
const PIDS: u64 = 200;
/// Of this the file system itself takes some.
const DISK: f64 = (1u64 << 30) as f64;
/// Room on the disk that is left to the others, in GiB.
const SPARE_GIB: u64 = 4;

/// Prints the limits of the container that it runs in, a line each, under either version of cgroups.
const LIMITS: &str = r#"
g=/sys/fs/cgroup
echo "user=$(id -u)"
echo "memory=$(cat $g/memory.max 2>/dev/null || cat $g/memory/memory.limit_in_bytes)"
echo "pids=$(cat $g/pids.max 2>/dev/null || cat $g/pids/pids.max)"
set -- $(cat $g/cpu.max 2>/dev/null || cat $g/cpu/cpu.cfs_quota_us $g/cpu/cpu.cfs_period_us)
echo "quota=$1"
echo "period=$2"
echo "cpus=$(nproc)"
echo "shm=$(df -B1 --output=size /dev/shm | tail -n 1)"
echo "disk=$(df -B1 --output=size / | tail -n 1)"
"#;

fn long() -> bool {
    std::env::var_os("COMPUTE_TEST_LONG").is_some()
}

/// The programs under test, and the directory that they think is home.
struct Devnet {
    child: Child,
    home: PathBuf,
    program: &'static str,
}

impl Drop for Devnet {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            println!("       the devnet said:\n{}", self.said());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Devnet {
    /// Starts one, and waits until a validator has proved a device of each miner.
    async fn start(bed: &Bed, miners: usize, further: &[&str]) -> Self {
        let home = bed.key.with_file_name("home");
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let config = home.join("tiny.yaml");
        std::fs::write(&config, TINY).unwrap();
        let program = env!("CARGO_BIN_EXE_compute-devnet");
        let mut command = own(program, &home, bed);
        command.args(["--docker=compute-test:bookworm", "--rentals", "0", "--miners", &miners.to_string()]);
        command.arg("--config").arg(config);
        command.arg("--set").arg(format!("docker.sshd={}", bed.sshd.display()));
        command.arg("--set").arg(format!("canary.prover={}", stripped(bed).display()));
        command.args(["--set", "docker.subnets=10.214.0.0/20", "--set", &format!("docker.pids={PIDS}")]);
        command.args([
            "--set",
            &format!("docker.cpu_share={CPU_SHARE}"),
            "--set",
            &format!("docker.shm_share={SHM_SHARE}"),
        ]);
        command.args(["--set", &format!("docker.memory_share={MEMORY_SHARE}")]).args(further);
        let out = std::fs::File::create(home.join("devnet.out")).unwrap();
        let child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut devnet = Devnet { child, home, program: env!("CARGO_BIN_EXE_compute-register") };
        until("every miner has a proved device", async || {
            assert!(devnet.child.try_wait().unwrap().is_none(), "the devnet ended: {}", devnet.said());
            let all = devnet.client().candidates(&devnet.wish(bed)).await;
            all.is_ok_and(|all| all.candidates.iter().filter(|c| c.fits()).count() == miners)
        })
        .await;
        devnet
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.join("devnet.out")).unwrap_or_default()
    }

    fn dir(&self) -> PathBuf {
        self.home.join(".compute-subnet/devnet")
    }

    fn validator(&self) -> PathBuf {
        self.dir().join("validator")
    }

    fn client(&self) -> ControlClient {
        ControlClient::new(self.validator())
    }

    fn wish(&self, bed: &Bed) -> RentWish {
        RentWish {
            id: None,
            renter: compute_subnet::ids::Hotkey([9; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration_s: 600,
            image: String::new(),
            ssh_key: bed.public_key.clone(),
        }
    }

    /// What `compute-register` says to these words, as a user types them.
    fn register(&self, bed: &Bed, words: &[&str]) -> String {
        let mut command = own(self.program, &self.home, bed);
        let out = command.args(words).arg("--data-dir").arg(self.validator()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }

    /// Rents, and gives the lease's id and the command that was printed.
    fn allocate(&self, bed: &Bed) -> (String, String) {
        let key = bed.key.with_file_name("key.pub");
        let said = self.register(bed, &["allocate", "--ssh-key", key.to_str().unwrap()]);
        let id = said.lines().find_map(|line| line.strip_prefix("lease ")).unwrap().trim().to_owned();
        (id, said.trim_end().lines().last().unwrap().to_owned())
    }

    /// Ends it as Ctrl-C does, and waits until it has ended in order.
    async fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut status = None;
        until("the devnet ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{status:?}: {}", self.said());
        self.nothing_is_left_of_leases();
    }

    /// No volume's file in any miner's directory, nothing mounted there.
    fn nothing_is_left_of_leases(&self) {
        let dir = self.dir();
        let miners = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path().join("volumes"));
        let left: Vec<_> =
            miners.filter(|volumes| volumes.is_dir()).flat_map(|v| std::fs::read_dir(v).unwrap()).collect();
        assert!(left.is_empty(), "files of leases are left: {left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).collect();
        assert!(left.is_empty(), "mounts of leases are left: {left:?}");
    }
}

/// A program of the user whose home this is, who has this engine.
fn own(program: &str, home: &Path, bed: &Bed) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap());
    command.env("DOCKER_HOST", format!("unix://{}", bed.socket().display())).stdin(Stdio::null());
    command
}

/// Gives the line to a shell as it was printed, and the words to what it logs in to.
fn in_a_shell(line: &str, words: &str) -> Output {
    use std::io::Write as _;
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    shell.wait_with_output().unwrap()
}

/// What a tenant sees inside is what the settings say.
fn the_limits_are_those_of_the_settings(bed: &Bed, seen: &str) {
    let seen: BTreeMap<&str, f64> = seen
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name, value.trim().parse().unwrap_or_else(|_| panic!("{name}: {value}"))))
        .collect();
    let is = |name: &str, wanted: f64| {
        let found = seen[name];
        assert!((found / wanted - 1.0).abs() < 0.02, "{name}: {found}, not {wanted}");
    };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: f64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let memory = total * 1024.0 * MEMORY_SHARE;
    assert_eq!((seen["user"], seen["pids"]), (0.0, PIDS as f64));
    is("memory", memory);
    is("shm", memory * SHM_SHARE);
    assert!((seen["quota"] / seen["period"] / (seen["cpus"] * CPU_SHARE) - 1.0).abs() < 0.02, "{seen:?}");
    if bed.has_volumes() {
        assert!((0.8 * DISK..DISK).contains(&seen["disk"]), "{seen:?}");
    }
}

pub(crate) async fn whoever_rents_from_a_devnet_logs_in_with_the_printed_command_and_leaves_nothing(bed: &mut Bed) {
    for form in [&[][..], &["--processes"]] {
        let before = bed.traces();
        let devnet = Devnet::start(bed, 2, form).await;
        let (lease, command) = devnet.allocate(bed);
        let inside = in_a_shell(&command, LIMITS);
        let (said, errors) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
        assert!(inside.status.success(), "{command}: {said}{errors}");
        the_limits_are_those_of_the_settings(bed, &said);
        let key = bed.key.to_str().unwrap();
        assert_eq!(devnet.register_ssh(bed, &lease, key, "echo in"), "in\n");
        // Nobody else is believed: the key on record is the only one that is taken.
        let pinned = devnet.validator().join("known_hosts").join(&lease);
        let line = std::fs::read_to_string(&pinned).unwrap();
        let (host, _) = line.split_once(' ').unwrap();
        std::fs::write(&pinned, format!("{host} {}\n", bed.public_key)).unwrap();
        let refused = in_a_shell(&command, "echo in");
        assert!(!refused.status.success() && refused.stdout.is_empty(), "a server with another key was believed");

        let said = devnet.register(bed, &["release", &lease]);
        assert!(said.contains("released (returned)"), "{said}");
        assert!(!pinned.exists(), "the host key of a lease that is over is still there");
        devnet.nothing_is_left_of_leases();
        bed.assert_nothing_left(&before).await;

        let miner = devnet.client().candidates(&devnet.wish(bed)).await.unwrap().candidates[0].hotkey;
        // Its device may be at work for the epoch's proof just now, and free again a moment later.
        let mut said = String::new();
        until("an honest miner passes a canary", async || {
            said = devnet.register(bed, &["canary", &miner.to_string()]);
            assert!(!said.contains("fail"), "{said}");
            said.contains("pass")
        })
        .await;

        // What still runs when a devnet ends goes with it.
        until("there is something to rent", async || devnet.client().rent(&devnet.wish(bed), LONG).await.is_ok()).await;
        assert_ne!(bed.docker(&["ps", "-q"]), "");
        devnet.end().await;
        bed.assert_nothing_left(&before).await;
    }
}

impl Devnet {
    /// What a command prints that `compute-register ssh` runs in the lease's container.
    fn register_ssh(&self, bed: &Bed, lease: &str, key: &str, words: &str) -> String {
        let mut command = own(self.program, &self.home, bed);
        command.arg("--data-dir").arg(self.validator());
        let out = command.args(["ssh", "-i", key, lease, words]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Rents, again while nothing is free: how long it took from the request that was served, until its reply, until the
    /// server's greeting and until the renter was in.
    async fn timed(&self, bed: &Bed) -> (Lease, [Duration; 3]) {
        let mut begun = Instant::now();
        let mut rented = None;
        until("there is something to rent", async || {
            begun = Instant::now();
            rented = self.client().rent(&self.wish(bed), LONG).await.ok();
            rented.is_some()
        })
        .await;
        let (lease, replied) = (rented.unwrap(), begun.elapsed());
        let at = lease.endpoint.unwrap();
        let mut greeting = [0; 8];
        let mut stream = TcpStream::connect((at.host, at.ssh_port)).await.unwrap();
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        let greeted = begun.elapsed();
        drop(stream);
        let mut ssh = tokio::process::Command::new("ssh");
        let known = self.home.join(format!("known-{}", lease.id));
        std::fs::write(&known, format!("[{}]:{} {}\n", at.host, at.ssh_port, lease.host_key.as_deref().unwrap()))
            .unwrap();
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-i"]).arg(&bed.key);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        ssh.args(["-p", &at.ssh_port.to_string(), &format!("root@{}", at.host), "true"]).stdin(Stdio::null());
        assert!(ssh.status().await.unwrap().success());
        (lease, [replied, greeted, begun.elapsed()])
    }

    /// What the miners' engines say of each stage until now: seconds in all, and how often.
    async fn stages(&self) -> BTreeMap<String, [f64; 2]> {
        let mut stages: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        let said = self.said();
        for line in said.lines().filter(|line| line.starts_with("miner-")) {
            let page = line.split_whitespace().nth(1).unwrap();
            let text = reqwest::get(page).await.unwrap().text().await.unwrap();
            for (place, suffix) in ["_sum", "_count"].into_iter().enumerate() {
                let name = format!("compute_engine_stage_seconds{suffix}{{stage=\"");
                for (stage, value) in text.lines().filter_map(|line| line.strip_prefix(&name)?.split_once("\"} ")) {
                    stages.entry(stage.to_owned()).or_default()[place] += value.parse::<f64>().unwrap();
                }
            }
        }
        stages
    }

    /// Where the time went since then, on average.
    async fn tell_stages(&self, before: &BTreeMap<String, [f64; 2]>) {
        let mean = |(stage, [sum, count]): (&String, &[f64; 2])| {
            let [before, times] = before[stage];
            format!("{stage} {:.0} ms", (sum - before) / (count - times).max(1.0) * 1_000.0)
        };
        let means: Vec<String> = self.stages().await.iter().map(mean).collect();
        println!("       of it at the engine, on average: {}", means.join(", "));
    }

    async fn release(&self, lease: LeaseId) -> Duration {
        let begun = Instant::now();
        self.client().release(lease, LONG).await.unwrap();
        begun.elapsed()
    }
}

fn tell_all(what: &str, times: &[[Duration; 3]]) {
    for (stage, name) in ["the reply", "SSH-2.0", "logged in"].into_iter().enumerate() {
        tell(&format!("{what}, from the request to {name}"), times.iter().map(|t| t[stage]).collect());
    }
}

/// Epochs of twelve seconds: not every rental meets a proof.
const CALM: [&str; 4] = ["--tempo", "23", "--speed", "2"];

/// Six of them, twenty in the long form.
pub(crate) async fn many_rent_from_a_devnet_at_once(bed: &mut Bed) {
    let rentals = if long() { 20 } else { 6 };
    let room = rustix::fs::statvfs(bed.key.parent().unwrap()).unwrap();
    let room = (room.f_bavail * room.f_frsize) >> 30;
    // Each lease takes a GiB of the disk for itself.
    let with_volumes = bed.has_volumes() && room >= rentals as u64 + SPARE_GIB;
    if !with_volumes {
        println!("       without volumes: {room} GiB are free");
    }
    let quota = format!("docker.disk_quota={}", if with_volumes { "enforce" } else { "off" });
    let further = [&CALM[..], &["--set", &quota, "--set", "docker.memory_share=0.04"]].concat();
    let devnet = Devnet::start(bed, rentals, &further).await;
    let (before, begun) = (devnet.stages().await, Instant::now());
    let all = futures_util::future::join_all((0..rentals).map(|_| devnet.timed(bed))).await;
    println!("       {rentals} rentals at once: all are in after {:.2} s", begun.elapsed().as_secs_f64());
    let (leases, times): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    tell_all("at once", &times);
    devnet.tell_stages(&before).await;
    assert_eq!(bed.docker(&["ps", "-q"]).lines().count(), rentals);
    let gone = futures_util::future::join_all(leases.iter().map(|lease| devnet.release(lease.id))).await;
    tell("at once, release", gone);
    devnet.end().await;
}

/// Ten of them, fifty in the long form, with all that holds tenants.
pub(crate) async fn many_rent_from_a_devnet_one_after_the_other(bed: &mut Bed) {
    let rentals = if long() { 50 } else { 10 };
    let devnet = Devnet::start(bed, 4, &CALM).await;
    let before = devnet.stages().await;
    let (mut times, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..rentals {
        let (lease, took) = devnet.timed(bed).await;
        times.push(took);
        gone.push(devnet.release(lease.id).await);
    }
    tell_all("one after the other", &times);
    tell("one after the other, release", gone);
    devnet.tell_stages(&before).await;
    devnet.end().await;
}
