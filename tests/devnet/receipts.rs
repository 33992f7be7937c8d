//! What one validator rents counts at the others, by the receipts that the miner shows; and what is rented for a canary
//! counts nowhere.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{LONG, PROVER, inside, settings, until};
use compute_subnet::evidence::read::LogReader;
use compute_subnet::evidence::record::ReceiptsBody;
use compute_subnet::evidence::replay::replay;
use compute_subnet::exit::Exit;
use compute_subnet::ids::{Hotkey, LeaseId};
use compute_subnet::messages::validator::allocation_manager::RentRequest;
use compute_subnet::rental::Requirements;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::sim::renter::Rentals as _;
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use tokio::sync::oneshot;

#[test]
fn a_rental_of_one_validator_is_paid_by_the_other_and_a_replay_of_its_log_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut rented = None;
    inside(async |runtime| {
        let options = DevnetOptions { validators: 2, miners: 2, ..DevnetOptions::new(dir.path(), PROVER) };
        let mut settings = settings(dir.path());
        settings.devnet.block_time = Duration::from_millis(200);
        settings.devnet.tempo = 7;
        let settings = Arc::new(settings);
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let rentals = devnet.validator.as_ref().unwrap().allocations.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        let wish = || RentRequest {
            id: Some(LeaseId([1; 16])),
            renter: Hotkey([9; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration: Duration::from_secs(600),
            image: String::new(),
            ssh_key: "ssh-ed25519 AAAA".into(),
        };
        let home = dir.path().join("validator-1");
        let other = open_read_only(&home).unwrap();
        // What it had not proved itself before the lease began would never count.
        until("the other validator has proved both miners", async || {
            let scores = queries::latest_scores(&other).unwrap();
            (scores.iter().filter(|s| s.score.0 > 0).count() == 2).then_some(())
        })
        .await;
        let lease = until("a device is proved and rented", async || rentals.rent(wish()).await.ok()).await;
        // It rents nothing itself: what it pays beyond the devices is for the receipt.
        until("the other validator pays the rental", async || {
            let scores = queries::latest_scores(&other).unwrap();
            scores.iter().any(|s| s.hotkey == lease.miner && s.parts.bonus.0 > 0).then_some(())
        })
        .await;
        assert!(queries::live_leases(&other, compute_subnet::store::Role::Validator).unwrap().is_empty());
        rentals.release(lease.id).await.unwrap();
        until("it does not any more once the lease has ended", async || {
            let scores = queries::latest_scores(&other).unwrap();
            scores.iter().any(|s| s.hotkey == lease.miner && s.parts.bonus.0 == 0).then_some(())
        })
        .await;
        rented = Some(lease);
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });

    let lease = rented.unwrap();
    let log = dir.path().join("validator-1/evidence");
    let replayed = replay(&log, None).unwrap();
    assert!(replayed.differences.is_empty() && replayed.holds(), "{}", replayed.to_text(20));
    let records: Vec<_> = LogReader::new(&log).unwrap().map(Result::unwrap).filter(|r| r.kind == "receipts").collect();
    let bodies: Vec<ReceiptsBody> = records.iter().map(|r| serde_json::from_value(r.body.clone()).unwrap()).collect();
    let counted = bodies.iter().flat_map(|b| b.presented.devices(&b.standings));
    let counted: Vec<_> = counted.collect();
    assert!(!counted.is_empty() && counted.iter().all(|(miner, d)| *miner == lease.miner && *d == lease.devices));
}
