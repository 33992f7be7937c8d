//! What supervision costs: messages per second through a handle, all vitals on.
//!
//! One arbiter, 8-byte messages, a mailbox of 1,024; sender and actor share the thread. Each figure is the median of
//! five runs of two seconds. Targets on one 2020s server core: tell 1.5 M/s, ask 0.5 M/s.
//!
//! Arguments: seconds per run (default 2).
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use actix::prelude::*;
use compute_subnet::runtime::{
    ChildSpec, Ctx, Handle, Inspect, Placement, RuntimeMetrics, Supervised, TellError, Tree, TreeConfig,
};
use prometheus::Registry;
use std::time::Duration;
use tokio::time::Instant;

const RUNS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(10);

/// 8 bytes.
#[derive(Message)]
#[rtype(result = "u64")]
struct Add(u64);

struct Sum(u64);
impl Actor for Sum {
    type Context = Ctx<Self>;
}
impl Supervised for Sum {
    const MESSAGES: &'static [&'static str] = &["Add"];
}
impl Handler<Add> for Sum {
    type Result = u64;
    fn handle(&mut self, add: Add, _: &mut Ctx<Self>) -> u64 {
        self.0 = self.0.wrapping_add(add.0);
        self.0
    }
}
impl Handler<Inspect> for Sum {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.0.into())
    }
}

/// Handled tells per second: fills the mailbox, lets the actor empty it, and so on.
async fn tells(sum: &Handle<Sum>, time: Duration) -> f64 {
    let (start, mut sent) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        loop {
            match sum.tell(Add(1)) {
                Ok(()) => sent += 1,
                Err(TellError::Full) => break,
                Err(TellError::Gone) => return 0.0,
            }
        }
        tokio::task::yield_now().await;
    }
    while sum.depth() > 0 {
        tokio::task::yield_now().await;
    }
    sent as f64 / start.elapsed().as_secs_f64()
}

/// Asks per second of one caller that waits for each reply.
async fn asks(sum: &Handle<Sum>, time: Duration) -> f64 {
    let (start, mut answered) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        for _ in 0..256 {
            if sum.ask(Add(1), DEADLINE).await.is_err() {
                return 0.0;
            }
            answered += 1;
        }
    }
    answered as f64 / start.elapsed().as_secs_f64()
}

fn median(mut runs: [f64; RUNS]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(2.0);
    let time = Duration::try_from_secs_f64(seconds)?;
    System::new().block_on(async {
        let registry = Registry::new();
        let cfg = TreeConfig { placement: Placement::Here, ..TreeConfig::default() };
        let mut tree = Tree::here(cfg, RuntimeMetrics::register(&registry)?);
        let spec = ChildSpec { name: "sum", mailbox: 1024, after: &[], drain: Duration::from_secs(1) };
        let (sum, seat) = tree.declare::<Sum>(spec);
        tree.start(seat, |_| Sum(0))?;
        sum.ask(Add(0), DEADLINE).await?;
        let (mut told, mut asked) = ([0.0; RUNS], [0.0; RUNS]);
        for run in 0..RUNS {
            told[run] = tells(&sum, time).await;
            asked[run] = asks(&sum, time).await;
        }
        println!("tell  {:>6.2} M/s  (target 1.5)   runs {told:.0?}", median(told) / 1e6);
        println!("ask   {:>6.2} M/s  (target 0.5)   runs {asked:.0?}", median(asked) / 1e6);
        Ok(())
    })
}
