//! The life of a lease at a real miner with a real engine: a validator that asks again until it is answered, and whoever was
//! ended comes back as a service would.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compute_subnet::clock::SystemClock;
use compute_subnet::host::Policy;
use compute_subnet::host::firewall::Bridge;
use compute_subnet::ids::{DeviceId, LeaseId};
use compute_subnet::lease::engine::docker::{DockerEngine, DockerOptions};
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec, OwnerToken};
use compute_subnet::wire::dendrite::{Dendrite, Peer};
use compute_subnet::wire::synapse::{
    AllocateReply, AllocateRequest, ContainerState, LeaseChange, LeaseChangeReply, LeaseChangeRequest, LeaseRefusal,
    LeaseStatusReply, LeaseStatusRequest, ReleaseReply, ReleaseRequest, Synapse,
};
use rustix::process::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, end_processes_of, processes_of, run};
use crate::process::{Miner, Subnet};
use crate::proxy::{Proxy, Strike, Victim, is_alive};
use crate::wait::{LONG, free_ports};
use crate::watch::{self, Watch};

/// Time between two attempts.
const AGAIN: Duration = Duration::from_millis(50);
/// How long one call may take: more than the miner gives its engine.
const CALL: Duration = Duration::from_secs(70);
/// The largest reply that is read, bytes.
const MAX_REPLY: usize = 1 << 20;
/// How long an ordinary lease is asked for, and one that is to expire while it is looked at.
const LEASE: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(4);
/// A key that nobody has.
const NOBODY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody";
/// The settings of the miner beside those of every test's: all that can hold a tenant is in force, periods are short.
const SETTINGS: &[&str] = &[
    "docker.engine=docker",
    "docker.default_image=compute-test:bookworm",
    "docker.ssh_ports=47100-47131",
    "docker.subnets=10.216.0.0/20",
    "docker.disk_gib=1",
    "docker.egress=enforce",
    "leases.health_interval=1s",
    "leases.grace=1s",
];

/// A step of a lease's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A miner starts that has a lease, beside a network that nobody owns.
    Start,
    Allocate,
    Pause,
    Unpause,
    Restart,
    /// The renter's key is exchanged.
    Key,
    Release,
    /// A lease ends by its time.
    Expiry,
    /// A container that no record knows is given back by its renter.
    Aside,
}

impl Step {
    pub(crate) const ALL: [Step; 9] = [
        Step::Start,
        Step::Allocate,
        Step::Pause,
        Step::Unpause,
        Step::Restart,
        Step::Key,
        Step::Release,
        Step::Expiry,
        Step::Aside,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

/// A lease as its validator knows it.
#[derive(Debug, Clone)]
struct Rented {
    id: LeaseId,
    container: String,
    port: u16,
}

/// What a validator was told in the end, for the comparison with the miner's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It runs, and was not given back.
    Runs,
    Released,
    /// It never ran; what was begun of it was taken away.
    Refused,
    /// It was made to end by its time.
    Expires,
}

/// Everybody.
pub(crate) struct World {
    pub(crate) bed: Bed,
    pub(crate) watch: Watch,
    proxy: Proxy,
    subnet: Subnet,
    miner: Option<Miner>,
    engine: Pid,
    port: u16,
    dendrite: Dendrite,
    settings: Vec<String>,
    _dir: tempfile::TempDir,
    live_restore: bool,
    /// Every lease that was asked for since the miner's directory is this one.
    pub(crate) told: Vec<(LeaseId, Told)>,
    /// The bridges of leases whose traces are looked for.
    bridges: BTreeSet<String>,
    /// What an engine left of its own when it was killed, in words.
    pub(crate) left_by_engine: Vec<String>,
}

fn engine_of(bed: &Bed) -> Pid {
    let text = std::fs::read_to_string(bed.socket().with_file_name("docker.pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn in_ms(time: Duration) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (now + time).as_millis() as u64
}

fn token() -> OwnerToken {
    OwnerToken::from_bytes([7; 32])
}

impl World {
    pub(crate) async fn begin(bed: Bed, runtime: &tokio::runtime::Handle) -> Self {
        let dir = tempfile::Builder::new().prefix("ends").tempdir_in(bed.socket().parent().unwrap()).unwrap();
        let subnet = Subnet::start(dir.path(), 1).await;
        let socket = dir.path().join("p.sock");
        let proxy = Proxy::open(&socket, &bed.socket(), runtime.clone());
        let own = [
            format!("docker.socket={}", socket.display()),
            format!("docker.sshd={}", bed.sshd.display()),
            format!("docker.disk_quota={}", if bed.has_volumes() { "enforce" } else { "best_effort" }),
        ];
        let all = SETTINGS.iter().map(|s| (*s).to_owned()).chain(own);
        let images = dir.path().join("images.yaml");
        std::fs::write(&images, "docker:\n  images:\n    test: { reference: \"compute-test:bookworm\" }\n").unwrap();
        let mut settings = vec!["--config".to_owned(), images.display().to_string()];
        settings.extend(all.flat_map(|s| ["--set".to_owned(), s]));
        let dendrite = Dendrite::new(subnet.callers[0].clone(), Arc::new(SystemClock), None).unwrap();
        let mut world = World {
            watch: Watch::begin(&bed.socket(), runtime),
            engine: engine_of(&bed),
            proxy,
            subnet,
            miner: None,
            port: free_ports(),
            dendrite,
            settings,
            _dir: dir,
            live_restore: true,
            told: Vec::new(),
            bridges: BTreeSet::new(),
            left_by_engine: Vec::new(),
            bed,
        };
        world.engine_is_back();
        world.up().await;
        world.subnet.real_pace(true);
        world
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.subnet.dir.join("miner")
    }

    pub(crate) fn miner_pid(&self) -> Pid {
        Pid::from_raw(self.miner.as_ref().unwrap().pid() as i32).unwrap()
    }

    /// The engine has another process now.
    fn engine_is_back(&mut self) {
        self.engine = engine_of(&self.bed);
        self.proxy.is_now(Victim::Engine, self.engine);
        self.proxy.reopen();
    }

    pub(crate) fn said(&self) -> String {
        self.miner.as_ref().map(Miner::said).unwrap_or_default()
    }

    /// Starts whoever has ended, as a service is started again, until the miner is ready.
    pub(crate) async fn up(&mut self) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LONG, "the miner is never ready:\n{}", self.said());
            if !is_alive(self.engine) {
                self.proxy.close();
                self.bed.kill_engine();
                self.bed.start_engine(self.live_restore).await;
                self.engine_is_back();
            }
            if self.miner.as_mut().is_none_or(Miner::has_ended) {
                self.miner = Some(self.subnet.spawn(self.port, &self.data(), &self.settings));
                self.proxy.is_now(Victim::Miner, self.miner_pid());
            }
            let ready = match &self.miner {
                Some(miner) => miner.is_ready().await,
                None => false,
            };
            if ready {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Ends the miner in order.
    pub(crate) async fn end_miner(&mut self) {
        self.up().await;
        self.miner.take().unwrap().end().await;
    }

    /// Begins anew, after a failure: no miner's directory, no container.
    pub(crate) async fn anew(&mut self) {
        self.watch.let_go();
        self.proxy.arm(None);
        self.miner = None;
        if !is_alive(self.engine) {
            self.proxy.close();
            self.bed.kill_engine();
            self.bed.start_engine(true).await;
            self.engine_is_back();
        }
        self.bed.clear();
        end_processes_of(&self.watch.forget());
        for mount in self.mounts() {
            let _ = Command::new("umount").arg(mount).status();
        }
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.table()]).status();
        let _ = std::fs::remove_dir_all(self.data());
        self.told.clear();
        self.watch.told();
        self.up().await;
    }

    fn axon(&self) -> Peer {
        Peer { hotkey: self.subnet.miner, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)) }
    }

    async fn call<S: Synapse>(&self, request: &S) -> Result<S::Reply, String> {
        let reply = self.dendrite.call(&self.axon(), request, CALL, MAX_REPLY).await;
        reply.map(|reply| reply.body).map_err(|error| error.to_string())
    }

    /// Asks until the answer is one that counts.
    async fn insist<S: Synapse, T>(&mut self, request: &S, mut counts: impl FnMut(&S::Reply) -> Option<T>) -> T
    where
        S::Reply: fmt::Debug,
    {
        let begun = Instant::now();
        loop {
            let last = match self.call(request).await {
                Ok(reply) => match counts(&reply) {
                    Some(answer) => return answer,
                    None => format!("{reply:?}"),
                },
                Err(error) => error,
            };
            assert!(begun.elapsed() < LONG, "{} is never answered: {last}", S::PATH);
            self.up().await;
            sleep(AGAIN).await;
        }
    }

    fn wish(&self, id: LeaseId, lasts: Duration) -> AllocateRequest {
        AllocateRequest {
            lease: id,
            fencing_epoch: 1,
            expires_at_ms: in_ms(lasts),
            renter: self.dendrite.hotkey(),
            image: "test".to_owned(),
            ssh_key: NOBODY.to_owned(),
            devices: vec![DeviceId::cpu(0)],
            owner_token: token(),
            reply_key: None,
        }
    }

    /// Rents, under another id when one came to nothing.
    async fn rent(&mut self, lasts: Duration) -> Rented {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LONG, "nothing is ever rented");
            let id = LeaseId(random());
            self.bridges.insert(Bridge::of(id, 1).name().to_owned());
            let request = self.wish(id, lasts);
            let made = self
                .insist(&request, |reply| match reply {
                    AllocateReply::Running { container, ssh_port, .. } => Some(Ok((container.clone(), *ssh_port))),
                    AllocateReply::Refused { reason: LeaseRefusal::Degraded | LeaseRefusal::Draining, .. } => None,
                    // Under way: it runs or is refused later.
                    AllocateReply::Refused { reason: LeaseRefusal::Other, detail }
                        if !["the lease is refused", "the lease is released", "the lease is lost"]
                            .contains(&detail.as_str()) =>
                    {
                        None
                    }
                    AllocateReply::Refused { reason, detail } => Some(Err(format!("{reason:?}: {detail}"))),
                })
                .await;
            match made {
                Ok((container, port)) => {
                    self.told.push((id, if lasts == SHORT { Told::Expires } else { Told::Runs }));
                    if lasts != SHORT {
                        self.watch.hold(id, &container, self.live_restore);
                    }
                    return Rented { id, container, port };
                }
                Err(why) => {
                    // What was begun for it is taken away; until then its device is busy.
                    if !why.starts_with("DeviceBusy") {
                        println!("       refused, and rented again: {why}");
                        self.told.push((id, Told::Refused));
                    }
                    self.up().await;
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// The containers of leases. The engine may be ended at this very moment by the strike: then those that it has when it is back.
    async fn listed(&mut self) -> Vec<watch::Listed> {
        let begun = Instant::now();
        loop {
            if let Some(listed) = watch::list(&self.bed.socket()).await {
                return listed;
            }
            assert!(begun.elapsed() < LONG, "an engine that runs lists its containers");
            self.up().await;
            sleep(AGAIN).await;
        }
    }

    /// Whether somebody can log in: the path there is gone for a moment while whoever was ended comes back.
    async fn lets_in(&mut self, lease: &Rented) -> bool {
        let begun = Instant::now();
        while !greets(lease.port).await {
            if begun.elapsed() > LONG {
                return false;
            }
            self.up().await;
            sleep(AGAIN).await;
        }
        true
    }

    async fn change(&mut self, lease: &Rented, change: LeaseChange) {
        let request =
            LeaseChangeRequest { lease: lease.id, fencing_epoch: 1, owner_token: token(), key: random(), change };
        let mut kept_before = false;
        loop {
            let answer = self
                .insist(&request, |reply| match reply {
                    LeaseChangeReply::Done { .. } => Some(Changed::Done),
                    LeaseChangeReply::UnknownLease => Some(Changed::Unknown),
                    LeaseChangeReply::Refused { detail, .. } if detail.contains(KEEPS_PORT) && !kept_before => {
                        Some(Changed::PortKept)
                    }
                    LeaseChangeReply::Refused { .. } => None,
                })
                .await;
            match answer {
                Changed::Done => return,
                Changed::Unknown => panic!("the miner does not know a lease that runs"),
                Changed::PortKept => {
                    kept_before = true;
                    self.restart_the_engine().await;
                }
            }
        }
    }

    /// Does what a killed engine that keeps a port needs, and the miner's refusal asks for.
    async fn restart_the_engine(&mut self) {
        self.up().await;
        self.proxy.close();
        self.bed.stop_engine();
        self.bed.start_engine(self.live_restore).await;
        self.engine_is_back();
        self.left_by_engine.push("a port, until it was restarted".to_owned());
    }

    /// Gives a lease back. At the moment it is told, nothing of its container is there.
    async fn release(&mut self, lease: &Rented) {
        self.watch.let_go();
        let request = ReleaseRequest { lease: lease.id, fencing_epoch: 1, owner_token: token() };
        self.insist(&request, |reply| match reply {
            ReleaseReply::Released | ReleaseReply::UnknownLease => Some(()),
            ReleaseReply::Refused { .. } => None,
        })
        .await;
        self.watch.released(&lease.container);
        let running = processes_of(&BTreeSet::from([lease.container.clone()]));
        assert!(running.is_empty(), "released was told of a lease whose processes run: {running:?}");
        // The engine may have been ended with the miner's last call.
        self.up().await;
        let there: Vec<_> = self.listed().await.into_iter().filter(|c| c.lease == lease.id.to_string()).collect();
        assert!(there.is_empty(), "released was told of a lease with a container: {there:?}");
        if let Some(told) = self.told.iter_mut().find(|(id, _)| *id == lease.id) {
            told.1 = Told::Released;
        }
    }

    /// A handle on the engine past the proxy, that works as another process of this miner would.
    fn handle(&self) -> Arc<DockerEngine> {
        let options = self.bed.options(1);
        let engine = DockerEngine::new(DockerOptions {
            miner: self.subnet.miner,
            ports: "47132-47139".parse().unwrap(),
            subnets: "10.216.0.0/20".parse().unwrap(),
            volumes: self.data().join("volumes"),
            egress: Policy::BestEffort,
            state: self.data(),
            ..options
        });
        engine.offers(1);
        engine
    }

    /// Does what must be before a step.
    async fn prepare(&mut self, step: Step) -> Option<Rented> {
        match step {
            Step::Allocate => None,
            Step::Expiry => Some(self.rent(SHORT).await),
            Step::Aside => {
                let id = LeaseId(random());
                self.bridges.insert(Bridge::of(id, 1).name().to_owned());
                let spec = ContainerSpec {
                    lease: id,
                    fencing_epoch: 1,
                    expires_at_ms: in_ms(LEASE),
                    renter: self.dendrite.hotkey(),
                    devices: vec![DeviceId::cpu(0)],
                    ssh_public_key: None,
                    image: "bookworm".to_owned(),
                };
                let made = self.handle().create(&spec).await.unwrap();
                Some(Rented { id, container: made.id, port: made.ssh_port })
            }
            Step::Start => {
                let rented = self.rent(LEASE).await;
                // Before there is the network: a miner that runs takes it away whenever it looks.
                let miner = self.miner_pid();
                rustix::process::kill_process(miner, rustix::process::Signal::KILL).unwrap();
                while is_alive(miner) {
                    sleep(AGAIN).await;
                }
                let miner = format!("compute-subnet.miner={}", self.subnet.miner);
                let lease = format!("compute-subnet.lease={}", LeaseId([0; 16]));
                let labels: [&str; 4] = ["--label", &miner, "--label", &lease];
                let made = ["network", "create", "--internal", "--subnet", "10.216.16.0/28"];
                let words: [&[&str]; 3] = [&made, &labels, &[ORPHAN]];
                self.bed.docker(&words.concat());
                Some(rented)
            }
            Step::Unpause => {
                let rented = self.rent(LEASE).await;
                self.change(&rented, LeaseChange::Pause).await;
                Some(rented)
            }
            Step::Pause | Step::Restart | Step::Key | Step::Release => Some(self.rent(LEASE).await),
        }
    }

    /// Takes one step, however often somebody ends in it. The lease that lives on, if one does.
    async fn take(&mut self, step: Step, lease: Option<Rented>) -> Option<Rented> {
        let Some(lease) = lease else { return Some(self.rent(LEASE).await) };
        match step {
            Step::Allocate => {}
            Step::Start => {
                // The first comparison, and the sweep, are part of the start. The network is not listed any more before the engine has
                // answered the call that takes it away: whoever ends at that answer ends within the step.
                let begun = Instant::now();
                while !self.knows(&lease).await || self.is_network(ORPHAN).await || self.proxy.is_striking() {
                    assert!(begun.elapsed() < LONG, "the started miner never knows its lease, or {ORPHAN} stays");
                    self.up().await;
                    sleep(AGAIN).await;
                }
            }
            Step::Pause => self.change(&lease, LeaseChange::Pause).await,
            Step::Unpause => self.change(&lease, LeaseChange::Resume).await,
            Step::Restart => {
                // Its processes are ended on purpose.
                self.watch.hold(lease.id, &lease.container, false);
                self.change(&lease, LeaseChange::Restart).await;
            }
            Step::Key => {
                let ssh_key = self.bed.public_key.clone();
                self.change(&lease, LeaseChange::UserKey { ssh_key }).await;
            }
            Step::Release => {
                self.release(&lease).await;
                return None;
            }
            Step::Aside => {
                let begun = Instant::now();
                while !matches!(self.status(&lease).await, Ok(LeaseStatusReply::Refused { .. })) {
                    assert!(begun.elapsed() < LONG, "a container that no record knows is never set aside: {lease:?}");
                    self.up().await;
                    sleep(AGAIN).await;
                }
                self.release(&lease).await;
                self.nothing_left().await;
                return None;
            }
            Step::Expiry => {
                let begun = Instant::now();
                loop {
                    self.up().await;
                    let listed = watch::list(&self.bed.socket()).await;
                    if listed.is_some_and(|all| all.iter().all(|c| c.lease != lease.id.to_string())) {
                        break;
                    }
                    assert!(begun.elapsed() < LONG, "a container outlives its time: {lease:?}");
                    sleep(AGAIN).await;
                }
                // The last call that takes its belongings away is part of it.
                self.nothing_left().await;
                return None;
            }
        }
        Some(lease)
    }

    async fn status(&self, lease: &Rented) -> Result<LeaseStatusReply, String> {
        let owner_token = token();
        let request = LeaseStatusRequest {
            lease: lease.id,
            fencing_epoch: 1,
            owner_token,
            receipt: None,
            reply_key: None,
            expires_at_ms: None,
        };
        self.call(&request).await
    }

    async fn knows(&self, lease: &Rented) -> bool {
        matches!(self.status(lease).await, Ok(LeaseStatusReply::Known { state: ContainerState::Running, .. }))
    }

    async fn is_network(&self, name: &str) -> bool {
        let host = format!("unix://{}", self.bed.socket().display());
        let mut asked = tokio::process::Command::new("docker");
        asked.args(["-H", &host, "network", "ls", "-q", "-f", &format!("name={name}")]);
        // Without an engine nobody knows.
        out_of(&mut asked).await.is_none_or(|text| !text.trim().is_empty())
    }

    /// A lease that lives is the one that its validator was told of, in one container that does what was asked last; and its
    /// device is nobody else's.
    async fn stands(&mut self, step: Step, lease: &Rented) {
        let paused = step == Step::Pause;
        let wanted = if paused { ContainerState::Paused } else { ContainerState::Running };
        let begun = Instant::now();
        let (said_before, mut kept_before) = (self.said().len(), false);
        loop {
            let status = self.status(lease).await;
            if matches!(&status, Ok(LeaseStatusReply::Known { state, .. }) if *state == wanted) {
                break;
            }
            assert!(begun.elapsed() < LONG, "the lease is never {wanted:?} for its miner: {status:?}");
            // The miner's own attempts to start it fail as a renter's do.
            if !kept_before && self.said().get(said_before..).is_some_and(|said| said.contains(KEEPS_PORT)) {
                kept_before = true;
                self.restart_the_engine().await;
            }
            self.up().await;
            sleep(AGAIN).await;
        }
        let listed = self.listed().await;
        assert_eq!(listed.len(), 1, "one lease, one container: {listed:?}");
        assert_eq!((&listed[0].id, &listed[0].lease), (&lease.container, &lease.id.to_string()), "its own container");
        assert_eq!(listed[0].state, if paused { "paused" } else { "running" });
        if !paused {
            assert!(self.lets_in(lease).await, "nobody can log in");
        }
        if step == Step::Key {
            let found = self.handle().list().await.unwrap();
            let in_it = self.bed.login(&found[0], &self.bed.key, "echo in");
            assert_eq!(in_it.as_deref(), Some("in"), "the exchanged key logs in");
        }
        let rival = self.wish(LeaseId(random()), LEASE);
        let answer = self
            .insist(&rival, |reply| match reply {
                AllocateReply::Refused { reason: LeaseRefusal::Degraded, .. } => None,
                answer => Some(answer.clone()),
            })
            .await;
        assert!(
            matches!(answer, AllocateReply::Refused { reason: LeaseRefusal::DeviceBusy, .. }),
            "the device of a running lease was not refused: {answer:?}"
        );
    }

    fn table(&self) -> String {
        format!("compute_subnet_{}", hex::encode(&self.subnet.miner.0[..4]))
    }

    /// Where volumes and layers of this miner's leases are mounted, the last first.
    fn mounts(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let volumes = self.data().join("volumes");
        let mut ours: Vec<String> = text
            .lines()
            .filter(|line| line.contains(volumes.to_str().unwrap()))
            .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
            .collect();
        ours.reverse();
        ours
    }

    /// All that is on the host of leases, in words.
    async fn traces(&mut self) -> Vec<String> {
        let lines = |what: &str, text: &str| text.lines().map(|l| format!("{what} {l}")).collect::<Vec<_>>();
        let listed = self.listed().await;
        let mut left: Vec<String> = listed.iter().map(|c| format!("{c:?}")).collect();
        left.extend(self.watch.left_running(&listed));
        let miner = format!("label=compute-subnet.miner={}", self.subnet.miner);
        left.extend(lines("network", &self.bed.docker(&["network", "ls", "-q", "-f", &miner])));
        left.extend(lines("volume", &self.bed.docker(&["volume", "ls", "-q"])));
        left.extend(self.mounts().iter().map(|at| format!("mount {at}")));
        let files = std::fs::read_dir(self.data().join("volumes")).into_iter().flatten();
        left.extend(files.map(|file| format!("file {:?}", file.unwrap().file_name())));
        let record = std::fs::read_dir(self.data().join("containers")).into_iter().flatten();
        left.extend(record.map(|file| format!("record {:?}", file.unwrap().file_name())));
        let dir = self.data().display().to_string();
        let loops = run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]);
        left.extend(loops.lines().filter(|file| file.contains(&dir)).map(|file| format!("loop {file}")));
        let table = self.table();
        left.extend(run("nft", &["list", "tables"]).lines().filter(|l| l.contains(&table)).map(str::to_owned));
        let links = run("ip", &["-o", "link", "show", "type", "bridge"]);
        let names = links.lines().filter_map(|l| l.split(": ").nth(1));
        left.extend(names.filter(|name| self.bridges.contains(*name)).map(|name| format!("bridge {name}")));
        left
    }

    /// Nothing of any lease is left; what an engine that was killed left of its own is taken away, and told.
    async fn nothing_left(&mut self) {
        let begun = Instant::now();
        loop {
            // Whoever ended before the last of it finds the rest when he is back.
            self.up().await;
            let left = self.traces().await;
            if left.is_empty() {
                self.bridges.clear();
                return;
            }
            // A bridge without a network: the engine ended between making it and writing that down.
            let bridges: Vec<_> = left.iter().filter_map(|l| l.strip_prefix("bridge ")).collect();
            let alone = bridges.len() == left.len();
            assert!(begun.elapsed() < LONG, "left behind: {left:#?}\n{}", self.said());
            if alone && begun.elapsed() > Duration::from_secs(3) {
                for bridge in bridges {
                    run("ip", &["link", "del", bridge]);
                    self.left_by_engine.push(format!("the bridge {bridge}"));
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A life up to this step, the step with a strike in it, and the lease's end. `begin` is called when all is prepared, and
    /// `end` with what it returned when the step is done.
    pub(crate) async fn live<T, R>(
        &mut self,
        step: Step,
        begin: impl FnOnce(&World) -> (Option<Strike>, T),
        end: impl FnOnce(T) -> R,
    ) -> Lived<R> {
        let lease = self.prepare(step).await;
        let (strike, kept) = begin(self);
        self.proxy.arm(strike);
        let begun = Instant::now();
        let lease = self.take(step, lease).await;
        let (done, ended) = (Instant::now(), SystemTime::now());
        let (calls, struck) = self.proxy.disarm();
        let kept = end(kept);
        self.up().await;
        if let Some(lease) = lease {
            self.stands(step, &lease).await;
            self.release(&lease).await;
        }
        self.nothing_left().await;
        let (wrong, _) = self.watch.told();
        assert!(wrong.is_empty(), "seen meanwhile: {wrong:#?}");
        Lived { calls, recovery: struck.map(|at| done - at), took: done - begun, ended, kept }
    }

    /// An engine without live restore ends all containers when it comes back after a kill: the lease runs again, in the same
    /// container, by itself. How long it took.
    pub(crate) async fn engine_killed_without_live_restore(&mut self) -> Duration {
        self.live_restore = false;
        // It is killed as one that was started so.
        self.proxy.close();
        self.bed.stop_engine();
        self.bed.start_engine(false).await;
        self.engine_is_back();
        self.up().await;
        let lease = self.rent(LEASE).await;
        let begun = Instant::now();
        rustix::process::kill_process(self.engine, rustix::process::Signal::KILL).unwrap();
        while is_alive(self.engine) {
            sleep(AGAIN).await;
        }
        loop {
            self.up().await;
            if self.knows(&lease).await && greets(lease.port).await {
                break;
            }
            assert!(begun.elapsed() < LONG, "the lease is never back");
            sleep(AGAIN).await;
        }
        let took = begun.elapsed();
        self.stands(Step::Start, &lease).await;
        self.release(&lease).await;
        self.nothing_left().await;
        self.live_restore = true;
        self.proxy.close();
        self.bed.stop_engine();
        self.bed.start_engine(true).await;
        self.engine_is_back();
        self.up().await;
        took
    }
}

/// What a life showed.
pub(crate) struct Lived<T> {
    pub(crate) calls: Vec<crate::proxy::Call>,
    /// From the strike to the step's end.
    pub(crate) recovery: Option<Duration>,
    /// The whole step.
    pub(crate) took: Duration,
    /// When it was done.
    pub(crate) ended: SystemTime,
    pub(crate) kept: T,
}

/// What came of a renter's wish.
enum Changed {
    Done,
    Unknown,
    /// The engine keeps the port of the lease's container.
    PortKept,
}

/// What a miner says then.
const KEEPS_PORT: &str = "keeps port";

/// A network that nobody owns.
const ORPHAN: &str = "compute-00000000000000000000000000000000-1";

async fn out_of(command: &mut tokio::process::Command) -> Option<String> {
    let out = command.output().await.ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.ok()?;
        Some(first == *b"SSH-2.0-")
    };
    matches!(tokio::time::timeout(Duration::from_secs(30), greeting).await, Ok(Some(true)))
}
