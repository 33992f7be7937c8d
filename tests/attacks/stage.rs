//! The miner that is attacked, and what is asserted of it around each attack.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::OwnerToken;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::synapse::AllocateRequest;
use tokio::time::Instant;

use crate::http::{HOME, Reply, Whole, exchange};
use crate::process::{Miner, Subnet};
use crate::requests::{ALLOCATE, PROBE, Request, now_ns};
use crate::wait::until;

/// What one attack may leave the miner's memory larger by, in KiB. A debug build's first use of each path is in it.
const GROWTH: u64 = 24 * 1024;
/// An honest caller is answered within this time while the miner is attacked: the SDK's own timeout, after which he is gone.
/// How long it took is in the table.
const IN_TIME: Duration = Duration::from_secs(12);

/// The stage.
pub(crate) struct Stage {
    pub(crate) subnet: Subnet,
    pub(crate) miner: Miner,
    /// Whether the long forms are run.
    pub(crate) long: bool,
    further: Vec<String>,
    sent: u64,
    refused_by: BTreeMap<String, u64>,
    less: Option<String>,
    /// What the slowest honest call took.
    slowest: Cell<Duration>,
}

/// Something that was measured, for the table.
pub(crate) struct Row {
    pub(crate) sent: u64,
    pub(crate) refused_by: String,
    /// What of it was left out, and why.
    pub(crate) less: Option<String>,
    /// What the slowest honest call took.
    pub(crate) slowest: Duration,
    pub(crate) before: u64,
    pub(crate) after: u64,
}

/// What handlers did so far: answers of 200 and messages that only handlers send. `GetSpecs` is not among them: the miner
/// asks itself for its devices too.
fn effects(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, u64> {
    const MESSAGES: &[&str] = &[
        "Allocate",
        "Release",
        "LeaseStatus",
        "Prove",
        "Open",
        "AllocateMachine",
        "MachineHeard",
        "ReleaseMachine",
        "ChangeMachine",
        "ChangeLease",
        "Renew",
        "Abandon",
    ];
    let counts = |name: &str| {
        let answered = name.starts_with("compute_axon_requests_total") && name.contains("outcome=\"ok\"");
        let acted = name.starts_with("compute_actor_messages_total")
            && MESSAGES.iter().any(|m| name.contains(&format!("message=\"{m}\"")));
        let leases = name.starts_with("compute_leases{");
        answered && !name.contains("ComputeWho") || acted || leases
    };
    metrics.iter().filter(|(name, _)| counts(name)).map(|(name, value)| (name.clone(), *value as u64)).collect()
}

impl Stage {
    pub(crate) async fn start(subnet: Subnet, long: bool, further: Vec<String>) -> Self {
        let miner = subnet.miner(&further).await;
        subnet.real_pace(true);
        let (refused_by, slowest) = (BTreeMap::new(), Cell::default());
        let stage = Stage { subnet, miner, long, further, sent: 0, refused_by, less: None, slowest };
        stage.admitted().await;
        stage
    }

    /// A validator of the subnet.
    pub(crate) fn caller(&self) -> &Keypair {
        &self.subnet.callers[0]
    }

    /// Another one, who does nothing wrong.
    pub(crate) fn honest(&self) -> &Keypair {
        &self.subnet.callers[1]
    }

    pub(crate) fn us(&self) -> Hotkey {
        self.miner.hotkey
    }

    /// The request of a validator that would take the machine's device.
    pub(crate) fn taking(&self) -> Vec<u8> {
        let request = AllocateRequest {
            lease: LeaseId([9; 16]),
            fencing_epoch: 1,
            expires_at_ms: now_ns() / 1_000_000 + 3_600_000,
            renter: self.caller().hotkey(),
            image: "ubuntu:24.04".to_owned(),
            ssh_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHV0YmFzZTY0a2V5bWF0ZXJpYWxmb3J0ZXN0c29ubHkh x".to_owned(),
            devices: vec![DeviceId::cpu(0)],
            owner_token: OwnerToken::from_bytes([3; 32]),
            reply_key: None,
        };
        serde_json::to_vec(&request).unwrap()
    }

    /// That request under `btauth/1`, signed now.
    pub(crate) fn own(&self) -> Request {
        Request::own(self.caller(), &self.us(), ALLOCATE, &self.taking(), now_ns())
    }

    /// An `Allocate` of the original that would take the machine, signed now.
    pub(crate) fn classic(&self) -> Request {
        let body = crate::requests::taking(&self.caller().hotkey());
        Request::classic(self.caller(), &self.us(), body.as_bytes(), now_ns())
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Reply {
        self.sent += 1;
        exchange(HOME, self.miner.axon, Whole(Some(request.bytes()))).await
    }

    /// Notes what was sent otherwise, and how it was refused.
    pub(crate) fn note(&mut self, sent: u64, refused_by: &str) {
        self.sent += sent;
        *self.refused_by.entry(refused_by.to_owned()).or_default() += 1;
    }

    /// Says what of this attack could not be done here; the row and the table of `scripts/test` show it.
    pub(crate) fn leave_out(&mut self, what: String) {
        self.less = Some(what);
    }

    /// Sends a request that must be refused with this status and a text that says why.
    pub(crate) async fn refused(&mut self, what: &str, request: &Request, status: u16, text: &str) -> Reply {
        let reply = self.send(request).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
        assert!(reply.text.contains(text), "{what}: {}", reply.text);
        let scheme = if request.path.starts_with("/Compute") { "own" } else { "classic" };
        *self.refused_by.entry(format!("{scheme} {status} {text}")).or_default() += 1;
        reply
    }

    /// An honest probe from this address, under both schemes: each is served while its caller still waits.
    pub(crate) async fn honest_call(&self, from: Ipv4Addr) -> Result<(), String> {
        let (key, us) = (self.honest(), self.us());
        let requests = [
            Request::own(key, &us, "/ComputeSpecs", b"{}", now_ns()),
            Request::classic(key, &us, PROBE.as_bytes(), now_ns()),
        ];
        for request in requests {
            let begun = Instant::now();
            let reply = exchange(from, self.miner.axon, Whole(Some(request.bytes()))).await;
            if reply.status != 200 {
                return Err(format!("{}: {}", request.path, reply.text));
            }
            let took = begun.elapsed();
            self.slowest.set(self.slowest.get().max(took));
            if took > IN_TIME {
                return Err(format!("{}: answered after {took:?}", request.path));
            }
        }
        Ok(())
    }

    /// What the slowest honest call took since the attack began.
    pub(crate) fn slowest(&self) -> Duration {
        self.slowest.get()
    }

    async fn admitted(&self) {
        let last = std::cell::RefCell::new(String::new());
        until("the miner admits validators", async || match self.honest_call(HOME).await {
            Ok(()) => Some(()),
            Err(refused) => {
                assert!(!refused.contains("404"), "{refused}");
                *last.borrow_mut() = refused;
                None
            }
        })
        .await;
    }

    /// Ends the miner in order and starts it again in the same place.
    pub(crate) async fn restart(self) -> Self {
        let data = self.subnet.dir.join("miner");
        self.moved(&data).await
    }

    /// Ends the miner in order and starts it again with this data directory.
    pub(crate) async fn moved(self, data: &Path) -> Self {
        let Stage { subnet, miner, long, further, sent, refused_by, less, slowest } = self;
        let port = miner.axon.port();
        miner.end().await;
        let miner = subnet.miner_at(port, data, &further).await;
        let stage = Stage { subnet, miner, long, further, sent, refused_by, less, slowest };
        stage.admitted().await;
        stage
    }

    pub(crate) async fn effects(&self) -> BTreeMap<String, u64> {
        effects(&self.miner.metrics().await)
    }

    /// The miner is healthy and ready, no part of it was restarted, and it answers.
    pub(crate) async fn assert_unharmed(&self, what: &str) {
        for page in ["/healthz", "/readyz"] {
            let (status, text) = self.miner.page(page).await.unwrap();
            assert_eq!(status, 200, "{what}: {page}: {text}");
        }
        let metrics = self.miner.metrics().await;
        let restarts: f64 =
            metrics.iter().filter(|(n, _)| n.starts_with("compute_actor_restarts_total")).map(|(_, v)| v).sum();
        assert_eq!(restarts, 0.0, "{what}: an actor was restarted\n{}", self.miner.said());
        self.honest_call(HOME).await.unwrap_or_else(|e| panic!("{what}: afterwards: {e}"));
    }

    /// Begins a row of the table.
    pub(crate) fn begin(&mut self) -> u64 {
        self.sent = 0;
        self.refused_by.clear();
        self.less = None;
        self.slowest.set(Duration::ZERO);
        self.miner.memory().now
    }

    /// Ends it: the memory may not have grown by more than an attack may leave.
    pub(crate) fn end(&mut self, what: &str, before: u64) -> Row {
        let after = self.miner.memory().now;
        assert!(after <= before + GROWTH, "{what}: {before} KiB before, {after} KiB after");
        let kinds = self.refused_by.iter().map(|(by, n)| if *n == 1 { by.clone() } else { format!("{n}x {by}") });
        let (refused_by, slowest) = (kinds.collect::<Vec<_>>().join("; "), self.slowest());
        Row { sent: self.sent, refused_by, less: self.less.take(), slowest, before, after }
    }
}

/// Memory of this process, in KiB.
pub(crate) fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
