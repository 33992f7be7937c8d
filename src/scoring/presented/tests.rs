//! Receipts against a judge's histories: what counts, and what does not.

use super::*;
use crate::ids::{Coldkey, LeaseId, Uid};
use crate::scoring::receipt::Unsigned;
use crate::scoring::{DeviceFinding, HistoryRules, MinerFinding, ModelRow, ScoreTable};
use crate::verdict::{PassEvidence, Verdict};
use crate::wallet::{Keypair, verify};

const MINER: Hotkey = Hotkey([7; 32]);
const EPOCH_MS: u64 = 100_000;
/// When epoch n is judged.
const fn judged_ms(epoch: u64) -> u64 {
    epoch * EPOCH_MS + 50_000
}

fn renter() -> Keypair {
    Keypair::from_uri("//Renter").unwrap()
}

/// A judge by which device 0 of the miner passed in the epochs 1 to 4.
fn judge() -> Judge {
    let row = ModelRow { name: "cpu-1".into(), base_micro: 1_000_000, timed: false, ..ModelRow::default() };
    let table = ScoreTable::new(vec![row], 8).unwrap();
    let mut judge = Judge::new(HistoryRules::default());
    for epoch in 1..=4 {
        let evidence = PassEvidence { operations: 1_000, elapsed_ns: 1_000, samples: 8 };
        let device = DeviceFinding {
            device: DeviceId::cpu(0),
            model: "cpu-1".into(),
            leased: false,
            verdict: Some(Verdict::Pass { evidence }),
        };
        let (uid, hotkey, coldkey) = (Uid(1), MINER, Coldkey([7; 32]));
        let finding = MinerFinding { uid, hotkey, coldkey, refused: None, whole: None, devices: vec![device] };
        judge.judge(epoch, judged_ms(epoch), &table, &[finding]);
    }
    judge
}

fn receipt(lease: u8, device: u8, began_ms: u64) -> LeaseReceipt {
    let unsigned = Unsigned {
        lease: LeaseId([lease; 16]),
        miner: MINER,
        devices: vec![DeviceId::cpu(device)],
        fencing_epoch: 1,
        began_ms,
        issued_ms: judged_ms(5) - 10_000,
        expires_ms: judged_ms(5) + 90_000,
        validator: renter().hotkey(),
    };
    LeaseReceipt::issue(unsigned, |bytes| renter().sign(bytes))
}

fn presented(receipts: Vec<LeaseReceipt>) -> Presented {
    let party = |coldkey, stake_rao, permit| Party { coldkey: Coldkey([coldkey; 32]), stake_rao, permit };
    Presented {
        epoch: 5,
        at_ms: judged_ms(5),
        epoch_ms: EPOCH_MS,
        rules: ReceiptRules { min_stake_rao: 1_000, max_per_validator_and_coldkey: 2 },
        parties: [(MINER, party(7, 0, false)), (renter().hotkey(), party(8, 5_000, true))].into(),
        receipts,
    }
}

fn labels(presented: &Presented) -> Vec<&'static str> {
    presented.standings(&judge(), verify).into_iter().map(ReceiptStanding::label).collect()
}

#[test]
fn a_receipt_for_a_device_that_was_proved_before_its_lease_counts_and_names_the_device() {
    let presented = presented(vec![receipt(1, 0, judged_ms(4) + 5)]);
    let standings = presented.standings(&judge(), verify);
    assert_eq!(standings, [ReceiptStanding::Counts]);
    assert_eq!(presented.devices(&standings), [(MINER, vec![DeviceId::cpu(0)])].into());
    let back: Presented = serde_json::from_str(&serde_json::to_string(&presented).unwrap()).unwrap();
    assert_eq!(back.standings(&judge(), verify), standings, "as the log has it");
}

#[test]
fn what_is_forged_over_or_not_proved_does_not_count_and_says_why() {
    let good = receipt(1, 0, judged_ms(4) + 5);
    let (mut forged, mut over) = (good.clone(), good.clone());
    forged.says.devices = vec![DeviceId::cpu(0), DeviceId::cpu(1)];
    over.says.expires_ms = judged_ms(5);
    let unproved = receipt(2, 1, judged_ms(4) + 5);
    let before_it_was_proved = receipt(3, 0, judged_ms(1) - 5);
    let one = |receipt| labels(&presented(vec![receipt]))[0];
    assert_eq!(
        [one(forged), one(over), one(unproved), one(before_it_was_proved)],
        ["signature", "expired", "not_proved_before", "not_proved_before"]
    );
    // Between others each keeps its own standing.
    let mixed =
        presented(vec![receipt(2, 1, judged_ms(4) + 5), LeaseReceipt { signature: [0; 64], ..good.clone() }, good]);
    assert_eq!(labels(&mixed), ["not_proved_before", "signature", "counts"]);
}

#[test]
fn the_renter_must_be_somebody_and_not_the_miners_owner() {
    let good = receipt(1, 0, judged_ms(4) + 5);
    let with = |change: &dyn Fn(&mut Party)| {
        let mut presented = presented(vec![good.clone()]);
        change(presented.parties.get_mut(&renter().hotkey()).unwrap());
        labels(&presented)[0]
    };
    assert_eq!(with(&|p| p.permit = false), "no_permit");
    assert_eq!(with(&|p| p.stake_rao = 999), "not_enough_stake");
    assert_eq!(with(&|p| p.coldkey = Coldkey([7; 32])), "self_rental");
    let mut unknown = presented(vec![good.clone()]);
    unknown.parties.remove(&renter().hotkey());
    assert_eq!(labels(&unknown), ["not_registered"]);
    let mut none = presented(vec![good]);
    none.rules.max_per_validator_and_coldkey = 0;
    assert_eq!(labels(&none), ["too_many"]);
}

#[test]
fn what_is_left_out_of_the_log_changes_nothing_of_what_counts() {
    let good = receipt(1, 0, judged_ms(4) + 5);
    let stranger = Keypair::from_uri("//Stranger").unwrap();
    let strange = Unsigned {
        lease: LeaseId([9; 16]),
        miner: MINER,
        devices: vec![DeviceId::cpu(0)],
        fencing_epoch: 1,
        began_ms: 1,
        issued_ms: judged_ms(5) - 5,
        expires_ms: judged_ms(5) + 5,
        validator: stranger.hotkey(),
    };
    let strange = LeaseReceipt::issue(strange, |bytes| stranger.sign(bytes));
    let forged = LeaseReceipt { signature: [0; 64], ..good.clone() };
    let all = presented(vec![strange, forged, receipt(2, 1, 5), good]);
    let standings = all.standings(&judge(), verify);
    let (kept, settled) = all.clone().settled(standings.clone());
    assert_eq!(settled.iter().map(|s| s.label()).collect::<Vec<_>>(), ["not_proved_before", "counts"]);
    assert_eq!(kept.standings(&judge(), verify), settled, "as a replay derives them");
    assert_eq!(kept.devices(&settled), all.devices(&standings));
}

#[test]
fn every_label_is_its_own() {
    let labels = ReceiptStanding::labels();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len());
}
