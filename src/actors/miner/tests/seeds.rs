//! The miner's rentals in random lives: wishes in any order, an engine that fails or loses answers, a journal that refuses,
//! processes that end at any call of the engine and any commit of the journal. What a seed does is the same each time; `COMPUTE_TEST_LONG` takes more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::messages::miner::allocation_manager::ChangeLease;
use crate::store::DATABASE_FILE;
use crate::wire::synapse::{LeaseChange, LeaseChangeRequest};

const LEASES: u8 = 4;
const STEPS: usize = 14;

fn seeds() -> u64 {
    if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 2_000 } else { 200 }
}

/// What the renter of the leases knows.
#[derive(Default)]
struct Renter {
    /// Leases that were answered to run and whose release was not asked for, with their containers.
    runs: BTreeMap<u8, String>,
    /// Leases whose release was confirmed.
    released: BTreeSet<u8>,
    key: u8,
}

fn lease(n: u8) -> LeaseId {
    LeaseId([n; 16])
}

impl Miner {
    /// One wish of the renter, until it is answered or the node ends: then the renter does not know what became of it.
    async fn wish(&self, crash: &Crash, renter: &mut Renter, random: &mut StdRng) {
        let n = random.random_range(1..=LEASES);
        let device = random.random_range(0..2u8);
        let kind = random.random_range(0..10u8);
        let mut dead = crash.dead.subscribe();
        let work = async {
            match kind {
                0..4 => {
                    let reply = self.leases.ask(self.allocate(n, &[device]), DEADLINE).await;
                    if let Ok(AllocateReply::Running { container, .. }) = reply {
                        assert!(!renter.released.contains(&n), "a released lease runs again: {n}");
                        renter.runs.insert(n, container);
                    }
                }
                4..6 => {
                    // From the wish on the renter counts on nothing.
                    renter.runs.remove(&n);
                    let request = ReleaseRequest { lease: lease(n), fencing_epoch: 1, owner_token: token() };
                    if let Ok(ReleaseReply::Released) = self.leases.ask(Release { caller: A, request }, DEADLINE).await
                    {
                        let there = Contents::read(self.engine.path()).unwrap().containers;
                        let there = there.iter().any(|c| c.labels.lease == lease(n));
                        assert!(!there, "a release was reported that did not happen: lease {n}");
                        renter.released.insert(n);
                    }
                }
                _ => {
                    renter.key = renter.key.wrapping_add(1);
                    let change = match kind {
                        6 => LeaseChange::Pause,
                        7 => LeaseChange::Resume,
                        8 => LeaseChange::Restart,
                        _ => LeaseChange::UserKey { ssh_key: "ssh-ed25519 BBBB".into() },
                    };
                    let request = LeaseChangeRequest {
                        lease: lease(n),
                        fencing_epoch: 1,
                        owner_token: token(),
                        key: [renter.key; 16],
                        change,
                    };
                    drop(self.leases.ask(ChangeLease { caller: A, request }, DEADLINE).await);
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = dead.wait_for(|dead| *dead) => {}
        }
    }

    /// What must hold at any time, whatever failed.
    async fn check(&self, renter: &Renter, seed: u64) {
        let containers = Contents::read(self.engine.path()).unwrap().containers;
        let mut used = BTreeSet::new();
        for device in containers.iter().flat_map(|c| &c.devices) {
            assert!(used.insert(*device), "seed {seed}: a device has two containers: {containers:?}");
        }
        for (n, id) in &renter.runs {
            assert!(containers.iter().any(|c| c.id == *id), "seed {seed}: the running lease {n} lost its container");
        }
        for n in &renter.released {
            assert!(containers.iter().all(|c| c.labels.lease != lease(*n)), "seed {seed}: lease {n} is back");
        }
    }

    /// Left alone, journal and engine come to agree.
    async fn settle(&self, seed: u64) {
        let agrees = async || {
            let leases = self.leases.ask(ListLeases, DEADLINE).await.unwrap();
            let containers = self.engine.list().await.unwrap();
            let state = |of: LeaseId| containers.iter().find(|c| c.labels.lease == of).map(|c| c.state);
            containers.len() == leases.len()
                && leases.iter().all(|l| match l.state {
                    LeaseState::Running => state(l.id) == Some(ContainerState::Running),
                    LeaseState::Paused => state(l.id) == Some(ContainerState::Paused),
                    _ => false,
                })
        };
        tokio::time::timeout(DEADLINE, async {
            while !agrees().await {
                self.leases.tell(Reconcile).unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: journal and engine never agree"));
    }
}

/// The journal takes so many steps of leases from now on, and refuses the rest.
fn journal_takes(dir: &Path, steps: u32) {
    let db = rusqlite::Connection::open(dir.join("db").join(DATABASE_FILE)).unwrap();
    db.busy_timeout(DEADLINE).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS test_takes (steps INTEGER);
         CREATE TRIGGER IF NOT EXISTS test_takes BEFORE INSERT ON lease_event BEGIN
             SELECT RAISE(ABORT, 'no more is taken') FROM test_takes WHERE steps <= 0;
             UPDATE test_takes SET steps = steps - 1;
         END;
         DELETE FROM test_takes;
         INSERT INTO test_takes VALUES ({steps});"
    ))
    .unwrap();
}

/// Where the next process ends.
fn end(random: &mut StdRng) -> End {
    let at = random.random_range(1..8);
    match random.random_range(0..4u8) {
        0 => End::BeforeCommit,
        1 => End::AfterCommit { at },
        _ => End::Engine { at, after: random.random() },
    }
}

/// How much the journal of a process takes that ends so.
fn takes(end: End, random: &mut StdRng) -> u32 {
    if end == End::BeforeCommit { random.random_range(0..12) } else { u32::MAX }
}

fn faults(random: &mut StdRng) -> Faults {
    match random.random_range(0..5u8) {
        0 => Faults { fail_create: true, ..Faults::default() },
        1 => Faults { lose_create_reply: true, ..Faults::default() },
        2 => Faults { fail_destroy: true, ..Faults::default() },
        3 => Faults { unavailable: true, ..Faults::default() },
        _ => Faults { refuse_image: true, ..Faults::default() },
    }
}

/// A new process on the same files, which may end in its turn, also before it serves anybody.
async fn reborn(mut miner: Miner, random: &mut StdRng) -> (Miner, Arc<Crash>) {
    loop {
        let Miner { tree, writer, dir, .. } = miner;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();
        let crash = Crash::at(end(random));
        journal_takes(dir.path(), takes(crash.end, random));
        miner = miner_in(dir, crash.clone());
        let mut dead = crash.dead.subscribe();
        tokio::select! {
            () = miner.ready() => return (miner, crash),
            _ = dead.wait_for(|dead| *dead) => {}
        }
    }
}

async fn life(seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut renter = Renter::default();
    // In memory where there is a file system for it: each step is synced.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let mut crash = Crash::at(end(random));
    let mut miner = miner_in(dir.unwrap(), crash.clone());
    miner.ready().await;
    journal_takes(miner.dir.path(), takes(crash.end, random));
    for _ in 0..STEPS {
        match random.random_range(0..9u8) {
            8 if crash.end != End::BeforeCommit => journal_takes(miner.dir.path(), random.random_range(0..3)),
            0 => miner.engine.set_faults(faults(random)),
            1 => drop(miner.engine.exit(lease(random.random_range(1..=LEASES))).await),
            2 => miner.leases.tell(Reconcile).unwrap(),
            _ => miner.wish(&crash, &mut renter, random).await,
        }
        if random.random_range(0..3u8) == 0 {
            miner.engine.set_faults(Faults::default());
            if crash.end != End::BeforeCommit {
                journal_takes(miner.dir.path(), u32::MAX);
            }
        }
        if *crash.dead.borrow() {
            (miner, crash) = reborn(miner, random).await;
        }
        miner.check(&renter, seed).await;
    }
    journal_takes(miner.dir.path(), u32::MAX);
    miner = miner.restarted().await;
    miner.settle(seed).await;
    miner.check(&renter, seed).await;
    for n in 1..=LEASES {
        tokio::time::timeout(DEADLINE, async {
            while let ReleaseReply::Refused { .. } = miner.release(n).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: lease {n} is not released"));
    }
    assert_eq!(miner.engine.list().await.unwrap(), [], "seed {seed}: something is left");
    assert!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap().is_empty(), "seed {seed}: a device is held");
}

#[test]
fn whatever_fails_no_running_lease_is_lost_none_is_doubled_and_nothing_is_left() {
    for seed in 0..seeds() {
        run(life(seed));
    }
}
