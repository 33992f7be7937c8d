//! The addresses of leases' networks: each lease has a /28 of its own out of one block. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::ids::LeaseId;

/// The length of one lease's network: the bridge, one container, and room to spare.
const OF_A_LEASE: u8 = 28;

/// A block of IPv4 addresses, `10.213.0.0/16`, at least as large as one lease's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressBlock {
    first: u32,
    prefix: u8,
}

impl FromStr for AddressBlock {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a block of IPv4 addresses; write for example 10.213.0.0/16");
        let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=OF_A_LEASE).contains(&prefix) {
            return Err(format!("the block {text} must be between /8 and /{OF_A_LEASE}"));
        }
        let first = u32::from(address);
        if first & (u32::MAX >> prefix) != 0 {
            let begins = Ipv4Addr::from(first & !(u32::MAX >> prefix));
            return Err(format!("{text} does not begin a block; {begins}/{prefix} does"));
        }
        Ok(AddressBlock { first, prefix })
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl AddressBlock {
    /// Networks of leases in it.
    pub fn networks(&self) -> u32 {
        1 << (OF_A_LEASE - self.prefix)
    }

    /// The network to try for a lease; another one with each attempt, all of the block before the first again.
    pub fn network(&self, lease: LeaseId, attempt: u32) -> String {
        let [.., a, b, c, d] = lease.0;
        let number = u32::from_be_bytes([a, b, c, d]).wrapping_add(attempt) % self.networks();
        let first = self.first + (number << (32 - OF_A_LEASE));
        format!("{}/{OF_A_LEASE}", Ipv4Addr::from(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn block(text: &str) -> Result<AddressBlock, String> {
        text.parse()
    }

    #[test]
    fn the_attempts_of_a_lease_go_through_the_whole_block_and_stay_inside() {
        let block = block("10.213.4.0/24").unwrap();
        let tried: BTreeSet<String> = (0..16).map(|attempt| block.network(LeaseId([0xfe; 16]), attempt)).collect();
        assert_eq!((block.networks(), tried.len()), (16, 16));
        assert!(tried.iter().all(|network| network.starts_with("10.213.4.") && network.ends_with("/28")));
        assert!(tried.contains("10.213.4.240/28"));
    }

    #[test]
    fn a_block_reads_back_what_it_prints_and_says_what_is_wrong() {
        assert_eq!(block("10.213.0.0/16").unwrap().to_string(), "10.213.0.0/16");
        assert!(block("10.213.0.1/16").unwrap_err().contains("10.213.0.0/16 does"));
        for wrong in ["", "10.213.0.0", "10.213/16", "::/64", "10.213.0.0/29", "0.0.0.0/0", "10.0.0.0/x"] {
            assert!(block(wrong).is_err(), "{wrong}");
        }
    }
}
