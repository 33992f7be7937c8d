//! The rules themselves, as text for `nft` and for `iptables-restore`. Pure: what a tenant may reach is decided here.
//!
//! Every packet of a connection that a tenant opened is judged by its destination, so that connections that were there before
//! the rules are judged too. Answers to those who called the tenant (its SSH port, the host's own probe) pass by their
//! direction. What is not named here passes: the public internet.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::Bridge;

/// Networks of IPv4 that no tenant reaches, and why.
pub(crate) const CLOSED_V4: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT, overlay networks, Alibaba's metadata"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "Azure's host"),
    ("169.254.0.0/16", "link-local: metadata of AWS, Google, Azure and others"),
    ("172.16.0.0/12", "private; Docker's own networks"),
    ("192.0.0.0/24", "special purpose: Oracle's metadata"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "measuring"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved, broadcast"),
];
/// Networks of IPv6 that no tenant reaches, and why.
pub(crate) const CLOSED_V6: &[(&str, &str)] = &[
    ("::/96", "unspecified, loopback, IPv4-compatible"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("64:ff9b::/96", "NAT64, by which private IPv4 is reached"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("2002::/16", "6to4, by which private IPv4 is reached"),
    ("fc00::/7", "private, metadata of AWS"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];
/// Ports of mail servers: a rented machine that sends mail ends on block lists with its host's address.
pub(crate) const MAIL_PORTS: [u16; 3] = [25, 465, 587];

/// The chain that judges what tenants send through the host, and the one for what they send to it.
const OUTWARD: &str = "outward";
const INWARD: &str = "inward";

const ANSWERS: &str = "answers to callers";
const DNS: &str = "dns to the resolvers";
const BETWEEN: &str = "between leases";
const CLOSED: &str = "closed networks";
const CLOSED_6: &str = "closed networks v6";
const MAIL: &str = "mail";
const NEIGHBOURS: &str = "neighbours";
const HOST: &str = "the host";

/// What rules are for; the words are written into the rules themselves, by which they are known again.
const PURPOSES: [&str; 8] = [ANSWERS, DNS, BETWEEN, CLOSED, CLOSED_6, MAIL, NEIGHBOURS, HOST];

/// The comments of the rules that the table of `nft` has with these resolvers: chain and purpose.
pub(crate) fn comments(resolvers: &[IpAddr]) -> Vec<String> {
    let in_chain = |chain: &'static str, purpose: &str| match purpose {
        ANSWERS => true,
        DNS => !resolvers.is_empty(),
        NEIGHBOURS | HOST => chain == INWARD,
        _ => chain == OUTWARD,
    };
    let of = |chain| PURPOSES.into_iter().filter(move |p| in_chain(chain, p)).map(move |p| format!("{chain}: {p}"));
    of(OUTWARD).chain(of(INWARD)).collect()
}

fn split(resolvers: &[IpAddr]) -> (Vec<String>, Vec<String>) {
    let of = |v4: bool| resolvers.iter().filter(|ip| ip.is_ipv4() == v4).map(IpAddr::to_string).collect();
    (of(true), of(false))
}

fn joined(networks: &[(&str, &str)]) -> String {
    networks.iter().map(|(network, _)| *network).collect::<Vec<_>>().join(", ")
}

/// The script by which `nft` replaces the table of this name, in one transaction.
pub(crate) fn nft(table: &str, bridges: &[Bridge], resolvers: &[IpAddr]) -> String {
    let (v4, v6) = split(resolvers);
    let elements = match bridges {
        [] => String::new(),
        some => {
            let names: Vec<String> = some.iter().map(|bridge| format!("\"{bridge}\"")).collect();
            format!("\n    elements = {{ {} }}", names.join(", "))
        }
    };
    let dns = |chain: &str| {
        let mut out = String::new();
        for (family, addresses) in [("ip", &v4), ("ip6", &v6)] {
            if !addresses.is_empty() {
                // Writing to a String cannot fail, here and below.
                let _ = write!(
                    out,
                    "\n    {family} daddr {{ {} }} meta l4proto {{ tcp, udp }} th dport 53 accept comment \"{chain}: {DNS}\"",
                    addresses.join(", ")
                );
            }
        }
        out
    };
    let mail = MAIL_PORTS.map(|port| port.to_string()).join(", ");
    format!(
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
  set leases {{
    type ifname{elements}
  }}
  chain outward {{
    ct direction reply accept comment "outward: {ANSWERS}"
    oifname @leases reject with icmpx admin-prohibited comment "outward: {BETWEEN}"{outward_dns}
    ip daddr {{ {closed_v4} }} reject with icmpx admin-prohibited comment "outward: {CLOSED}"
    ip6 daddr {{ {closed_v6} }} reject with icmpx admin-prohibited comment "outward: {CLOSED_6}"
    tcp dport {{ {mail} }} reject with tcp reset comment "outward: {MAIL}"
  }}
  chain inward {{
    ct direction reply accept comment "inward: {ANSWERS}"
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept comment "inward: {NEIGHBOURS}"{inward_dns}
    reject with icmpx admin-prohibited comment "inward: {HOST}"
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname @leases jump outward
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname @leases jump inward
  }}
}}
"#,
        closed_v4 = joined(CLOSED_V4),
        closed_v6 = joined(CLOSED_V6),
        outward_dns = dns("outward"),
        inward_dns = dns("inward"),
    )
}

/// Which of the two families a script of `iptables-restore` is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Both.
    pub(crate) const ALL: [Family; 2] = [Family::V4, Family::V6];
    /// The program that shows and changes single rules.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }
    /// The program that replaces chains at once.
    pub(crate) fn restore(self) -> &'static str {
        match self {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        }
    }
    /// What its rules are for.
    pub(crate) fn purposes(self, resolvers: &[IpAddr]) -> impl Iterator<Item = &'static str> {
        let dns = resolvers.iter().any(|ip| ip.is_ipv4() == (self == Family::V4));
        PURPOSES.into_iter().filter(move |purpose| match *purpose {
            DNS => dns,
            CLOSED => self == Family::V4,
            CLOSED_6 | NEIGHBOURS => self == Family::V6,
            _ => true,
        })
    }
}

/// The names of the four chains of a table's name: from the built-in chains `forward` and `input`, and where those lead.
pub(crate) struct Chains {
    /// Reached from `DOCKER-USER` or `FORWARD`: tells tenants' packets from others.
    pub(crate) forward: String,
    /// Reached from `INPUT`.
    pub(crate) input: String,
    /// Judges what tenants send through the host.
    pub(crate) outward: String,
    /// Judges what tenants send to the host.
    pub(crate) inward: String,
}

impl Chains {
    /// Of a miner with this short name, of 8 characters; a chain's name has 28 at most.
    pub(crate) fn of(short: &str) -> Chains {
        let name = |what: &str| format!("compute-{short}-{what}");
        Chains { forward: name("forward"), input: name("input"), outward: name("outward"), inward: name("inward") }
    }
    /// All of them, those first that lead to others.
    pub(crate) fn all(&self) -> [&str; 4] {
        [&self.forward, &self.input, &self.outward, &self.inward]
    }
}

/// The script by which `iptables-restore --noflush` replaces the miner's chains, all at once.
pub(crate) fn iptables(chains: &Chains, family: Family, bridges: &[Bridge], resolvers: &[IpAddr]) -> String {
    let Chains { forward, input, outward, inward } = chains;
    let (unreachable, closed, purpose) = match family {
        Family::V4 => ("icmp-admin-prohibited", CLOSED_V4, CLOSED),
        Family::V6 => ("icmp6-adm-prohibited", CLOSED_V6, CLOSED_6),
    };
    let comment = |text: &str| format!("-m comment --comment \"{text}\"");
    let mut out = String::from("*filter\n");
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    chains.all().into_iter().for_each(|chain| line(format!(":{chain} - [0:0]")));
    for chain in [outward, inward] {
        line(format!("-A {chain} -m conntrack --ctdir REPLY {} -j RETURN", comment(ANSWERS)));
    }
    for bridge in bridges {
        line(format!("-A {outward} -o {bridge} {} -j REJECT --reject-with {unreachable}", comment(BETWEEN)));
    }
    if bridges.is_empty() {
        // So that the chains are known again as whole without a lease.
        line(format!("-A {outward} -o none+ {} -j RETURN", comment(BETWEEN)));
    }
    for resolver in resolvers.iter().filter(|ip| ip.is_ipv4() == (family == Family::V4)) {
        for (chain, protocol) in [(outward, "udp"), (outward, "tcp"), (inward, "udp"), (inward, "tcp")] {
            line(format!("-A {chain} -d {resolver} -p {protocol} --dport 53 {} -j RETURN", comment(DNS)));
        }
    }
    for (network, _) in closed {
        line(format!("-A {outward} -d {network} {} -j REJECT --reject-with {unreachable}", comment(purpose)));
    }
    for port in MAIL_PORTS {
        line(format!("-A {outward} -p tcp --dport {port} {} -j REJECT --reject-with tcp-reset", comment(MAIL)));
    }
    if family == Family::V6 {
        for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
            line(format!("-A {inward} -p ipv6-icmp --icmpv6-type {kind} {} -j RETURN", comment(NEIGHBOURS)));
        }
    }
    line(format!("-A {inward} {} -j REJECT --reject-with {unreachable}", comment(HOST)));
    for bridge in bridges {
        line(format!("-A {forward} -i {bridge} -j {outward}"));
        line(format!("-A {input} -i {bridge} -j {inward}"));
    }
    line("COMMIT".to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridges() -> Vec<Bridge> {
        ["cs00000001", "cs0a0b0c0d"].map(|name| name.parse().unwrap()).into()
    }

    #[test]
    fn the_table_of_nft_is_this() {
        let resolvers = ["10.0.0.2".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        insta::assert_snapshot!("nft", nft("compute_subnet_0a1b2c3d", &bridges(), &resolvers));
    }

    #[test]
    fn the_chains_of_iptables_are_these() {
        let resolvers = ["10.0.0.2".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        let chains = Chains::of("0a1b2c3d");
        assert!(chains.all().iter().all(|name| name.len() <= 28), "iptables takes 28 characters");
        insta::assert_snapshot!("iptables", iptables(&chains, Family::V4, &bridges(), &resolvers));
        insta::assert_snapshot!("ip6tables", iptables(&chains, Family::V6, &bridges(), &resolvers));
    }

    #[test]
    fn the_closed_networks_hold_every_private_address_and_no_public_one() {
        let inside = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            CLOSED_V4.iter().chain(CLOSED_V6).any(|(network, _)| contains(network, ip))
        };
        for closed in [
            "169.254.169.254",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "192.0.0.192",
            "255.255.255.255",
            "168.63.129.16",
            "fd00:ec2::254",
            "fe80::1",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ] {
            assert!(inside(closed), "{closed}");
        }
        for open in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.1.0.1",
            "168.63.129.17",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(!inside(open), "{open}");
        }
    }

    fn contains(network: &str, ip: IpAddr) -> bool {
        let (base, bits) = network.split_once('/').unwrap();
        let bits: u32 = bits.parse().unwrap();
        match (base.parse().unwrap(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                u32::from(base).checked_shr(32 - bits) == u32::from(ip).checked_shr(32 - bits)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(base) >> (128 - bits) == u128::from(ip) >> (128 - bits),
            _ => false,
        }
    }
}
