//! The rules as chains of iptables, for machines without nftables.

use std::net::IpAddr;
use std::path::Path;

use super::rules::{self, Chains, Family};
use super::{Bridge, Inspection, LIMIT};
use crate::host::command::{CommandError, run};

/// How long a program waits for another that holds the tables, in seconds.
const WAIT: &str = "5";
/// Docker's chain for the operator's rules: it comes before its own, and Docker never empties it.
const DOCKER_USER: &str = "DOCKER-USER";

/// Whether rules can be read here; `true` if those of IPv6 are needed too.
pub(super) async fn works() -> Result<bool, CommandError> {
    run("iptables", &["-w", WAIT, "-S", "FORWARD"], "", LIMIT).await?;
    let v6 = Path::new("/proc/net/if_inet6").exists();
    if v6 {
        run("ip6tables", &["-w", WAIT, "-S", "FORWARD"], "", LIMIT).await?;
    }
    Ok(v6)
}

fn families(v6: bool) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(move |family| v6 || *family == Family::V4)
}

/// The built-in chain, or Docker's, that leads to ours.
async fn parents(family: Family) -> Result<[&'static str; 2], CommandError> {
    match run(family.program(), &["-w", WAIT, "-S", DOCKER_USER], "", LIMIT).await {
        Ok(_) => Ok([DOCKER_USER, "INPUT"]),
        Err(CommandError::Failed { .. }) => Ok(["FORWARD", "INPUT"]),
        Err(error) => Err(error),
    }
}

pub(super) async fn replace(
    short: &str,
    bridges: &[Bridge],
    resolvers: &[IpAddr],
    v6: bool,
) -> Result<(), CommandError> {
    let chains = Chains::of(short);
    for family in families(v6) {
        match bridges {
            [] => remove(&chains, family).await?,
            some => write(&chains, family, some, resolvers).await?,
        }
    }
    Ok(())
}

async fn write(chains: &Chains, family: Family, bridges: &[Bridge], resolvers: &[IpAddr]) -> Result<(), CommandError> {
    let script = rules::iptables(chains, family, bridges, resolvers);
    run(family.restore(), &["--noflush", "-w", WAIT], &script, LIMIT).await?;
    for (parent, chain) in parents(family).await?.into_iter().zip([&chains.forward, &chains.input]) {
        let program = family.program();
        match run(program, &["-w", WAIT, "-C", parent, "-j", chain], "", LIMIT).await {
            Ok(_) => {}
            Err(CommandError::Failed { .. }) => {
                run(program, &["-w", WAIT, "-I", parent, "-j", chain], "", LIMIT).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn remove(chains: &Chains, family: Family) -> Result<(), CommandError> {
    let program = family.program();
    let listing = run(program, &["-w", WAIT, "-S"], "", LIMIT).await?;
    for rule in listing.lines() {
        let words: Vec<&str> = rule.split_whitespace().collect();
        if let ["-A", parent, "-j", chain] = words[..]
            && (chain == chains.forward || chain == chains.input)
        {
            run(program, &["-w", WAIT, "-D", parent, "-j", chain], "", LIMIT).await?;
        }
    }
    let there = |chain: &&str| listing.lines().any(|line| line == format!("-N {chain}"));
    let ours: Vec<&str> = chains.all().into_iter().filter(there).collect();
    for (action, chain) in ours.iter().map(|chain| ("-F", chain)).chain(ours.iter().map(|chain| ("-X", chain))) {
        run(program, &["-w", WAIT, action, chain], "", LIMIT).await?;
    }
    Ok(())
}

pub(super) async fn read(short: &str, resolvers: &[IpAddr], v6: bool) -> Result<Inspection, CommandError> {
    let chains = Chains::of(short);
    let mut all = Inspection::default();
    for family in families(v6) {
        let parents = parents(family).await?;
        let listing = run(family.program(), &["-w", WAIT, "-S"], "", LIMIT).await?;
        let Inspection { bridges, missing } = parse(&listing, &chains, family, parents, resolvers);
        all.missing.extend(missing.into_iter().map(|part| format!("{}: {part}", family.program())));
        match family {
            Family::V4 => all.bridges = bridges,
            Family::V6 => all.bridges.retain(|bridge| bridges.contains(bridge)),
        }
    }
    Ok(all)
}

/// What a listing of all chains says of ours.
fn parse(listing: &str, chains: &Chains, family: Family, parents: [&str; 2], resolvers: &[IpAddr]) -> Inspection {
    let lines: Vec<&str> = listing.lines().map(str::trim).collect();
    let has = |line: &str| lines.contains(&line);
    let jumps = |from: &str, to: &str| -> Vec<Bridge> {
        let between = |line: &&str| -> Option<Bridge> {
            line.strip_prefix(&format!("-A {from} -i "))?.strip_suffix(&format!(" -j {to}"))?.parse().ok()
        };
        lines.iter().filter_map(between).collect()
    };
    let inward = jumps(&chains.input, &chains.inward);
    let mut bridges = jumps(&chains.forward, &chains.outward);
    bridges.retain(|bridge| inward.contains(bridge));
    bridges.sort();
    let hooks = parents.into_iter().zip([&chains.forward, &chains.input]);
    let hooks = hooks.map(|(parent, chain)| format!("-A {parent} -j {chain}")).filter(|hook| !has(hook));
    let ours = |line: &&&str| [&chains.outward, &chains.inward].iter().any(|c| line.starts_with(&format!("-A {c} ")));
    let rules: Vec<&str> = lines.iter().filter(ours).copied().collect();
    let is_there = |purpose: &&str| {
        let (quoted, bare) = (format!("--comment \"{purpose}\""), format!("--comment {purpose} "));
        rules.iter().any(|rule| rule.contains(&quoted) || rule.contains(&bare))
    };
    let comments = family.purposes(resolvers).filter(|purpose| !is_there(purpose)).map(str::to_owned);
    Inspection { bridges, missing: hooks.chain(comments).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_back_with_what_is_missing_in_it() {
        let chains = Chains::of("0a1b2c3d");
        let bridges = ["cs00000001".parse().unwrap(), "cs0a0b0c0d".parse().unwrap()];
        let script = rules::iptables(&chains, Family::V4, &bridges, &[]);
        let hooks = "-A DOCKER-USER -j compute-0a1b2c3d-forward\n-A INPUT -j compute-0a1b2c3d-input\n";
        let listing = format!("-P INPUT ACCEPT\n{hooks}{script}");
        let read = |text: &str| parse(text, &chains, Family::V4, [DOCKER_USER, "INPUT"], &[]);
        assert_eq!(read(&listing), Inspection { bridges: bridges.to_vec(), missing: vec![] });
        let unhooked = listing.replace("-A DOCKER-USER -j compute-0a1b2c3d-forward\n", "");
        assert_eq!(read(&unhooked).missing, ["-A DOCKER-USER -j compute-0a1b2c3d-forward"]);
        let half = listing.replace("-A compute-0a1b2c3d-input -i cs00000001 -j compute-0a1b2c3d-inward", "");
        assert_eq!(read(&half).bridges, [bridges[1].clone()], "a bridge with half of its rules has none");
        let elsewhere = parse(&listing, &chains, Family::V4, ["FORWARD", "INPUT"], &[]);
        assert_eq!(elsewhere.missing, ["-A FORWARD -j compute-0a1b2c3d-forward"]);
        assert_eq!(read("").missing.len(), 7, "two hooks, five purposes: {:?}", read(""));
    }
}
