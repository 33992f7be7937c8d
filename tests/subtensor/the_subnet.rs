//! A validator and four miners, as processes, are a subnet on the real runtime: registered, served, challenged, paid.
//!
//! `COMPUTE_TEST_LONG` runs thirty epochs and more; `COMPUTE_TEST_SEED` repeats a run.

use std::time::Duration;

use tokio::time::Instant;

use crate::nodes::complaints;
use crate::subnet::{Pace, Subnet};

const PACE: Pace = Pace { tempo: 10, block: Duration::from_millis(300) };

/// Waits until so many epochs have passed since the nodes started.
async fn epochs(subnet: &mut Subnet, count: u64) {
    let end = subnet.epoch(subnet.from) + count;
    while subnet.epoch(subnet.bed.head().await) < end {
        subnet.whole().await;
        subnet.nodes.iter_mut().for_each(|node| node.alive());
    }
}

#[tokio::test]
async fn a_validator_and_four_miners_are_a_subnet_on_the_real_runtime() {
    let begun = Instant::now();
    let Some(mut subnet) = Subnet::start(PACE).await else { return };
    println!("up in {:.1} s", begun.elapsed().as_secs_f64());
    let first = subnet.whole().await;
    println!("first weights after {:.1} s", first.as_secs_f64());
    epochs(&mut subnet, 31).await;
    subnet.incentive_follows().await;
    subnet.the_sdk_agrees().await;
    subnet.unharmed().await;
    subnet.end().await;
    let settings = subnet.weights_were_set_once().await;
    println!("{settings:?}\nverdicts {:?}\nevidence {}", subnet.verdicts(), subnet.evidence_holds());
    println!("complaints {:#?}", complaints(subnet.nodes.iter()));
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
    assert!(settings.epochs >= 30, "{settings:?}");
    assert!(settings.set as u64 + 2 >= settings.epochs, "{settings:?}");
}
