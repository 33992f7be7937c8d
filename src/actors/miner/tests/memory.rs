//! Proofs of memory on a miner: who is served, what is held, and when it is given back.

use std::sync::Mutex;

use super::*;
use crate::chain::ledger::GenesisConfig;
use crate::chain::slots::slots;
use crate::chain::{BlockHead, EpochClock, Metagraph};
use crate::ids::Netuid;
use crate::messages::chain_watcher::ChainView;
use crate::messages::miner::challenge_runner::{FillMemory, OpenMemory, ScanMemory};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::verifier::check_openings as check_memory;
use crate::proof::memory::{self, Size, cpu, sample_positions};
use crate::proof::prover::{ChildProver, Commitment, Filled, Prover, ProverError, ProverLimits};
use crate::runtime::Inspect;
use crate::wire::synapse::{DeviceMemory, MemoryFillRequest, MemoryOpenRequest, MemoryScanRequest, ProverFailure};

const US: Hotkey = Hotkey([9; 32]);

fn size() -> Size {
    Size::new(64, 2, 3).unwrap()
}

/// Room for the memory of both devices, or for their work.
fn roomy(setup: &mut ChallengeRunnerSetup) {
    let one = cpu::memory_bytes(&size()).max(work().memory_bytes());
    (setup.limits.memory_bytes, setup.limits.prover_memory_bytes) = (2 * one, one);
}

fn roomy_miner() -> Miner {
    miner_like(tempfile::tempdir().unwrap(), Crash::never(), roomy)
}

/// An in-process prover that notes what it was asked to fill.
#[derive(Default)]
struct Noting(Mutex<Vec<DeviceId>>);

#[async_trait]
impl Prover for Noting {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        InProcessProver { threads: 1 }.commit(challenge).await
    }
    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        self.0.lock().unwrap().push(challenge.device);
        InProcessProver { threads: 1 }.fill(challenge).await
    }
}

/// A prover whose memory is never filled.
struct Slow;

#[async_trait]
impl Prover for Slow {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        InProcessProver { threads: 1 }.commit(challenge).await
    }
    async fn fill(&self, _: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        std::future::pending().await
    }
}

impl Miner {
    async fn fill_with(&self, caller: Hotkey, id: u8, epoch: u64, devices: Vec<DeviceMemory>) -> ChallengeReply {
        let request = MemoryFillRequest { challenge: ChallengeId([id; 16]), nonce: Hash32([id; 32]), epoch, devices };
        self.proofs.ask(FillMemory { caller, request }, DEADLINE).await.unwrap()
    }

    async fn fill(&self, caller: Hotkey, id: u8, devices: &[u8]) -> ChallengeReply {
        let (blocks, iterations, scans) = (size().blocks(), size().iterations(), size().scans());
        let of = |n: &u8| DeviceMemory { device: DeviceId::cpu(*n), blocks, iterations, scans };
        self.fill_with(caller, id, id.into(), devices.iter().map(of).collect()).await
    }

    async fn scan(&self, caller: Hotkey, id: u8) -> ChallengeReply {
        let request = MemoryScanRequest { challenge: ChallengeId([id; 16]), nonce: Hash32([0x5c; 32]) };
        self.proofs.ask(ScanMemory { caller, request }, DEADLINE).await.unwrap()
    }

    async fn open_blocks(&self, caller: Hotkey, id: u8, device: u8, asked: &[[u32; 2]]) -> Result<Vec<u8>, OpenError> {
        let (challenge, device) = (ChallengeId([id; 16]), DeviceId::cpu(device));
        let request = MemoryOpenRequest { challenge, device, positions: asked.to_vec() };
        self.proofs.ask(OpenMemory { caller, request }, DEADLINE).await.unwrap()
    }

    /// Bytes of memory that a proof takes now.
    async fn holds(&self) -> u64 {
        let seen = self.proofs.ask(Inspect, DEADLINE).await.unwrap();
        seen["memory_held"].as_u64().unwrap()
    }

    /// Waits until none is held.
    async fn given_back(&self) {
        tokio::time::timeout(DEADLINE, async {
            while self.holds().await > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the memory is given back in time");
    }
}

fn refusal(reply: &ChallengeReply) -> ChallengeRefusal {
    match reply {
        ChallengeReply::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_filled_scanned_and_opened_as_the_verifier_wants_it_and_given_back_with_its_last_opening() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0, 1]).await, ChallengeReply::Ready);
        assert_eq!(miner.holds().await, 2 * cpu::memory_bytes(&size()));
        assert!(matches!(miner.prove(B, 1).await, ChallengeReply::Busy { .. }), "one window at a time");
        let ChallengeReply::Roots { devices } = miner.scan(A, 1).await else { panic!("no roots") };
        assert_eq!(devices.iter().map(|d| d.device).collect::<Vec<_>>(), [DeviceId::cpu(0), DeviceId::cpu(1)]);
        assert_eq!(refusal(&miner.scan(A, 1).await), ChallengeRefusal::AlreadyChallenged, "scanned once");

        let positions = sample_positions(&size(), 66, &[7; 32]);
        let asked: Vec<[u32; 2]> = positions.iter().map(|p| [p.scan, p.block]).collect();
        for (number, of) in (0..).zip(&devices) {
            assert!(miner.holds().await > 0, "not before the last device's opening");
            let bytes = miner.open_blocks(A, 1, number, &asked).await.unwrap();
            let challenge = memory::Challenge { nonce: [1; 32], epoch: 1, hotkey: US, device: of.device, size: size() };
            check_memory(&challenge, &ScanNonce([0x5c; 32]), &of.roots, &positions, &bytes).unwrap();
            assert_eq!(miner.open_blocks(A, 1, number, &asked).await.unwrap(), bytes, "if the answer was lost");
            let others = miner.open_blocks(A, 1, number, &asked[1..]).await;
            assert!(matches!(others, Err(OpenError::Positions(_))), "no second draw: {others:?}");
        }
        assert_eq!(miner.holds().await, 0);
        assert!(matches!(miner.prove(B, 1).await, ChallengeReply::Roots { .. }), "the window is over");
    });
}

#[test]
fn requests_out_of_their_order_of_another_caller_or_outside_the_memory_get_nothing() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(refusal(&miner.scan(A, 1).await), ChallengeRefusal::Gone, "nothing was filled");
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        assert_eq!(miner.open_blocks(A, 1, 0, &[[0, 0]]).await, Err(OpenError::Unknown), "nothing was scanned");
        assert_eq!(refusal(&miner.scan(B, 1).await), ChallengeRefusal::Gone);
        assert_eq!(refusal(&miner.scan(A, 2).await), ChallengeRefusal::Gone);
        assert!(matches!(miner.scan(A, 1).await, ChallengeReply::Roots { .. }));
        assert_eq!(miner.open_blocks(B, 1, 0, &[[0, 0]]).await, Err(OpenError::Unknown));
        assert_eq!(miner.open_blocks(A, 1, 1, &[[0, 0]]).await, Err(OpenError::Unknown), "it was not asked");
        for outside in [vec![[3, 0]], vec![[0, 64]], vec![], vec![[0, 0]; 1025]] {
            let opened = miner.open_blocks(A, 1, 0, &outside).await;
            assert!(matches!(opened, Err(OpenError::Positions(_))), "{opened:?}");
        }
        assert!(miner.open_blocks(A, 1, 0, &[[2, 63]]).await.is_ok(), "and nothing was lost by it");
    });
}

#[test]
fn memory_is_filled_once_an_epoch_and_the_same_challenge_is_answered_as_it_stands() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready, "if the answer was lost");
        let device = DeviceMemory { device: DeviceId::cpu(0), blocks: 64, iterations: 2, scans: 3 };
        assert!(matches!(miner.fill_with(B, 2, 1, vec![device]).await, ChallengeReply::Busy { .. }));
        assert!(matches!(miner.scan(A, 1).await, ChallengeReply::Roots { .. }));
        assert!(miner.open_blocks(A, 1, 0, &[[0, 0]]).await.is_ok());
        assert_eq!(refusal(&miner.fill(A, 1, &[0]).await), ChallengeRefusal::AlreadyChallenged);
        let second = miner.fill_with(A, 3, 1, vec![device]).await;
        assert_eq!(refusal(&second), ChallengeRefusal::AlreadyChallenged, "another challenge of the same epoch");
        assert_eq!(miner.fill(A, 2, &[0]).await, ChallengeReply::Ready, "the next epoch's");
    });
}

#[test]
fn what_is_beyond_the_budget_or_no_memory_at_all_is_refused_before_anything_is_filled() {
    run(async {
        let noting = Arc::new(Noting::default());
        let prover = noting.clone();
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), move |setup| {
            roomy(setup);
            setup.limits.ops_per_challenge = size().operations();
            setup.prover = prover;
        });
        miner.ready().await;
        let device = |blocks, iterations| DeviceMemory { device: DeviceId::cpu(0), blocks, iterations, scans: 3 };
        for (what, devices, reason) in [
            ("more operations", vec![device(64, 4)], ChallengeRefusal::Budget),
            ("more memory for one", vec![device(1 << 20, 1)], ChallengeRefusal::Budget),
            ("a size that is none", vec![device(63, 2)], ChallengeRefusal::Invalid),
            ("a device twice", vec![device(64, 2); 2], ChallengeRefusal::Invalid),
            ("no device", vec![], ChallengeRefusal::Invalid),
        ] {
            assert_eq!(refusal(&miner.fill_with(A, 1, 1, devices).await), reason, "{what}");
        }
        assert_eq!(refusal(&miner.fill(A, 1, &[7]).await), ChallengeRefusal::NoDevice);
        assert_eq!(miner.holds().await, 0);
        assert_eq!(noting.0.lock().unwrap().len(), 0);
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready, "refusals cost nothing");
        assert_eq!(*noting.0.lock().unwrap(), [DeviceId::cpu(0)]);
    });
}

#[test]
fn a_rented_device_is_left_alone_and_a_rental_takes_the_memory_of_a_proof() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        let made = miner.leases.ask(miner.allocate(1, &[1]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        assert_eq!(refusal(&miner.fill(A, 1, &[0, 1]).await), ChallengeRefusal::Rented);
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        let made = miner.leases.ask(miner.allocate(2, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        miner.given_back().await;
        assert_eq!(refusal(&miner.scan(A, 1).await), ChallengeRefusal::Rented, "and says so to whoever had it filled");
        assert_eq!(refusal(&miner.scan(B, 1).await), ChallengeRefusal::Gone);
    });
}

#[test]
fn memory_that_is_scanned_when_its_device_is_rented_is_opened_and_then_given_back() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0, 1]).await, ChallengeReply::Ready);
        assert!(matches!(miner.scan(A, 1).await, ChallengeReply::Roots { .. }));
        let made = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        // Longer than what is held is looked after.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(miner.open_blocks(A, 1, 0, &[[0, 0]]).await.is_ok(), "the roots were sent: it is answerable for them");
        assert!(miner.open_blocks(A, 1, 1, &[[0, 0]]).await.is_ok());
        assert_eq!(miner.holds().await, 0);

        assert_eq!(miner.fill(A, 2, &[1]).await, ChallengeReply::Ready);
        assert!(matches!(miner.scan(A, 2).await, ChallengeReply::Roots { .. }));
        let made = miner.leases.ask(miner.allocate(2, &[1]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        miner.given_back().await;
        assert_eq!(
            miner.open_blocks(A, 2, 1, &[[0, 0]]).await,
            Err(OpenError::Unknown),
            "a tenant does not wait for long"
        );
    });
}

#[test]
fn memory_does_not_survive_a_restart_and_the_answer_says_so() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        let Miner { tree, writer, dir, .. } = miner;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();
        let miner = miner_like(dir, Crash::never(), roomy);
        miner.ready().await;
        let reply = miner.scan(A, 1).await;
        assert!(
            matches!(&reply, ChallengeReply::Refused { reason: ChallengeRefusal::Gone, detail } if detail.contains("restarted"))
        );
        assert_eq!(reply.unknown_cause(), Some(crate::verdict::UnknownCause::Refused));
        assert_eq!(miner.holds().await, 0);
    });
}

#[test]
fn memory_that_waits_too_long_is_given_back_filled_or_not_scanned_or_not_opened() {
    run(async {
        let soon = |setup: &mut ChallengeRunnerSetup| {
            roomy(setup);
            let short = Duration::from_secs(1);
            (setup.fill_timeout, setup.keep_ready, setup.keep_memory) = (short, short, short);
        };
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), soon);
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        miner.given_back().await;
        assert_eq!(refusal(&miner.scan(A, 1).await), ChallengeRefusal::Gone);
        assert_eq!(miner.fill(A, 2, &[0]).await, ChallengeReply::Ready);
        assert!(matches!(miner.scan(A, 2).await, ChallengeReply::Roots { .. }));
        miner.given_back().await;
        assert_eq!(miner.open_blocks(A, 2, 0, &[[0, 0]]).await, Err(OpenError::Unknown));

        let never = |setup: &mut ChallengeRunnerSetup| {
            soon(setup);
            setup.prover = Arc::new(Slow);
        };
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), never);
        miner.ready().await;
        assert_eq!(refusal(&miner.fill(A, 1, &[0]).await), ChallengeRefusal::Gone, "it was not filled in its time");
        assert!(matches!(miner.prove(B, 1).await, ChallengeReply::Roots { .. }), "and holds nobody off");
    });
}

#[test]
fn a_validator_that_goes_on_to_work_has_given_up_what_was_not_scanned() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        assert!(matches!(miner.prove(A, 2).await, ChallengeReply::Roots { .. }));
        assert_eq!(miner.holds().await, 0);
        assert_eq!(miner.fill(A, 3, &[0]).await, ChallengeReply::Ready);
        assert!(matches!(miner.scan(A, 3).await, ChallengeReply::Roots { .. }));
        assert!(matches!(miner.prove(A, 4).await, ChallengeReply::Busy { .. }), "what was scanned is opened first");
    });
}

#[test]
fn a_validator_that_was_restarted_before_it_opened_anything_is_served_again_in_a_later_epoch() {
    run(async {
        let miner = roomy_miner();
        miner.ready().await;
        assert_eq!(miner.fill(A, 1, &[0]).await, ChallengeReply::Ready);
        assert!(matches!(miner.scan(A, 1).await, ChallengeReply::Roots { .. }));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert!(
            matches!(miner.fill(B, 2, &[0]).await, ChallengeReply::Busy { .. }),
            "another validator's word frees nothing"
        );
        assert!(matches!(miner.prove(A, 1).await, ChallengeReply::Busy { .. }), "nor does work of the same epoch");
        assert_eq!(refusal(&miner.fill(A, 3, &[]).await), ChallengeRefusal::Invalid);
        assert!(miner.holds().await > 0, "nor does a request that is not valid");
        assert!(matches!(miner.prove(A, 3).await, ChallengeReply::Roots { .. }), "work of a later epoch does");

        for (id, opened) in [(5, false), (7, true)] {
            assert_eq!(miner.fill(A, id, &[0]).await, ChallengeReply::Ready);
            assert!(matches!(miner.scan(A, id).await, ChallengeReply::Roots { .. }));
            if opened {
                // An opening that is refused is asked for all the same: the validator knows of the proof.
                assert!(matches!(miner.open_blocks(A, id, 0, &[]).await, Err(OpenError::Positions(_))));
            }
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            match miner.fill(A, id + 1, &[0]).await {
                ChallengeReply::Ready => assert!(!opened, "what a validator opens is kept"),
                ChallengeReply::Busy { .. } => assert!(opened, "another fill frees what was forgotten"),
                other => panic!("{other:?}"),
            }
            // The next one is unscanned, and work frees it.
            if !opened {
                assert!(matches!(miner.prove(A, id + 1).await, ChallengeReply::Roots { .. }));
            }
        }
    });
}

#[test]
fn a_prover_that_fails_is_told_with_its_kind_and_holds_nothing() {
    run(async {
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), |setup| {
            roomy(setup);
            let limits = ProverLimits { time: DEADLINE, memory_bytes: 4 << 30, output_bytes: 16 << 20, threads: 1 };
            setup.prover = Arc::new(ChildProver::new("/bin/false".into(), limits));
        });
        miner.ready().await;
        let reply = miner.fill(A, 1, &[0]).await;
        let ChallengeReply::ProverFailed { device, kind, .. } = &reply else { panic!("{reply:?}") };
        assert_eq!((*device, *kind), (DeviceId::cpu(0), ProverFailure::Crashed));
        assert_eq!(miner.holds().await, 0);
    });
}

/// An epoch of 360 blocks, seen in its memory slot; the slot's owner, and another holder.
fn in_memory_slot() -> (ChainView, Hotkey, Hotkey) {
    let epochs = EpochClock::Modulo { netuid: Netuid(1), tempo: 359 };
    let table = slots(Hash32([1; 32]), &[(A, 1), (B, 1)], Netuid(1), epochs, 2);
    let slot = table.memory_slot().unwrap();
    let head = BlockHead { number: slot.blocks.start, hash: Hash32([0; 32]), timestamp_ms: 0 };
    let metagraph = Metagraph { netuid: Netuid(1), head, epochs, neurons: Vec::new() };
    let rules = Arc::new(GenesisConfig::new(Netuid(1)).hyperparameters);
    let view = ChainView { slots: Some(Arc::new(table)), ..ChainView::new(Arc::new(metagraph), rules, 0) };
    (view, slot.owner, if slot.owner == A { B } else { A })
}

#[test]
fn memory_is_filled_for_the_slots_owner_alone_and_given_back_when_the_slot_passes_unscanned() {
    run(async {
        let (view, owner, other) = in_memory_slot();
        let (publish, watched) = watch::channel(Some(Arc::new(view.clone())));
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), move |setup| {
            roomy(setup);
            setup.view = watched;
        });
        miner.ready().await;
        let device = || vec![DeviceMemory { device: DeviceId::cpu(0), blocks: 64, iterations: 2, scans: 3 }];
        assert_eq!(refusal(&miner.fill_with(other, 1, 2, device()).await), ChallengeRefusal::NoSlot);
        assert_eq!(refusal(&miner.fill_with(owner, 1, 7, device()).await), ChallengeRefusal::WrongEpoch);
        assert_eq!(miner.fill_with(owner, 1, 2, device()).await, ChallengeReply::Ready);
        let mut late = view;
        Arc::make_mut(&mut late.metagraph).head.number += 5;
        publish.send_replace(Some(Arc::new(late)));
        miner.given_back().await;
        assert_eq!(refusal(&miner.scan(owner, 1).await), ChallengeRefusal::Gone);
    });
}
