//! The rules as a table of nftables.

use std::net::IpAddr;

use super::{Bridge, Inspection, LIMIT, rules};
use crate::host::command::{CommandError, run};

fn table(short: &str) -> String {
    format!("compute_subnet_{short}")
}

/// Whether the rules would be taken, by the program and by the kernel: they are checked, not written.
pub(super) async fn works(short: &str, resolvers: &[IpAddr]) -> Result<(), CommandError> {
    let lease = Bridge(format!("cs{short}"));
    run("nft", &["-c", "-f", "-"], &rules::nft(&table(short), &[lease], resolvers), LIMIT).await.map(drop)
}

/// Replaces the table in one transaction; without a bridge it is deleted.
pub(super) async fn replace(short: &str, bridges: &[Bridge], resolvers: &[IpAddr]) -> Result<(), CommandError> {
    let table = table(short);
    let script = match bridges {
        [] => format!("table inet {table}\ndelete table inet {table}\n"),
        some => rules::nft(&table, some, resolvers),
    };
    run("nft", &["-f", "-"], &script, LIMIT).await.map(drop)
}

pub(super) async fn read(short: &str, resolvers: &[IpAddr]) -> Result<Inspection, CommandError> {
    match run("nft", &["list", "table", "inet", &table(short)], "", LIMIT).await {
        Ok(text) => Ok(parse(&text, resolvers)),
        Err(CommandError::Failed { said, .. }) if said.contains("No such file or directory") => {
            Ok(parse("", resolvers))
        }
        Err(error) => Err(error),
    }
}

/// What a listing of the table says. Rules are known by their comments, which nobody but us writes.
fn parse(listing: &str, resolvers: &[IpAddr]) -> Inspection {
    let bridges = listing.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
    let mut bridges: Vec<Bridge> = bridges
        .map(|(inside, _)| inside.split(',').filter_map(|one| one.trim().trim_matches('"').parse().ok()).collect())
        .unwrap_or_default();
    bridges.sort();
    let parts = ["hook forward", "iifname @leases jump outward", "hook input", "iifname @leases jump inward"];
    let parts = parts.into_iter().filter(|part| !listing.contains(part)).map(str::to_owned);
    let comments = rules::comments(resolvers).into_iter();
    let missing =
        parts.chain(comments.filter(|comment| !listing.contains(&format!("comment \"{comment}\"")))).collect();
    Inspection { bridges, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"table inet compute_subnet_0a1b2c3d {
	set leases {
		type ifname
		elements = { "cs0a0b0c0d",
			     "cs00000001" }
	}

	chain outward {
		ct direction reply accept comment "outward: answers to callers"
		oifname @leases reject with icmpx admin-prohibited comment "outward: between leases"
		ip daddr { 0.0.0.0/8, 10.0.0.0/8 } reject with icmpx admin-prohibited comment "outward: closed networks"
		ip6 daddr { fc00::/7 } reject with icmpx admin-prohibited comment "outward: closed networks v6"
		tcp dport { 25, 465, 587 } reject with tcp reset comment "outward: mail"
	}

	chain inward {
		ct direction reply accept comment "inward: answers to callers"
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept comment "inward: neighbours"
		reject with icmpx admin-prohibited comment "inward: the host"
	}

	chain forward {
		type filter hook forward priority -10; policy accept;
		iifname @leases jump outward
	}

	chain input {
		type filter hook input priority -10; policy accept;
		iifname @leases jump inward
	}
}
"#;

    #[test]
    fn a_listing_is_read_back_with_what_is_missing_in_it() {
        let found = parse(LISTING, &[]);
        let names: Vec<&str> = found.bridges.iter().map(Bridge::name).collect();
        assert_eq!((names, found.missing.len()), (vec!["cs00000001", "cs0a0b0c0d"], 0));
        let dns = ["10.0.0.2".parse().unwrap()];
        assert_eq!(parse(LISTING, &dns).missing, ["outward: dns to the resolvers", "inward: dns to the resolvers"]);
        let flushed = LISTING.replace("iifname @leases jump inward", "");
        assert_eq!(parse(&flushed, &[]).missing, ["iifname @leases jump inward"]);
        let empty = parse("", &[]);
        assert!(empty.bridges.is_empty() && empty.missing.len() == 12, "{empty:?}");
    }
}
