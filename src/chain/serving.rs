//! What may be told the chain of our endpoints, and when. Pure.
//!
//! The chain itself refuses only 127.0.0.1, ::1 and all ones (and 0 for metrics). Everything else it takes, also what no
//! peer can reach: [`announceable`] refuses that here, with what to do. [`blocks_to_wait`] keeps within the subnet's
//! `ServingRateLimit`, which counts axon and metrics apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::BlockNumber;

/// Which addresses may be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Also those that only reach this machine or this site: a devnet, a subnet within one network.
    pub allow_private: bool,
}

/// Why an address is not announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 0.0.0.0 or ::, which names no machine.
    Unspecified,
    /// This machine itself.
    Loopback,
    /// A private network (RFC 1918, fc00::/7).
    Private,
    /// One link only (169.254.0.0/16, fe80::/10).
    LinkLocal,
    /// Behind a provider's translation (RFC 6598, 100.64.0.0/10).
    Shared,
    /// For examples and measurements, routed nowhere.
    Documentation,
    /// A group, not a machine.
    Multicast,
    /// Reserved, broadcast, or this network.
    Reserved,
}

impl Refusal {
    /// What the address is, and what to do.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Unspecified => {
                "it names no machine: set axon.external_ip to the address that others reach, or axon.ip_resolvers to find it"
            }
            Refusal::Loopback => {
                "it reaches this machine only: set axon.external_ip to the address that others reach, or \
                 axon.allow_private where all peers run here"
            }
            Refusal::Private | Refusal::LinkLocal => {
                "it reaches this site only: set axon.external_ip to the router's public address, with the port forwarded, \
                 or axon.allow_private where all peers are within"
            }
            Refusal::Shared => {
                "it is behind the provider's address translation, which nobody outside can pass: ask the provider for a \
                 public address"
            }
            Refusal::Documentation => "it is for examples and routed nowhere: set axon.external_ip to your own address",
            Refusal::Multicast => {
                "it names a group, not a machine: set axon.external_ip to the address that others reach"
            }
            Refusal::Reserved => {
                "it is reserved and routed nowhere: set axon.external_ip to the address that others reach"
            }
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}

/// Whether peers can be expected to reach this address. An IPv4 address written as IPv6 is judged as what it is.
///
/// # Errors
/// Why not.
pub fn announceable(ip: IpAddr, policy: AddressPolicy) -> Result<(), Refusal> {
    let refusal = match ip.to_canonical() {
        // The chain refuses exactly these loopback addresses: no policy makes them useful.
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => return Err(Refusal::Loopback),
        IpAddr::V4(ip) => of_v4(ip),
        IpAddr::V6(ip) => of_v6(ip),
    };
    match refusal {
        Some(Refusal::Loopback | Refusal::Private | Refusal::LinkLocal | Refusal::Shared) if policy.allow_private => {
            Ok(())
        }
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

fn of_v4(ip: Ipv4Addr) -> Option<Refusal> {
    Some(match ip.octets() {
        [0, 0, 0, 0] => Refusal::Unspecified,
        [127, ..] => Refusal::Loopback,
        [10, ..] | [192, 168, ..] => Refusal::Private,
        [172, b, ..] if b & 0xf0 == 16 => Refusal::Private,
        [169, 254, ..] => Refusal::LinkLocal,
        [100, b, ..] if b & 0xc0 == 64 => Refusal::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => Refusal::Documentation,
        [224..=239, ..] => Refusal::Multicast,
        [0, ..] | [240..=255, ..] | [192, 0, 0, _] => Refusal::Reserved,
        _ => return None,
    })
}

fn of_v6(ip: Ipv6Addr) -> Option<Refusal> {
    let s = ip.segments();
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Refusal::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Refusal::Loopback,
        [first, ..] if first & 0xfe00 == 0xfc00 => Refusal::Private,
        [first, ..] if first & 0xffc0 == 0xfe80 => Refusal::LinkLocal,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Refusal::Documentation,
        [0xff00..=0xffff, ..] => Refusal::Multicast,
        // Only 2000::/3 is given out.
        [first, ..] if first & 0xe000 != 0x2000 => Refusal::Reserved,
        _ => return None,
    })
}

/// Blocks to wait from `head` on before the chain takes another serving of a kind that it shows as served in block
/// `stored`; 0 when it may be sent now.
pub fn blocks_to_wait(head: BlockNumber, stored: Option<BlockNumber>, limit: u64) -> u64 {
    stored.map_or(0, |stored| stored.saturating_add(limit).saturating_sub(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: AddressPolicy = AddressPolicy { allow_private: false };
    const LENIENT: AddressPolicy = AddressPolicy { allow_private: true };

    fn judged(ip: &str, policy: AddressPolicy) -> Result<(), Refusal> {
        announceable(ip.parse().unwrap(), policy)
    }

    #[test]
    fn what_nobody_outside_can_reach_is_refused_with_what_to_do() {
        let table = [
            ("0.0.0.0", Refusal::Unspecified),
            ("::", Refusal::Unspecified),
            ("127.0.0.1", Refusal::Loopback),
            ("127.3.2.1", Refusal::Loopback),
            ("::1", Refusal::Loopback),
            ("10.0.0.1", Refusal::Private),
            ("172.16.0.1", Refusal::Private),
            ("172.31.255.255", Refusal::Private),
            ("192.168.1.1", Refusal::Private),
            ("fd00::1", Refusal::Private),
            ("169.254.1.1", Refusal::LinkLocal),
            ("fe80::1", Refusal::LinkLocal),
            ("100.64.0.1", Refusal::Shared),
            ("100.127.255.255", Refusal::Shared),
            ("192.0.2.1", Refusal::Documentation),
            ("203.0.113.5", Refusal::Documentation),
            ("198.19.0.1", Refusal::Documentation),
            ("2001:db8::1", Refusal::Documentation),
            ("3fff:123::1", Refusal::Documentation),
            ("224.0.0.1", Refusal::Multicast),
            ("ff02::1", Refusal::Multicast),
            ("255.255.255.255", Refusal::Reserved),
            ("240.0.0.1", Refusal::Reserved),
            ("0.1.2.3", Refusal::Reserved),
            ("64:ff9b::1", Refusal::Reserved),
            ("::ffff:10.0.0.1", Refusal::Private),
        ];
        for (ip, refusal) in table {
            assert_eq!(judged(ip, STRICT), Err(refusal), "{ip}");
            assert!(refusal.text().contains("set axon.external_ip") || refusal == Refusal::Shared);
        }
    }

    #[test]
    fn public_addresses_of_both_families_pass() {
        for ip in
            ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert_eq!(judged(ip, STRICT), Ok(()), "{ip}");
        }
    }

    #[test]
    fn a_site_of_its_own_may_use_its_own_addresses_but_not_those_that_the_chain_refuses() {
        for ip in ["127.0.1.1", "10.0.0.1", "fd00::1", "169.254.1.1", "100.64.0.1"] {
            assert_eq!(judged(ip, LENIENT), Ok(()), "{ip}");
        }
        for ip in ["127.0.0.1", "::1", "0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "203.0.113.1"] {
            assert!(judged(ip, LENIENT).is_err(), "{ip}");
        }
    }

    #[test]
    fn the_chain_is_not_asked_before_its_rate_limit_is_over() {
        assert_eq!(blocks_to_wait(100, None, 50), 0);
        assert_eq!(blocks_to_wait(100, Some(60), 50), 10);
        assert_eq!(blocks_to_wait(109, Some(60), 50), 1);
        assert_eq!(blocks_to_wait(110, Some(60), 50), 0, "the chain takes it at exactly the limit");
        assert_eq!(blocks_to_wait(100, Some(100), 0), 0);
        assert_eq!(blocks_to_wait(5, Some(u64::MAX), 50), u64::MAX - 5, "a block that cannot be does not overflow");
    }
}
