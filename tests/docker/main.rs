//! Rentals on a real Docker Engine: every call, every way to fail, crashes of the engine, and tenants that mean harm.
//!
//! Starts an engine of its own below `target/docker` (root, Debian's docker.io, and the images that `scripts/docker images`
//! makes), in a network of its own, and runs one test after the other, each a function named after what it promises; words on the command line choose
//! those whose name holds one of them. After each test nothing may be left: no container, process of one, network, volume, interface, image or
//! firewall rule. Times are printed, never asserted.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what became of each test")]

mod bed;
mod calls;
mod canary;
mod crashes;
mod held;
mod images;
mod legacy;
mod login;
mod many;
mod refusals;
mod registry;
mod rent;
mod tenants;

#[path = "../interop/driver.rs"]
mod driver;
#[path = "../common/process.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod process;
#[path = "../common/wait.rs"]
mod wait;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use bed::Bed;

/// Runs every test whose name is chosen; the names of those that failed.
macro_rules! tests {
    ($bed:ident, $chosen:ident; $($module:ident::$name:ident),* $(,)?) => {{
        let mut failed: Vec<String> = Vec::new();
        $(if $chosen(stringify!($name)) {
            let name = stringify!($name).replace('_', " ");
            let begun = Instant::now();
            let test = async {
                let before = $bed.traces();
                $module::$name(&mut $bed).await;
                $bed.assert_nothing_left(&before).await;
            };
            match AssertUnwindSafe(test).catch_unwind().await {
                Ok(()) => println!("ok     {:>5.1} s  {name}", begun.elapsed().as_secs_f64()),
                Err(_) => {
                    println!("FAILED {:>5.1} s  {name}", begun.elapsed().as_secs_f64());
                    $bed.recover().await;
                    failed.push(name);
                }
            }
        })*
        failed
    }};
}

/// Says that this program runs in namespaces of its own.
const APART: &str = "COMPUTE_TEST_APART";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("listen") {
        held::listen(std::env::args().skip(2));
    }
    if std::env::var_os(APART).is_none() {
        return apart();
    }
    bed::run("ip", &["link", "set", "lo", "up"]);
    tests_of_this_program()
}

/// Runs this program in a network and a mount namespace of its own: bridges, rules and mounts of this machine, and those of another
/// run of these tests, are neither seen nor touched, so that whatever is left is the tests' own.
fn apart() -> ExitCode {
    // Inside there is no network.
    bed::images();
    let program = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "--mount", "--"]).arg(program).args(std::env::args().skip(1)).env(APART, "1");
    let ended = command.status().expect("unshare: install util-linux, run as root");
    if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[tokio::main]
async fn tests_of_this_program() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut bed = Bed::make().await;
    let failed = tests!(bed, chosen;
        calls::a_container_is_made_found_paused_restarted_and_removed,
        calls::a_container_has_the_limits_and_rights_that_it_was_given_and_no_others,
        calls::a_repeat_of_a_creation_finds_the_same_container,
        calls::containers_of_other_miners_are_neither_shown_nor_touched,
        calls::whoever_watches_hears_when_a_container_ends,
        login::the_renter_logs_in_with_the_key_and_sees_the_host_key_that_was_told,
        login::who_may_log_in_changes_without_a_restart,
        login::an_image_with_nothing_in_it_greets_too,
        refusals::a_device_is_never_given_twice,
        refusals::another_epochs_container_is_left_alone,
        refusals::a_card_that_another_miner_of_this_machine_rents_out_is_in_use,
        refusals::nothing_is_rented_before_it_is_known_what_this_machine_offers,
        refusals::images_that_may_not_run_are_refused_with_the_reason,
        refusals::what_the_engine_cannot_give_is_refused_and_leaves_nothing,
        refusals::an_engine_that_is_not_there_is_named,
        crashes::a_creation_that_is_cut_off_at_any_moment_is_finished_or_removed,
        crashes::a_caller_that_stops_waiting_leaves_a_container_that_is_whole,
        crashes::an_engine_killed_while_it_creates_leaves_what_can_be_finished,
        crashes::a_tenant_keeps_running_through_a_crash_and_a_restart_of_the_engine,
        crashes::an_engine_with_another_data_directory_is_not_believed,
        crashes::networks_without_a_container_are_swept_at_the_start,
        crashes::processes_that_the_engine_forgot_end_with_their_lease,
        crashes::containers_that_the_engine_forgot_are_swept_with_their_processes,
        tenants::a_fork_bomb_ends_at_the_limit_of_processes,
        tenants::a_memory_bomb_ends_at_the_limit_of_memory,
        tenants::a_tenant_that_ends_everything_inside_is_started_again,
        tenants::a_tenant_that_deletes_the_ssh_server_gets_it_back_at_a_restart,
        tenants::a_tenant_that_writes_outside_its_mounts_changes_nothing_of_the_host,
        tenants::a_key_with_quotes_and_commands_is_a_line_in_a_file,
        held::a_tenant_that_fills_its_disk_fills_its_own,
        held::a_tenant_reaches_the_internet_and_nothing_else,
        held::a_miner_that_starts_again_keeps_volumes_and_rules_and_clears_what_is_nobodys,
        held::volumes_stay_through_a_crash_and_a_restart_of_the_engine,
        held::after_the_machines_start_containers_run_on_their_volumes_again,
        held::what_cannot_be_held_is_refused_where_the_policy_says_so,
        images::the_pull_of_an_oversized_image_is_ended_before_it_fills_the_disk,
        images::an_image_that_a_wish_brought_is_removed_when_nobody_wants_it,
        many::twenty_leases_at_once_on_one_host,
        many::many_leases_one_after_the_other,
        canary::a_canary_passes_in_every_image_that_can_run_the_prover,
        canary::a_canary_names_what_is_wrong_with_a_container,
        canary::many_canaries_leave_no_container,
        rent::whoever_rents_from_a_devnet_logs_in_with_the_printed_command_and_leaves_nothing,
        rent::many_rent_from_a_devnet_at_once,
        rent::many_rent_from_a_devnet_one_after_the_other,
        legacy::an_image_is_tried_for_what_the_originals_validators_need,
        legacy::the_originals_programs_test_rent_log_in_and_return,
    );
    bed.end();
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("\nfailed:\n  {}", failed.join("\n  "));
        ExitCode::FAILURE
    }
}
