//! A devnet of processes whose validator and miners are killed (SIGKILL) at random moments, while renters rent.
//!
//! After each kill the subnet has to come back by itself: the child is ready again and the next weights are on the
//! ledger. At the end everything that was kept is compared: renter, validator, miners and engines know the same leases;
//! each miner has one verdict for each epoch in which the validator was up; no honest miner was called a cheat.
//!
//! `COMPUTE_TEST_KILLS` sets how often each process is killed (5), `COMPUTE_TEST_SEED` repeats a run.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers fail the test")]

#[expect(dead_code, reason = "the devnet finds its ports itself")]
#[path = "../common/wait.rs"]
mod wait;

mod audit;
mod net;

use std::collections::BTreeMap;
use std::time::Duration;

use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::WeightsStatus;
use net::{Down, MINERS, Net};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// Longest quiet time before a kill: more than two epochs.
const CALM: Duration = Duration::from_millis(1_500);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// How often each process is killed, and the moments of this run; told, so that it can be repeated.
fn run() -> (u64, StdRng) {
    let kills = number("COMPUTE_TEST_KILLS", 5);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).unwrap();
    let seed = number("COMPUTE_TEST_SEED", u64::from_le_bytes(random));
    println!("COMPUTE_TEST_SEED={seed} COMPUTE_TEST_KILLS={kills}");
    (kills, StdRng::seed_from_u64(seed))
}

/// An epoch here takes 3 s, a restart less: no commit may miss its reveal.
const COMMIT_TEMPO: u16 = 59;
/// A restart that took so many blocks, on a busy machine, may have slept through what was left of an epoch.
const OVERSLEPT: u64 = 40;

#[tokio::test]
async fn a_validator_killed_between_commit_and_reveal_reveals_each_commit_once_and_misses_none() {
    let (kills, mut rng) = run();

    let mut net = Net::start_with(COMMIT_TEMPO, &["--set", "devnet.commit_reveal=true"]).await;
    let data = net.data_of("validator");
    let rows = || {
        let db = open_read_only(&data).unwrap();
        queries::recent_weights(&db, 1_000).unwrap()
    };
    let mut overslept = 0;
    for _ in 0..kills {
        // A commit that nobody was told of yet, or one whose reveal is near: any moment of its life.
        wait::until("a commit is on its way", async || {
            rows().first().is_some_and(|row| row.status.is_open()).then_some(())
        })
        .await;
        sleep(Duration::from_secs(3).mul_f64(rng.random())).await;
        let down = net.kill("validator").await;
        let blocks = down.to.saturating_sub(down.from);
        overslept += usize::from(blocks >= OVERSLEPT);
        println!(
            "validator killed at block {}, ready after {blocks} blocks, back after {:.2} s",
            down.from,
            down.took.as_secs_f64()
        );
    }
    net.weights_go_on().await;
    net.weights_go_on().await;
    let left = net.end().await;
    let rows = rows();
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *by_status.entry(row.status.label()).or_default() += 1);
    println!("weights    {by_status:?}");
    println!("evidence   {}", audit::evidence(&left.listing));
    let of = |status: WeightsStatus| by_status.get(status.label()).copied().unwrap_or(0);
    assert!(of(WeightsStatus::Revealed) as u64 > kills, "{by_status:?}");
    assert!(of(WeightsStatus::Missed) <= overslept, "{by_status:?}, {overslept} restarts took {OVERSLEPT} blocks");
    assert_eq!(of(WeightsStatus::Unequal), 0, "{by_status:?}");
    let sent = rows.iter().filter(|row| row.status != WeightsStatus::Failed);
    let mut epochs: Vec<u64> = sent.map(|row| row.weights.epoch).collect();
    epochs.sort_unstable();
    assert!(epochs.windows(2).all(|two| two[0] != two[1]), "an epoch's weights were sent twice: {epochs:?}");
}

#[tokio::test]
async fn a_subnet_whose_nodes_are_killed_loses_no_lease_no_verdict_and_goes_on_setting_weights() {
    let (kills, mut rng) = run();

    let mut net = Net::start().await;
    let names: Vec<String> = net.listing().children.iter().map(|child| child.name.clone()).collect();
    assert_eq!(names.len(), MINERS + 1);
    let mut victims: Vec<&String> = names.iter().flat_map(|name| (0..kills).map(move |_| name)).collect();
    victims.shuffle(&mut rng);

    let begun = Instant::now();
    let mut downs: Vec<Down> = Vec::new();
    for name in victims {
        sleep(CALM.mul_f64(rng.random())).await;
        let down = net.kill(name).await;
        println!(
            "{:>6.1} s  {name} killed at block {}, back after {:.2} s",
            begun.elapsed().as_secs_f64(),
            down.from,
            down.took.as_secs_f64()
        );
        downs.push(down);
    }
    // Two whole epochs in peace, so that the last kill's consequences are on record too.
    net.weights_go_on().await;
    net.weights_go_on().await;
    let restarts: u64 = net.listing().children.iter().map(|child| child.restarts).sum();
    let dir = net.end().await;

    let children = &dir.listing;
    let verdicts = audit::verdicts(children, dir.epochs(), &downs);
    let leases = audit::leases(&dir.path().join("net"));
    let evidence = audit::evidence(children);
    let longest = downs.iter().max_by_key(|down| down.took).unwrap();
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    downs.iter().for_each(|down| *by_name.entry(&down.name).or_default() += 1);
    println!("\nkills      {} {by_name:?}, restarts {restarts}", downs.len());
    println!("leases     {leases}");
    println!("verdicts   {verdicts}");
    println!("evidence   {evidence}");
    println!(
        "longest recovery {:.2} s ({}), {:.0} s in all",
        longest.took.as_secs_f64(),
        longest.name,
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(restarts, downs.len() as u64, "nobody ended but those who were killed");
}
