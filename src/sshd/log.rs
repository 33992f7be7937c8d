//! Lines for the container's log, on stderr. The engine that keeps them adds the time.

use std::fmt;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Lines that may be written at once, and how long it takes until there may be one more.
const AT_ONCE: u32 = 50;
const PER_LINE: Duration = Duration::from_millis(500);

static BOUND: Mutex<Option<Bound>> = Mutex::new(None);

/// Writes a line; leaves it out where a flood of attempts to log in would fill a disk with them, and counts those.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let Ok(mut bound) = BOUND.lock() else { return };
    let now = Instant::now();
    let Some(left_out) = bound.get_or_insert(Bound { full: now, left_out: 0 }).take(now) else { return };
    let mut out = std::io::stderr().lock();
    if left_out > 0 {
        let _ = writeln!(out, "compute-sshd: {left_out} lines left out");
    }
    let _ = writeln!(out, "compute-sshd: {line}");
}

/// A bucket of lines.
#[derive(Debug)]
struct Bound {
    /// When the bucket is full again.
    full: Instant,
    left_out: u64,
}

impl Bound {
    /// Takes a line: how many were left out before it, or `None` if it is to be left out.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let full = self.full.max(now) + PER_LINE;
        if full.duration_since(now) > PER_LINE * AT_ONCE {
            self.left_out += 1;
            return None;
        }
        self.full = full;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_left_out_and_counted() {
        let start = Instant::now();
        let mut bound = Bound { full: start, left_out: 0 };
        let written = (0..1000).filter(|_| bound.take(start).is_some()).count();
        assert_eq!(written, AT_ONCE as usize);
        assert_eq!(bound.take(start + PER_LINE), Some(950));
        assert_eq!(bound.take(start + PER_LINE), None);
        assert_eq!(bound.take(start + PER_LINE * 100), Some(1));
    }
}
