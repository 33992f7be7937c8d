//! What a miner needs around its devices: a hotkey, ports, an address, a container engine, room on the disk.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use super::report::{Line, Status, gib};
use crate::chain::serving::{AddressPolicy, Refusal, announceable};
use crate::hardware::Specs;
use crate::ids::Hotkey;
use crate::launch::DevnetKey;
use crate::settings::Settings;
use crate::sim::keys::{DevnetKeys, SEED_FILE};
use crate::telemetry::error_chain;
use crate::wallet::password::Sources;
use crate::wallet::unlock::{self, UnlockError};

/// Room that images and containers of renters need at least, in bytes.
const LEAST_DISK: u64 = 10 << 30;

/// The hotkey, and the line about it. Nobody is asked for a password. `named`: whether the settings name a wallet, or only
/// the shipped ones do.
pub(in crate::launch) fn hotkey(
    settings: &Settings,
    devnet: Option<&DevnetKey>,
    named: bool,
) -> (Option<Hotkey>, Line) {
    if let Some(DevnetKey { dir, number }) = devnet {
        // Loading would make a seed where there is none.
        if !dir.join(SEED_FILE).is_file() {
            let line = Line::ok("hotkey", format!("no devnet's seed in {}", dir.display()));
            return (None, line.needs(Status::Fail, "start compute-devnet once, or name its directory"));
        }
        return match DevnetKeys::load(dir).map(|keys| keys.miner(*number).hotkey()) {
            Ok(hotkey) => (Some(hotkey), Line::ok("hotkey", hotkey.to_string()).against("a devnet's key")),
            Err(error) => {
                (None, Line::ok("hotkey", error_chain(&error)).needs(Status::Fail, "check the devnet's directory"))
            }
        };
    }
    let file = settings.wallet.hotkey_file();
    let sources = Sources { terminal: false, ..Sources::of_process(settings.wallet.password_file.as_deref()) };
    match unlock::load(&file, &sources, |_, _| {}) {
        Ok(loaded) => {
            let hotkey = loaded.keypair.hotkey();
            let line = Line::ok("hotkey", hotkey.to_string()).against(file.display().to_string());
            match loaded.warnings.first() {
                Some(warning) => (Some(hotkey), line.needs(Status::Warn, warning.to_string())),
                None => (Some(hotkey), line),
            }
        }
        Err(error) => (None, locked(&error, &file, named)),
    }
}

fn locked(error: &UnlockError, file: &Path, named: bool) -> Line {
    let line = Line::ok("hotkey", error_chain(error));
    match error {
        UnlockError::Keyfile(missing) if missing.is_missing() && !named => Line::ok("hotkey", "none, proofs are for a key of zeros")
            .against(file.display().to_string())
            .needs(Status::Warn, "a node needs one: --wallet.name, --wallet.hotkey; compute-register wallet list shows those there are"),
        UnlockError::NoPassword { .. } => line.needs(
            Status::Warn,
            "it was not opened: this command asks nobody for a password. A node would ask, or take it from wallet.password_file",
        ),
        _ => line.needs(Status::Fail, "name another with --wallet.name and --wallet.hotkey, or put this one right"),
    }
}

/// The lines about the ports that the node listens on.
pub(super) fn ports(settings: &Settings) -> Vec<Line> {
    let axon = SocketAddr::new(settings.axon.ip, settings.axon.port);
    let metrics = SocketAddr::new(settings.metrics.ip, settings.metrics.port);
    [("axon port", axon, "--axon.port"), ("metrics port", metrics, "--metrics.port")]
        .map(|(check, address, flag)| port(check, address, flag, TcpListener::bind(address).map(drop)))
        .into()
}

fn port(check: &str, address: SocketAddr, flag: &str, bound: std::io::Result<()>) -> Line {
    let line = |found: String| Line::ok(check, found).against(address.to_string());
    match bound {
        Ok(()) => line("free".to_owned()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => line("in use".to_owned()).needs(
            Status::Fail,
            format!("if this machine's miner runs, end it first: it shares the devices with this test. Else choose another: {flag}"),
        ),
        Err(error) => line(error.to_string()).needs(Status::Fail, format!("choose another address: {flag} and its ip")),
    }
}

/// The line about the address that the chain would be told. `own`: the one that the system itself would send from, where the
/// node listens on all of them.
pub(in crate::launch) fn address(settings: &Settings, own: Option<IpAddr>) -> Line {
    let (axon, policy) = (&settings.axon, settings.address_policy());
    let given = axon.external_ip.or(Some(axon.ip).filter(|ip| !ip.is_unspecified()));
    announced(given, own, policy, !axon.ip_resolvers.is_empty())
}

fn announced(given: Option<IpAddr>, own: Option<IpAddr>, policy: AddressPolicy, resolvers: bool) -> Line {
    const CHECK: &str = "address";
    let judged = |ip: IpAddr| -> Result<(), Refusal> { announceable(ip, policy) };
    match (given, own) {
        (Some(ip), _) => match judged(ip) {
            Ok(()) => Line::ok(CHECK, ip.to_string()).against("as the settings say"),
            Err(refusal) => Line::ok(CHECK, ip.to_string()).against("as the settings say").needs(Status::Fail, refusal.text()),
        },
        (None, Some(ip)) => match judged(ip) {
            Ok(()) => Line::ok(CHECK, ip.to_string()).against("the network card's own"),
            Err(_) if resolvers => Line::ok(CHECK, ip.to_string()).against("the network card's own").needs(
                Status::Warn,
                "it does not reach outside; at the start axon.ip_resolvers are asked, or set axon.external_ip, and forward the port",
            ),
            Err(refusal) => Line::ok(CHECK, ip.to_string()).against("the network card's own").needs(Status::Fail, refusal.text()),
        },
        (None, None) => Line::ok(CHECK, "not known").needs(
            Status::Warn,
            "this machine has no route outside now: set axon.external_ip, or see to its network",
        ),
    }
}

/// The lines about container engine and disk. They cost no proof, so they are never failures.
pub(super) fn engine_and_disk(specs: &Specs) -> Vec<Line> {
    let docker = Line::ok("docker", specs.docker.to_string());
    let docker = match specs.docker.is_present() {
        true => docker,
        false => {
            docker.needs(Status::Warn, "rentals need it: install and start Docker, and let this user use its socket")
        }
    };
    let disk = match &specs.hard_disk {
        None => Line::ok("disk", "not measured").needs(Status::Warn, "the system does not tell the room on its disk"),
        Some(disk) => {
            let line = Line::ok("disk", format!("{} free of {}", gib(disk.free), gib(disk.total)));
            match disk.free < LEAST_DISK {
                true => line.needs(Status::Warn, "images and containers of renters need more: free some"),
                false => line,
            }
        }
    };
    vec![docker, disk]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Cli, Role, load};

    fn settings(home: &Path) -> Settings {
        let env = [("HOME".to_owned(), home.to_str().unwrap().to_owned())];
        load(Role::Miner, &Cli::default(), env).unwrap().settings
    }

    #[test]
    fn a_missing_hotkey_is_a_failure_only_where_somebody_named_it() {
        let home = tempfile::tempdir().unwrap();
        let settings = settings(home.path());
        let (key, line) = hotkey(&settings, None, false);
        assert_eq!((key, line.status), (None, Status::Warn));
        let (key, line) = hotkey(&settings, None, true);
        assert_eq!((key, line.status), (None, Status::Fail));
        assert!(line.found.contains("hotkeys/default"), "{line:?}");
        let nowhere = DevnetKey { dir: home.path().join("net"), number: 0 };
        assert_eq!(hotkey(&settings, Some(&nowhere), false).1.status, Status::Fail);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "looking makes nothing");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_flag() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let line = port("axon port", address, "--axon.port", TcpListener::bind(address).map(drop));
        assert_eq!((line.status, line.found.as_str()), (Status::Fail, "in use"));
        assert!(line.remedy.contains("--axon.port"));
        assert_eq!(port("axon port", address, "--axon.port", Ok(())).status, Status::Ok);
    }

    #[test]
    fn an_address_that_nobody_reaches_fails_unless_others_can_still_tell_a_better_one() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let (open, closed) = (AddressPolicy { allow_private: false }, AddressPolicy { allow_private: true });
        let status = |given, own, policy, resolvers| announced(given, own, policy, resolvers).status;
        assert_eq!(status(ip("8.8.4.4"), None, open, true), Status::Ok);
        assert_eq!(status(ip("127.0.0.1"), None, closed, true), Status::Fail);
        assert_eq!(status(ip("10.0.0.1"), None, open, true), Status::Fail);
        assert_eq!(status(None, ip("10.0.0.1"), closed, true), Status::Ok);
        assert_eq!(status(None, ip("10.0.0.1"), open, true), Status::Warn);
        assert_eq!(status(None, ip("10.0.0.1"), open, false), Status::Fail);
        assert_eq!(status(None, None, open, true), Status::Warn);
    }
}
