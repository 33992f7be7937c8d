//! A day of requests through both nonce tables, on a clock that is only counted.
//!
//! The rate is one that a subnet can have: 400 a second, from 256 callers in turn. Under the classic scheme every request
//! comes from an object of its own, the worst that a Python validator does (a fresh dendrite for each call), so each
//! leaves an entry.

use std::process::ExitCode;
use std::time::Duration;

use compute_subnet::ids::Hotkey;
use compute_subnet::wire::btauth::{AuthPolicy, Caller};
use compute_subnet::wire::classic::{ClassicCaller, ClassicPolicy, EndpointLimits, Endpoints};
use compute_subnet::wire::nonces::{NonceLimits, NonceTable};

/// Requests a second under each scheme, and callers.
const RATE: u64 = 400;
const CALLERS: u64 = 256;
const HOURS: u64 = 24;
const HOUR: u64 = 3600;
/// What the process may have more in the last hour than in the first, in KiB.
const MARGIN: i64 = 512;

/// Memory of this process, in KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn hotkey(number: u64) -> Hotkey {
    Hotkey(*blake3::hash(&(number % CALLERS).to_le_bytes()).as_bytes())
}

/// Runs the day and says whether memory stayed as it was after the first hour.
pub(crate) fn run() -> ExitCode {
    let begin = 1_795_000_000 * 1_000_000_000u64;
    let second = Duration::from_secs(1).as_nanos() as u64;
    let (own, classic) = (AuthPolicy::default(), ClassicPolicy::default());
    let mut nonces = NonceTable::new(NonceLimits::default(), own, begin);
    let mut endpoints = Endpoints::new(EndpointLimits::default(), classic, begin);
    println!("{RATE} requests a second under each scheme, {CALLERS} callers, {HOURS} hours");
    println!("{:>4} {:>12} {:>10} {:>10} {:>12}", "hour", "requests", "btauth", "classic", "RSS, KiB");
    let (mut first, mut last, mut admitted) = (0, 0, 0u64);
    for hour in 0..HOURS {
        for at in hour * HOUR * RATE..(hour + 1) * HOUR * RATE {
            let now = begin + at * (second / RATE);
            let caller = Caller { hotkey: hotkey(at), nonce: now };
            let mut endpoint = [0; 16];
            endpoint[..8].copy_from_slice(&at.to_le_bytes());
            admitted += u64::from(nonces.admit(&caller, now).is_ok());
            admitted += u64::from(endpoints.admit(&ClassicCaller { caller, endpoint }, now).is_ok());
        }
        last = resident();
        if hour == 0 {
            first = last;
        }
        println!(
            "{:>4} {:>12} {:>10} {:>10} {:>12}",
            hour + 1,
            (hour + 1) * HOUR * RATE * 2,
            nonces.len(),
            endpoints.len(),
            last
        );
    }
    let window = |age: Duration| age.as_secs() * RATE + 1;
    let expected = (window(own.max_age), window(classic.longest_age()));
    let all = admitted == HOURS * HOUR * RATE * 2;
    let bounded = (nonces.len() as u64, endpoints.len() as u64) == expected;
    let flat = last - first <= MARGIN;
    println!("all admitted: {all}; what is fresh and nothing else is remembered: {bounded}");
    println!("hour {HOURS} against hour 1: {:+} KiB, at most {MARGIN:+} KiB", last - first);
    if all && bounded && flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
