//! What a selftest says of machines that would pass and of those that would not.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::actors::validator::challenge_runner::plan::WorkTable;
use crate::actors::validator::memory_runner::plan::{MemoryTable, MemoryWork};
use crate::proof::budget::BudgetLimits;
use crate::proof::memory::Size;
use crate::proof::prover::{ChildProver, Forgery, ForgingProver, InProcessProver, ProverLimits};
use crate::scoring::{Limit, ModelRow, ScoreTable};
use crate::verdict::{PassEvidence, Verdict};
use prove::Proof;

const GIB: u64 = 1 << 30;

fn row(name: &str, base_micro: u64, nominal: Option<u64>) -> ModelRow {
    ModelRow {
        name: name.to_owned(),
        base_micro,
        nominal_ops: nominal,
        floor_ops: nominal.map(|nominal| nominal / 10 * 7),
        memory: Some(Limit { best: 24 * GIB, floor: 21 * GIB }),
        timed: true,
        ..ModelRow::default()
    }
}

fn work() -> Work {
    Work::new(64, 64, 2).unwrap()
}

/// A table of timed models that processors can hold, and work of a moment for those that have a rate.
fn table(rows: Vec<ModelRow>) -> (ScoreTable, WorkTable) {
    let works = rows.iter().filter(|row| row.nominal_ops.is_some()).map(|row| (row.name.clone(), work())).collect();
    (ScoreTable::new(rows, 8).unwrap(), works)
}

fn offers(models: &[&str]) -> Vec<OfferedDevice> {
    let offer = |(n, model): (u8, &&str)| OfferedDevice {
        device: DeviceId::cpu(n),
        model: (*model).to_owned(),
        memory_bytes: 24 * GIB,
    };
    (0..).zip(models).map(offer).collect()
}

fn rules() -> prove::Rules {
    let long = Duration::from_secs(60);
    prove::Rules { hotkey: Hotkey([2; 32]), samples: 66, commit_timeout: long, opening_deadline: long }
}

/// The report on these devices, which really prove.
async fn proved(prover: &dyn Prover, rows: Vec<ModelRow>, offered: &[OfferedDevice]) -> Report {
    let (table, works) = table(rows);
    let standard = Standard { table: &table, works: &works, slot_ns: 24_000_000_000 };
    let proofs = prove::prove(prover, &jobs(&standard, offered), &rules()).await;
    let mut report = Report::of(Vec::new(), false);
    judge::devices(&mut report, &standard, offered, &proofs);
    report.conclude();
    report
}

fn honest() -> InProcessProver {
    InProcessProver { threads: 1 }
}

fn line<'a>(report: &'a Report, check: &str) -> &'a Line {
    report.lines.iter().find(|line| line.check == check).unwrap_or_else(|| panic!("{check}: {}", report.text()))
}

#[tokio::test]
async fn an_honest_machine_passes_with_the_score_that_a_validator_would_compute() {
    let rows = vec![row("slow", 1_000_000, Some(1_000)), row("other", 2_000_000, Some(1_000_000))];
    let report = proved(&honest(), rows, &offers(&["slow", "slow"])).await;
    assert!(report.passes, "{}", report.text());
    let score = report.score.as_ref().unwrap();
    // Two of base 1 where eight of base 2 are 100.
    assert_eq!((score.points.to_string().as_str(), score.counted), ("12.5000", 2));
    assert!(report.devices.iter().all(|d| d.verdict == "pass" && d.factor_ppb == 1_000_000_000 && d.counted));
    assert_eq!(line(&report, "CPU-1 rate").status, Status::Ok);
}

#[tokio::test]
async fn a_machine_below_the_floor_fails_and_hears_what_to_do() {
    let report =
        proved(&honest(), vec![row("absurd", 1_000_000, Some(1_000_000_000_000_000_000))], &offers(&["absurd"])).await;
    assert!(!report.passes);
    let rate = line(&report, "CPU-0 rate");
    assert!(rate.status == Status::Fail && rate.remedy.starts_with("below_floor"), "{rate:?}");
    assert_eq!(line(&report, "CPU-0 proof").status, Status::Ok, "what was computed is right");
    let device = &report.devices[0];
    assert_eq!((device.verdict, device.reason, device.factor_ppb), ("fail", "below_floor", 0));
    assert_eq!(report.score.as_ref().unwrap().points.0, 0);
}

#[tokio::test]
async fn a_model_without_a_rate_or_a_row_is_named_with_the_row_to_add() {
    let rows = vec![row("known", 1_000_000, Some(1_000)), row("unmeasured", 1_000_000, None)];
    let report = proved(&honest(), rows, &offers(&["known", "NVIDIA RTX 9090", "unmeasured"])).await;
    assert!(!report.passes);
    let unknown = line(&report, "CPU-1 model");
    assert!(unknown.found.contains("uncalibrated_model"), "{unknown:?}");
    assert!(unknown.remedy.contains("\"NVIDIA RTX 9090\": { base: BASE"), "{unknown:?}");
    assert!(unknown.remedy.contains("memory_gib: 24.0, floor_memory_gib: 21.6"), "{unknown:?}");
    assert!(line(&report, "CPU-2 model").remedy.contains("its row needs nominal_tops"), "{}", report.text());
    assert_eq!(report.score.as_ref().unwrap().counted, 1, "the others are paid");
}

#[tokio::test]
async fn a_prover_that_computes_something_else_fails_as_at_a_validator() {
    let forging = ForgingProver { forgery: Forgery::SkipTiles { ratio: 1.0 }, threads: 1 };
    let report = proved(&forging, vec![row("slow", 1_000_000, Some(1_000))], &offers(&["slow"])).await;
    assert_eq!(report.devices[0].reason, "entry_mismatch");
    assert_eq!(line(&report, "CPU-0 proof").status, Status::Fail);
    assert!(prove::agrees(&forging, None).await.unwrap_err().contains("not the definitions'"));
}

#[tokio::test]
async fn a_prover_that_is_missing_or_ends_early_costs_every_device() {
    let (line_of, none) = starts::<ChildProver>(Err("there is no prover at /nowhere".to_owned()), None).await;
    assert!(none.is_none() && line_of.status == Status::Fail && line_of.remedy.contains("prover.path"));
    let limits = ProverLimits { time: Duration::from_secs(60), memory_bytes: GIB, output_bytes: 1 << 20, threads: 1 };
    let ends = ChildProver::new(PathBuf::from("/bin/false"), limits);
    let (line_of, none) = starts(Ok((String::new(), ends.clone())), None).await;
    assert!(none.is_none() && line_of.status == Status::Fail && line_of.found.contains("ended early"), "{line_of:?}");
    let report = proved(&ends, vec![row("slow", 1_000_000, Some(1_000))], &offers(&["slow", "slow"])).await;
    assert!(report.devices.iter().all(|d| (d.verdict, d.reason) == ("unknown", "prover_crashed")), "{}", report.text());
}

/// A class of this much memory, with this floor of its bandwidth.
fn memories(blocks: u64, floor: Option<u64>) -> MemoryTable {
    let size = Size::new(blocks, 8, 4).unwrap();
    [("slow".to_owned(), MemoryWork { size, floor })].into()
}

async fn proved_memory(prover: &dyn Prover, memories: &MemoryTable) -> Report {
    let (table, works) = table(vec![row("slow", 1_000_000, Some(1_000))]);
    let standard = Standard { table: &table, works: &works, slot_ns: 24_000_000_000 };
    let offered = offers(&["slow", "slow"]);
    let asked = memory::asked(&table, memories, &offered, false);
    let proofs = memory::prove(prover, &asked, &rules(), Duration::from_secs(60)).await;
    let mut report = Report::of(Vec::new(), false);
    judge::devices(&mut report, &standard, &offered, &[]);
    memory::conclude(&mut report, &proofs);
    report.conclude();
    report
}

#[tokio::test]
async fn memory_that_is_held_passes_and_memory_that_is_not_or_is_slow_says_what_it_costs() {
    let report = proved_memory(&honest(), &memories(400, Some(1))).await;
    let memory = report.devices[1].memory.as_ref().unwrap();
    assert_eq!((memory.verdict, memory.blocks, memory.scans), ("pass", 400, 4));
    assert!(memory.bandwidth.unwrap() > 0 && memory.fill_ns.is_some() && memory.scan_ns.is_some());
    assert_eq!(line(&report, "CPU-1 memory proof").status, Status::Ok);

    let slow = proved_memory(&honest(), &memories(400, Some(u64::MAX))).await;
    let told = line(&slow, "CPU-0 memory proof");
    assert!(told.status == Status::Fail && told.found.starts_with("below_floor"), "{told:?}");
    assert!(told.remedy.contains("costs the next epoch"), "{told:?}");

    let forgery = Forgery::Memory(crate::proof::memory::forging::Forgery::HalfTheMemory);
    let half = proved_memory(&ForgingProver { forgery, threads: 1 }, &memories(400, None)).await;
    assert!(half.devices.iter().all(|d| d.memory.as_ref().unwrap().reason == "memory_mismatch"));
    assert!(!half.passes);
}

#[tokio::test]
async fn a_prover_without_memory_costs_every_device_and_a_model_without_figures_is_not_asked() {
    let limits = ProverLimits { time: Duration::from_secs(60), memory_bytes: GIB, output_bytes: 1 << 20, threads: 1 };
    let ends = ChildProver::new(PathBuf::from("/bin/false"), limits);
    let report = proved_memory(&ends, &memories(400, None)).await;
    assert!(report.devices.iter().all(|d| d.memory.as_ref().unwrap().verdict == "unknown"), "{}", report.text());
    let report = proved_memory(&honest(), &MemoryTable::new()).await;
    assert!(report.devices.iter().all(|d| d.memory.is_none()));
}

#[test]
fn a_memory_proof_above_the_budget_names_the_key() {
    let (table, _) = table(vec![row("slow", 1_000_000, Some(1_000))]);
    let asked = |blocks| -> Vec<Demand> {
        let asked = memory::asked(&table, &memories(blocks, None), &offers(&["slow"]), false);
        asked.iter().map(|planned| Demand::of_own_memory(&planned.work.size)).collect()
    };
    let wide = BudgetLimits { ops_per_challenge: u64::MAX, memory_bytes: GIB, ..limits() };
    let wide = BudgetLimits { prover_memory_bytes: GIB, ..wide };
    assert_eq!(memory::budget(wide, &asked(400)).unwrap().status, Status::Ok);
    assert!(memory::budget(wide, &asked(2 << 20)).unwrap().remedy.starts_with("set budget.memory_mib to "));
    assert_eq!(memory::budget(wide, &[]), None);
    assert_eq!(memory::asked(&table, &memories(400, None), &offers(&["slow"]), true)[0].work.size.scans(), 4);
}

fn limits() -> BudgetLimits {
    BudgetLimits {
        ops_per_challenge: 2 * work().operations(),
        memory_bytes: 2 * work().memory_bytes(),
        prover_memory_bytes: work().memory_bytes(),
        time_per_window: Duration::from_secs(300),
        challenges_per_hotkey_per_window: 1,
        window: Duration::from_secs(600),
    }
}

#[test]
fn a_budget_that_a_challenge_exceeds_names_the_key_and_the_value() {
    let line = |limits, devices: usize, ns| judge::budget(limits, &vec![work().into(); devices], ns, 12);
    assert_eq!(line(limits(), 2, 4_000_000_000).status, Status::Ok);
    let over = line(limits(), 3, 4_000_000_000);
    assert_eq!(over.status, Status::Fail);
    assert_eq!(over.remedy, format!("set budget.operations to {} or more", 3 * work().operations()));
    let wide = BudgetLimits { ops_per_challenge: u64::MAX, ..limits() };
    assert!(line(wide, 3, 0).remedy.starts_with("set budget.memory_mib to "));
    let narrow = BudgetLimits { prover_memory_bytes: 1 << 20, ..limits() };
    assert!(line(narrow, 1, 0).remedy.starts_with("set prover.memory_limit_mib to "));
    let slow = line(limits(), 1, 30_000_000_000);
    assert!(slow.status == Status::Warn && slow.remedy.contains("12 validators"), "{slow:?}");
}

#[test]
fn devices_are_chosen_by_name_and_a_wrong_name_is_told() {
    let all = offers(&["a", "b", "c"]);
    let (line, chosen) = choose(all.clone(), &[], &Ok(vec![])).unwrap();
    assert_eq!((line.status, chosen.len()), (Status::Ok, 3));
    let (line, chosen) = choose(all.clone(), &[DeviceId::cpu(2)], &Ok(vec![])).unwrap();
    assert_eq!((line.status, chosen[0].model.as_str()), (Status::Warn, "c"));
    let wrong = choose(all.clone(), &[DeviceId::cpu(9)], &Ok(vec![])).unwrap_err();
    assert!(wrong.status == Status::Fail && wrong.remedy.contains("CPU-0, CPU-1, CPU-2"), "{wrong:?}");

    let rented = Ok(vec![DeviceId::cpu(1)]);
    let (line, chosen) = choose(all.clone(), &[], &rented).unwrap();
    assert_eq!(chosen.iter().map(|offer| &*offer.model).collect::<Vec<_>>(), ["a", "c"], "a tenant's is left alone");
    assert!(line.status == Status::Warn && line.remedy.contains("rented"), "{line:?}");
    let (_, chosen) = choose(all.clone(), &[DeviceId::cpu(1)], &rented).unwrap();
    assert_eq!(chosen.len(), 1, "unless it is named");
    let unknown = Err("the database is a newer version's".to_owned());
    let line = choose(all.clone(), &[], &unknown).unwrap_err();
    assert!(line.status == Status::Fail && line.remedy.contains("--devices"), "{line:?}");
    assert_eq!(choose(all, &[DeviceId::cpu(1)], &unknown).unwrap().1.len(), 1);
}

#[test]
fn what_is_rented_is_read_from_the_miners_database_and_a_machine_without_one_rents_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(rented(dir.path()), Ok(vec![]));
    std::fs::write(dir.path().join(store::DATABASE_FILE), "no database").unwrap();
    assert!(rented(dir.path()).is_err());
}

/// A machine of four cards, each with another fate, in numbers that never change.
fn example() -> Report {
    let rows = vec![
        row("NVIDIA GeForce RTX 4090", 680_000, Some(396_000_000_000_000)),
        row("NVIDIA H100 80GB HBM3", 3_300_000, Some(1_187_000_000_000_000)),
    ];
    let (table, _) = table(rows);
    let size = Work::new(32_768, 65_536, 9).unwrap();
    let works: WorkTable = table.rows().iter().map(|row| (row.name.clone(), size)).collect();
    let standard = Standard { table: &table, works: &works, slot_ns: 24_000_000_000 };
    let card = |n: u8, model: &str, memory_gib: u64| OfferedDevice {
        device: DeviceId([n; 16]),
        model: model.to_owned(),
        memory_bytes: memory_gib * GIB,
    };
    let offered = [
        card(0x11, "NVIDIA GeForce RTX 4090", 24),
        card(0x22, "NVIDIA GeForce RTX 4090", 24),
        card(0x33, "NVIDIA H100 80GB HBM3", 16),
        card(0x44, "NVIDIA GeForce RTX 9090", 32),
    ];
    let proof = |n: u8, ms: u64| Proof {
        device: DeviceId([n; 16]),
        work: size,
        verdict: Verdict::Pass {
            evidence: PassEvidence { operations: size.operations(), elapsed_ns: ms * 1_000_000, samples: 66 },
        },
        elapsed: Some(Duration::from_millis(ms)),
        opening: Some(Duration::from_millis(41)),
        verification: Some(Duration::from_micros(1_350)),
    };
    let specs = hardware::Specs {
        hard_disk: Some(hardware::HardDisk { total: 100 * GIB, free: 60 * GIB, used: 40 * GIB }),
        ..hardware::Specs::default()
    };
    let mut lines = vec![Line::ok("settings", "valid")];
    lines.extend(surroundings::engine_and_disk(&specs));
    let (line, _) = choose(offered.to_vec(), &[], &Ok(vec![])).unwrap();
    lines.push(line);
    lines.push(judge::ram(Some(8 * GIB), &[work()]));
    lines.push(judge::budget(limits(), &[size.into(); 3], 3_000_000_000, 12));
    let mut report = Report::of(lines, false);
    judge::devices(&mut report, &standard, &offered, &[proof(0x11, 3_190), proof(0x22, 4_000), proof(0x33, 3_300)]);
    report.conclude();
    report
}

#[test]
fn people_read_what_costs_them_with_what_to_do() {
    insta::assert_snapshot!("text", example().text());
}

#[test]
fn programs_read_one_object_whose_fields_stay() {
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&example()).unwrap());
}

#[test]
fn a_slot_is_two_blocks_and_on_a_ledger_the_whole_epoch() {
    let load = |cli: Cli| {
        Arc::new(settings::load(Role::Miner, &cli, [("HOME".to_owned(), "/home/op".to_owned())]).unwrap().settings)
    };
    let finney = load(Cli::default());
    assert_eq!((slot_ns(&finney), callers(&finney)), (24_000_000_000, 12));
    let ledger = load(Cli::default().with("subtensor.network", "ledger=http://127.0.0.1:9950"));
    assert_eq!((slot_ns(&ledger), callers(&ledger)), (6_000_000_000, 1));
}
