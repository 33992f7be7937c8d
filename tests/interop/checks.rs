//! Counts what was checked against an SDK, and tells everything that failed rather than the first.

use std::fmt::Debug;

/// The checks of one test.
pub(crate) struct Checks {
    about: String,
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// `about` names the SDK and what is being done with it.
    pub(crate) fn new(about: &str) -> Self {
        Checks { about: about.to_owned(), passed: 0, failed: Vec::new() }
    }

    /// Fails the test at its end unless both are the same.
    pub(crate) fn same<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: T) {
        self.that(what, found == expected, &format!("found {found:?}, expected {expected:?}"));
    }

    /// Fails the test at its end unless this holds; `seen` says what was there.
    pub(crate) fn that(&mut self, what: &str, holds: bool, seen: &dyn Debug) {
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(format!("{what}: {seen:?}"));
        }
    }

    /// Says how many checks there were, and fails the test if one of them did.
    pub(crate) fn end(self) {
        println!("{}: {} checks, {} failed", self.about, self.passed + self.failed.len(), self.failed.len());
        assert!(self.failed.is_empty(), "{}:\n  {}", self.about, self.failed.join("\n  "));
    }
}
