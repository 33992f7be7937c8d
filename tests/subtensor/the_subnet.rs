//! A validator and four miners, as processes, are a subnet on the real runtime: registered, served, challenged, weighed.
//! They stay one where each of them is killed, and where the way to the chain fails in every manner that it can.
//!
//! With `COMPUTE_TEST_LONG` thirty epochs and more, five kills of each and each fault four times; `COMPUTE_TEST_SEED`
//! repeats a run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::proxy::Mode;
use crate::subnet::{PACE, Pace, Subnet, compare, long};

/// A generator whose seed is printed, or given.
fn seeded() -> StdRng {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).unwrap();
    let seed = std::env::var("COMPUTE_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(random));
    println!("COMPUTE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

#[tokio::test]
async fn a_validator_and_four_miners_are_a_subnet_on_the_real_runtime() {
    let Some(mut subnet) = Subnet::start(PACE).await else { return };
    println!("first weights after {:.1} s more", subnet.whole().await.as_secs_f64());
    let wanted = if long() { 31 } else { 3 };
    while subnet.epoch(subnet.bed.head().await) < subnet.epoch(subnet.from) + wanted {
        subnet.whole().await;
        subnet.nodes.iter_mut().for_each(|node| node.alive());
    }
    println!("other scores are other weights after {:.1} s", subnet.reprice([4, 1, 2, 3]).await.as_secs_f64());
    let settings = compare(subnet).await;
    // The first epoch may have been half over, and the last one is.
    assert!(settings.epochs >= wanted && settings.set as u64 + 2 >= settings.epochs, "{settings:?}");
    let served = |kind: &str| settings.served.get(kind).copied();
    let announced = (served("SubtensorModule.AxonServed"), served("SubtensorModule.PrometheusServed"));
    assert_eq!(announced, (Some(4), Some(1)), "each once");
}

/// What happens to a subnet.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// SIGKILL to the node of this number.
    Kill(usize),
    /// The wire of this node does this for a while, then everything goes through again.
    Wire(usize, Mode),
    /// All wires at once.
    Wires(Mode),
}

/// What a wire can do.
const FAULTS: [Mode; 6] =
    [Mode::Cut, Mode::Gone, Mode::Stall, Mode::Deaf, Mode::Delay(Duration::from_millis(300)), Mode::Trickle(20_000)];

async fn strike(subnet: &mut Subnet, blow: Blow, lasts: Duration) {
    let (wires, mode) = match blow {
        Blow::Kill(node) => return subnet.nodes[node].kill(),
        Blow::Wire(wire, mode) => (wire..wire + 1, mode),
        Blow::Wires(mode) => (0..subnet.wires.len(), mode),
    };
    for wire in &subnet.wires[wires.clone()] {
        wire.set(mode).await;
    }
    sleep(lasts).await;
    for wire in &subnet.wires[wires] {
        wire.set(Mode::Pass).await;
    }
}

#[tokio::test]
async fn a_subnet_whose_nodes_are_killed_and_whose_wires_fail_sets_each_epochs_weights_once() {
    let mut rng = seeded();
    let Some(mut subnet) = Subnet::start(PACE).await else { return };
    subnet.whole().await;
    let nodes = subnet.nodes.len();
    let mut blows = Vec::new();
    if long() {
        blows.extend((0..nodes).flat_map(|node| [Blow::Kill(node); 5]));
        // The validator's wire counts most: what happens there happens to weights.
        blows.extend(
            FAULTS.iter().flat_map(|fault| [Blow::Wire(0, *fault), Blow::Wire(0, *fault), Blow::Wires(*fault)]),
        );
        blows.extend(FAULTS.map(|fault| Blow::Wire(rng.random_range(1..nodes), fault)));
    } else {
        blows.extend([Blow::Kill(0), Blow::Kill(rng.random_range(1..nodes))]);
        // One where the other side says so, one where it is silent.
        blows.extend([Blow::Wires(Mode::Gone), Blow::Wire(0, [Mode::Stall, Mode::Deaf][rng.random_range(0..2)])]);
    }
    blows.shuffle(&mut rng);
    let mut took_all = Vec::new();
    for blow in &blows {
        // Anywhere in an epoch.
        let epoch = subnet.pace.block * (u32::from(subnet.pace.tempo) + 1);
        sleep(epoch.mul_f64(rng.random())).await;
        let (block, from) = (subnet.bed.head().await, Instant::now());
        strike(&mut subnet, *blow, Duration::from_millis(rng.random_range(500..6_000))).await;
        for node in &mut subnet.nodes {
            node.ready().await;
        }
        // Other weights than before, so that what is there now is not what was there already.
        let mut bases = [1, 2, 3, 4];
        bases.shuffle(&mut rng);
        subnet.reprice(bases).await;
        let took = from.elapsed();
        println!(
            "{:>6.1} s  {blow:?} at block {block}, whole again after {:.1} s",
            subnet.begun.elapsed().as_secs_f64(),
            took.as_secs_f64()
        );
        took_all.push((took, blow));
    }
    // Peace at the end, so that the last blow's consequences are on record too.
    subnet.whole().await;
    let killed: u32 = subnet.nodes.iter().map(|node| node.kills).sum();
    let longest = took_all.iter().max_by_key(|(took, _)| *took);
    println!("{killed} kills, {} faults of wires, longest {longest:?}", blows.len() - killed as usize);
    compare(subnet).await;
}

#[tokio::test]
async fn a_validator_that_must_commit_first_reveals_each_epochs_weights_once() {
    let Some(subnet) = Subnet::start(Pace { commit: true, ..PACE }).await else { return };
    let first = subnet.reprice([1, 2, 3, 4]).await;
    println!("first weights revealed after {:.1} s", first.as_secs_f64());
    println!("other scores are other weights after {:.1} s", subnet.reprice([2, 4, 1, 3]).await.as_secs_f64());
    subnet.reprice([4, 3, 2, 1]).await;
    // What was committed to last may still wait for its epoch.
    let settings = compare(subnet).await;
    assert!(settings.set >= 3 && (settings.set..=settings.set + 1).contains(&settings.commits), "{settings:?}");
    assert!((settings.commits..=settings.commits + 1).contains(&settings.intents), "none twice: {settings:?}");
}
