//! Ends: SIGKILL of the miner, the validator and the container engine, with real processes, a real Docker Engine and the
//! chain's ledger, uniformly over time and once at each call that a lease's life makes of the engine and of the journal.
//!
//! After each end whoever ended is started again, as a service would be. Then no lease that was told to run is lost, none is
//! doubled, nothing is left once it was swept, and `released` was told of no lease that has a container, or a process in its container's
//! control group: by what a watch beside them sees all the time, by the host's traces after each life, and by the books of all sides at the end. A table
//! says for each boundary what was ended there and how long it took until the step was done.
//!
//! Runs as root (`scripts/test` does) with Debian's docker.io and strace, the images of `scripts/docker images` and the server of
//! `scripts/sshd`. Words on the command line choose parts: `boundaries` (or of these `miner`, `engine`, `journal`), `restore`,
//! `uniform`. `COMPUTE_TEST_LONG` takes every boundary and a hundred kills, else a fixed sample of each; `COMPUTE_TEST_SEED` repeats the
//! moments of the kills, which are printed; `COMPUTE_TEST_BOUNDARY` takes only boundaries whose line of the table contains it. Other engines on this machine that start meanwhile take rules of this one's away.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what became of each boundary")]

#[expect(dead_code, reason = "the tests of the engine itself use more of it")]
#[path = "../docker/bed.rs"]
mod bed;
#[expect(dead_code, reason = "the tests of the subnet itself use more of it")]
#[path = "../crash/net.rs"]
mod net;
#[expect(dead_code, reason = "the attacks use more of it")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/wait.rs"]
mod wait;

mod boundaries;
mod journal;
mod life;
mod proxy;
mod uniform;
mod watch;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use compute_subnet::exit::Exit;
use compute_subnet::launch;
use futures_util::FutureExt as _;

use bed::Bed;
use boundaries::Kind;
use life::World;

/// Runs a part to its end; whether it held.
async fn held(part: impl Future<Output = bool>) -> bool {
    AssertUnwindSafe(part).catch_unwind().await.unwrap_or(false)
}

async fn run(chosen: impl Fn(&str) -> bool, runtime: tokio::runtime::Handle) -> bool {
    let long = std::env::var_os("COMPUTE_TEST_LONG").is_some();
    unmount_volumes();
    let mut bed = Bed::make().await;
    let mut well = true;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| chosen(kind.name())).collect();
    if !kinds.is_empty() || chosen("restore") {
        let mut world = World::begin(bed, &runtime).await;
        let part = async {
            let mut well = true;
            if !kinds.is_empty() {
                well &= boundaries::each_once(&mut world, &kinds, long).await;
            }
            if chosen("restore") {
                let took = world.engine_killed_without_live_restore().await;
                println!(
                    "an engine killed that does not restore: the lease ran again after {:.1} s",
                    took.as_secs_f64()
                );
            }
            world.end_miner().await;
            boundaries::books_agree(&world);
            well
        };
        if !held(part).await {
            well = false;
            world.anew().await;
        }
        bed = world.bed;
    }
    if chosen("uniform") {
        let part = async {
            uniform::kills_at_random_moments(&mut bed, long).await;
            true
        };
        if !held(part).await {
            well = false;
            bed.stop_engine();
            bed.start_engine(true).await;
            bed.clear();
            unmount_volumes();
        }
    }
    bed.end();
    well
}

/// Takes volumes away that a part or a run which failed left mounted.
fn unmount_volumes() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/target/docker/t/");
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = all.lines().rev().filter(|line| line.contains(dir) && line.contains("/volumes/"));
    for at in ours.filter_map(|line| line.split(' ').nth(4)) {
        let _ = std::process::Command::new("umount").arg(at).status();
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = move |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut well = false;
    let exit = launch::run(|runtime| {
        let (handle, well) = (runtime.handle().clone(), &mut well);
        async move {
            *well = held(run(chosen, handle)).await;
            Exit::Ok
        }
    });
    if well && exit == Exit::Ok {
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED: see above");
    ExitCode::FAILURE
}
