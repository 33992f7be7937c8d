//! What this crate does to a machine, on a real kernel: rules of nftables and iptables between network namespaces, and volumes on
//! loop devices. Needs root, `ip`, `nft`, `iptables`, `mkfs.ext4`, `mount`; `scripts/test` runs it with the tests on a real
//! container engine.
//!
//! Each check is a function named after what it promises. Words on the command line choose those whose name holds one of
//! them. The program runs itself in network namespaces, with the first word `inside` (`net::inside`).
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what became of each check")]

mod disk;
mod net;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Runs every check whose name is chosen.
macro_rules! checks {
    ($chosen:ident, $failed:ident; $($module:ident::$name:ident),* $(,)?) => {
        $(if $chosen(stringify!($name)) {
            let name = stringify!($name).replace('_', " ");
            let begun = tokio::time::Instant::now();
            let ended = catch_unwind(AssertUnwindSafe($module::$name));
            let took = begun.elapsed().as_secs_f64();
            match ended {
                Ok(()) => println!("ok     {took:>5.1} s  {name}"),
                Err(_) => {
                    println!("FAILED {took:>5.1} s  {name}");
                    $failed += 1;
                }
            }
        })*
    };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("inside", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return net::inside(rest);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("these tests make network namespaces and mounts: run them as root");
        return ExitCode::FAILURE;
    }
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|word| name.contains(word.as_str()));
    let mut failed = 0;
    checks! { chosen, failed;
        net::tenants_reach_the_internet_and_nothing_else_by_nftables,
        net::tenants_reach_the_internet_and_nothing_else_by_iptables,
        net::a_guarded_lease_has_rules_and_a_volume_and_leaves_neither,
        net::rules_that_another_service_flushed_come_back,
        disk::a_tenant_that_fills_its_disk_fills_its_own,
        disk::what_a_killed_miner_left_half_made_is_swept,
        disk::a_container_without_its_volume_does_not_start_on_the_hosts_disk,
        disk::what_a_killed_engine_left_mounted_goes_with_the_volume,
        disk::a_lease_that_the_disk_has_no_room_for_is_refused,
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
