//! The ports at which containers' SSH servers are published.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, TcpListener};
use std::str::FromStr;

/// One port, or a range of them, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        PortRange { first: port, last: port }
    }
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a port nor a range; write for example \"4444\" or \"4444-4463\"");
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = match text.split_once('-') {
            None => (port(text)?, port(text)?),
            Some((first, last)) => (port(first)?, port(last)?),
        };
        if first < 1025 || last < first {
            return Err(format!("{text:?}: a range goes upwards from 1025 at least"));
        }
        Ok(PortRange { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl PortRange {
    /// The ports, in order.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// The first port that is neither among the taken ones nor, as `is_free` finds, somebody else's.
    pub fn pick(&self, taken: &BTreeSet<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        self.ports().find(|port| !taken.contains(port) && is_free(*port))
    }
}

/// Whether a port could be listened at now. Does not wait.
pub(super) fn can_bind(at: IpAddr, port: u16) -> bool {
    TcpListener::bind((at, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_in_both_forms_and_reads_back_what_it_prints() {
        for text in ["4444", "4444-4463"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("4444-4446".parse::<PortRange>().unwrap().ports().collect::<Vec<_>>(), [4444, 4445, 4446]);
        for wrong in ["", "22", "4444-", "-4444", "5000-4000", "4444-70000", "a-b", "4444-4445-4446"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_port_that_nobody_has_is_taken() {
        let range: PortRange = "4444-4447".parse().unwrap();
        let taken = BTreeSet::from([4444, 4446]);
        assert_eq!(range.pick(&taken, |_| true), Some(4445));
        assert_eq!(range.pick(&taken, |port| port != 4445), Some(4447));
        assert_eq!(range.pick(&taken, |_| false), None);
        assert_eq!(range.pick(&(4444..=4447).collect(), |_| true), None);
    }

    #[test]
    fn a_port_that_somebody_listens_at_cannot_be_bound() {
        let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert!(!can_bind("127.0.0.1".parse().unwrap(), port));
        drop(holder);
        assert!(can_bind("127.0.0.1".parse().unwrap(), port));
    }
}
