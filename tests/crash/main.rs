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

#[tokio::test]
async fn a_subnet_whose_nodes_are_killed_loses_no_lease_no_verdict_and_goes_on_setting_weights() {
    let kills = number("COMPUTE_TEST_KILLS", 5);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).unwrap();
    let seed = number("COMPUTE_TEST_SEED", u64::from_le_bytes(random));
    println!("COMPUTE_TEST_SEED={seed} COMPUTE_TEST_KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);

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
