//! What the kernel tells of a process, as text: its control groups, and whether it has ended. Pure.

use std::fmt;
use std::str::FromStr;

/// A container, by the name that its engine gave it: 64 hex digits, which no other container ever has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl FromStr for ContainerId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let whole = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        whole.then(|| ContainerId(text.to_owned())).ok_or(())
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether whoever has this `/proc/PID/cgroup` is in the container's control group, or in one below it.
pub(super) fn is_in(cgroup: &str, id: &ContainerId) -> bool {
    groups(cgroup).any(|(_, path)| own_group(path, id).is_some())
}

/// The container's own group in the freezer of the first version of control groups, if it is in one that can be found from here.
pub(super) fn freezer<'a>(cgroup: &'a str, id: &ContainerId) -> Option<&'a str> {
    let is_freezer = |controllers: &str| controllers.split(',').any(|name| name == "freezer");
    let (_, path) = groups(cgroup).find(|(controllers, _)| is_freezer(controllers))?;
    own_group(path, id).filter(|path| path.starts_with('/') && path.split('/').all(|part| part != ".."))
}

/// Controllers and path of each hierarchy: `4:memory:/docker/ID` of the first version, `0::/docker/ID` of the second. The kernel takes
/// no line break into a group's name.
fn groups(cgroup: &str) -> impl Iterator<Item = (&str, &str)> {
    cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// This path up to the container's own group, if that is part of it.
fn own_group<'a>(path: &'a str, id: &ContainerId) -> Option<&'a str> {
    // Of a group that was removed, only whoever waits to be noticed by its parent is still told.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let mut end = 0;
    for part in path.split('/') {
        end += part.len();
        if is_named_after(part, id) {
            return path.get(..end);
        }
        end += 1;
    }
    None
}

/// `ID` where the engine makes the groups itself, `docker-ID.scope` where systemd does.
fn is_named_after(part: &str, id: &ContainerId) -> bool {
    let by_systemd = part.strip_prefix("docker-").and_then(|rest| rest.strip_suffix(".scope"));
    by_systemd.unwrap_or(part) == id.0
}

/// What is left of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs, or may run again.
    Runs,
    /// Its first thread has ended, and others run on.
    Headless,
    /// Nothing: it waits to be noticed by its parent, and holds nothing any more.
    Ended,
}

/// What is left of a process by its `/proc/PID/stat`. Where that cannot be read it counts as one that runs.
pub(super) fn life(stat: &str) -> Life {
    // Its name comes first, in brackets, and may hold anything; numbers follow.
    let Some((_, after_name)) = stat.rsplit_once(") ") else { return Life::Runs };
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next();
    let threads: Option<u32> = fields.nth(16).and_then(|count| count.parse().ok());
    match (state, threads) {
        (Some("Z" | "X"), Some(0 | 1)) => Life::Ended,
        (Some("Z" | "X"), _) => Life::Headless,
        _ => Life::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn id() -> ContainerId {
        ID.parse().unwrap()
    }

    #[test]
    fn an_id_is_64_hex_digits() {
        assert_eq!(id().to_string(), ID);
        for other in ["", "c1", &ID[1..], &format!("{ID}0"), &ID.to_uppercase(), &ID.replace('0', "/")] {
            assert_eq!(other.parse::<ContainerId>(), Err(()), "{other}");
        }
    }

    #[test]
    fn a_process_is_in_the_container_by_either_version_of_control_groups() {
        let first = format!("12:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        let one_of_them = format!("9:name=systemd:/\n6:freezer:/docker/{ID}\n");
        for text in [first, one_of_them, format!("0::/docker/{ID}\n")] {
            assert!(is_in(&text, &id()), "{text}");
        }
        for text in ["", "0::/\n", "0::/user.slice\n", "no line of ours", &format!("/docker/{ID}")] {
            assert!(!is_in(text, &id()), "{text}");
        }
    }

    #[test]
    fn so_it_is_by_systemds_names_below_another_parent_and_in_groups_that_the_tenant_made() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            format!("/tenants/{ID}"),
            format!("/docker/{ID}/init"),
            format!("/docker/{ID}/a:b/c d"),
            format!("/system.slice/docker-{ID}.scope/init.scope"),
            format!("/docker/{ID} (deleted)"),
        ] {
            assert!(is_in(&format!("0::{path}\n"), &id()), "{path}");
        }
    }

    #[test]
    fn a_miner_in_a_namespace_of_control_groups_finds_it_beside_itself() {
        assert!(is_in(&format!("0::/../{ID}\n"), &id()));
        assert!(is_in(&format!("0::/../../system.slice/docker-{ID}.scope\n"), &id()));
    }

    #[test]
    fn only_a_whole_name_counts() {
        for path in [
            format!("/docker/{ID}0"),
            format!("/docker/0{ID}"),
            format!("/docker/{}", &ID[..12]),
            format!("/docker/x-{ID}.scope"),
            format!("/docker-{ID}.scopes"),
            format!("/docker-{ID}"),
            format!("/docker/{ID}.scope"),
            format!("/docker/ {ID}"),
        ] {
            assert!(!is_in(&format!("0::{path}\n"), &id()), "{path}");
        }
    }

    #[test]
    fn a_frozen_container_is_thawed_as_a_whole_and_only_where_its_group_is() {
        let at =
            |path: &str| freezer(&format!("7:pids:/elsewhere\n6:freezer:{path}\n0::/\n"), &id()).map(str::to_owned);
        let own = format!("/docker/{ID}");
        assert_eq!(at(&own), Some(own.clone()));
        assert_eq!(at(&format!("{own}/made/by/the/tenant")), Some(own.clone()));
        assert_eq!(at(&format!("/../{ID}")), None, "it cannot be found from within a namespace");
        assert_eq!(at("/"), None);
        assert_eq!(freezer(&format!("0::{own}\n"), &id()), None, "the second version ends what is frozen");
    }

    #[test]
    fn whoever_waits_for_its_parent_has_ended_and_one_with_threads_left_has_not() {
        let stat = |name: &str, state: &str, threads: u32| {
            format!("42 ({name}) {state} 1 42 42 0 -1 4227084 0 0 0 0 0 0 0 0 20 0 {threads} 0 100 0 0\n")
        };
        assert_eq!(life(&stat("sleep", "S", 1)), Life::Runs);
        assert_eq!(life(&stat("sleep", "T", 9)), Life::Runs);
        assert_eq!(life(&stat("sleep", "Z", 1)), Life::Ended);
        assert_eq!(life(&stat("sleep", "X", 0)), Life::Ended);
        assert_eq!(life(&stat("sleep", "Z", 2)), Life::Headless);
        // A name that looks like the rest of the line.
        let hostile = stat(") Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0", "R", 1);
        assert_eq!(life(&hostile), Life::Runs);
        assert_eq!(life(""), Life::Runs);
    }
}
