//! Attacks on a miner in a process of its own: each is refused, has no effect, and leaves the miner well.
//!
//! Run one after the other against one miner, so that what an attack leaves behind meets the next; each is a function named
//! after what it promises. Words on the command line choose those whose name holds one of them. `COMPUTE_TEST_LONG` runs
//! the long forms. What cannot be done on this machine is left out and says so, also as a line for each in the file that
//! `COMPUTE_TEST_LEFT_OUT` names. The table at the end says what was sent, what refused it, the miner's memory around it, and how
//! long the slowest honest call took.
//!
//! Around each attack: no handler ran, no lease was made, `/healthz` and `/readyz` are 200, no actor was restarted, the
//! memory is bounded, and an honest caller is answered in time.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what became of each attack")]

#[path = "../common/process.rs"]
mod process;
#[path = "../common/wait.rs"]
mod wait;

mod bombs;
mod clock;
mod disk;
mod flood;
mod http;
mod requests;
mod signatures;
mod silent;
mod stage;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use compute_subnet::exit::Exit;
use compute_subnet::launch;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use process::Subnet;
use stage::{Row, Stage};

/// Settings of the miner that is attacked: short waits, so that what waits for them is seen in a test's time.
const SETTINGS: &[&str] = &["axon.read_timeout=2s"];

/// Runs every attack whose name is chosen.
macro_rules! attacks {
    ($stage:ident, $chosen:ident, $rows:ident; $($module:ident::$name:ident),* $(,)?) => {
        $(if $chosen(stringify!($name)) {
            let name = stringify!($name).replace('_', " ");
            let (begun, before) = (Instant::now(), $stage.begin());
            $stage = $module::$name($stage).await;
            $stage.assert_unharmed(&name).await;
            let row = $stage.end(&name, before);
            tell(&name, begun, &row);
            $rows.push((name, row));
        })*
    };
}

fn tell(name: &str, begun: Instant, row: &Row) {
    let less = row.less.as_ref().map(|less| format!(", LEFT OUT {less}")).unwrap_or_default();
    println!("ok   {:>5.1} s  {name}{less}", begun.elapsed().as_secs_f64());
}

async fn run(chosen: impl Fn(&str) -> bool, runtime: std::sync::Arc<tokio::runtime::Runtime>) -> Vec<(String, Row)> {
    let long = std::env::var_os("COMPUTE_TEST_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    let subnet = Subnet::start(dir.path(), 4).await;
    let further: Vec<String> = SETTINGS.iter().flat_map(|s| ["--set".to_owned(), (*s).to_owned()]).collect();
    let mut stage = Stage::start(subnet, long, further).await;
    let mut rows = Vec::new();
    attacks!(stage, chosen, rows;
        signatures::a_body_changed_on_the_way_is_refused_where_it_is_signed,
        signatures::a_hotkey_named_in_a_body_is_nobody,
        signatures::a_request_counts_once,
        signatures::a_request_counts_once_also_across_a_restart,
        signatures::a_request_from_the_future_is_refused,
        signatures::an_old_request_stays_old_whatever_timeout_it_states,
        signatures::an_old_version_or_none_does_not_switch_freshness_off,
        signatures::a_request_without_signature_is_refused,
        signatures::a_signature_for_another_axon_is_refused_here,
        signatures::another_kind_of_signature_is_refused,
        flood::a_flood_of_bad_signatures_ends_at_the_door,
        bombs::a_hundred_megabytes_are_refused_and_not_kept,
        bombs::heads_without_end_are_cut,
        bombs::slow_senders_are_cut,
        silent::ten_thousand_silent_connections_keep_nobody_out,
        disk::a_full_disk_stops_rentals_and_nothing_else,
    );
    drop(stage);
    if chosen("a_clock_that_jumps_readmits_nothing_and_costs_seconds") {
        let begun = Instant::now();
        let row = clock::a_clock_that_jumps_readmits_nothing_and_costs_seconds(dir.path(), runtime).await;
        let name = "a clock that jumps readmits nothing and costs seconds".to_owned();
        tell(&name, begun, &row);
        rows.push((name, row));
    }
    rows
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == silent::ATTACKER) {
        return silent::attack(&args[1..]);
    }
    let words: Vec<String> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = move |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut rows = None;
    let exit = launch::run(|runtime| async {
        rows = AssertUnwindSafe(run(chosen, runtime)).catch_unwind().await.ok();
        Exit::Ok
    });
    let Some(rows) = rows else {
        eprintln!("FAILED: see above");
        return ExitCode::FAILURE;
    };
    if rows.is_empty() {
        eprintln!("FAILED: no attack's name holds one of the words");
        return ExitCode::FAILURE;
    }
    if let Some(file) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
        let less = rows.iter().filter_map(|(name, row)| Some(format!("{name}: {}\n", row.less.as_ref()?)));
        std::fs::write(file, less.collect::<String>()).unwrap();
    }
    println!("\n{:<66} {:>9} {:>16} {:>9}  refused by", "attack", "sent", "RSS KiB", "honest");
    for (name, Row { sent, refused_by, less, slowest, before, after }) in rows {
        let less = less.map(|less| format!("LEFT OUT {less}; ")).unwrap_or_default();
        let honest = slowest.as_secs_f64();
        println!("{name:<66} {sent:>9} {before:>7} > {after:>6} {honest:>7.2} s  {less}{refused_by}");
    }
    if exit == Exit::Ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
