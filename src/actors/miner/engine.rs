//! Which container engine a miner works with, from the settings.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ids::Hotkey;
use crate::lease::ContainerEngine;
use crate::lease::engine::docker::images::{ImagePolicy, Reference};
use crate::lease::engine::docker::share::SharePolicy;
use crate::lease::engine::docker::{DockerEngine, DockerOptions, PullLimits};
use crate::lease::engine::simulated::SimulatedEngine;
use crate::settings::Settings;

/// Where a Docker Engine listens that nobody moved.
const USUAL_SOCKET: &str = "/var/run/docker.sock";
/// The file of the lock that all engines of this user share, in the directory of the nodes' locks.
const LOCK: &str = "container-engine.lock";
/// Where the volumes of a miner's leases are, in its directory.
const VOLUMES: &str = "volumes";

/// What a miner with this key works with. `axon` is the address it listens on, `data_dir` the node's own directory, `file` where
/// a simulated engine keeps its containers, `runtime` what a real engine's own tasks run on.
pub fn engine(
    settings: &Settings,
    hotkey: Hotkey,
    axon: IpAddr,
    data_dir: &Path,
    file: PathBuf,
    runtime: &tokio::runtime::Handle,
) -> Arc<dyn ContainerEngine> {
    if !is_docker(settings) {
        return Arc::new(SimulatedEngine::new(file));
    }
    let options = docker_options(settings, hotkey, axon, data_dir);
    if !options.sshd.is_file() {
        tracing::error!(
            path = %options.sshd.display(),
            "there is no SSH server for containers, so nothing can be rented; install compute-sshd or set docker.sshd"
        );
    }
    DockerEngine::start(options, runtime)
}

/// Whether containers are real.
pub fn is_docker(settings: &Settings) -> bool {
    settings.docker.engine.is_docker(&settings.subtensor.network)
}

/// The socket of the Docker Engine.
pub fn docker_socket(settings: &Settings) -> PathBuf {
    socket(settings.docker.socket.as_deref(), std::env::var("DOCKER_HOST").ok().as_deref())
}

fn socket(set: Option<&Path>, docker_host: Option<&str>) -> PathBuf {
    let of_docker = docker_host.and_then(|host| host.strip_prefix("unix://")).map(Path::new);
    set.or(of_docker).unwrap_or(Path::new(USUAL_SOCKET)).to_owned()
}

/// What a Docker Engine of this miner is told; `data_dir` is the node's own directory.
pub fn docker_options(settings: &Settings, hotkey: Hotkey, axon: IpAddr, data_dir: &Path) -> DockerOptions {
    // A devnet's miners have addresses of their own on this machine, and their renters too.
    let bind = if axon.is_loopback() { axon } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let images = ImagePolicy {
        named: settings.docker.images.iter().map(|(name, row)| (name.clone(), row.reference.clone())).collect(),
        default: settings.docker.default_image.clone(),
        allow: settings.docker.allow.clone(),
        require_digest: settings.docker.require_digest,
    };
    let original = original_image(settings);
    DockerOptions {
        miner: hotkey,
        socket: docker_socket(settings),
        lock: settings.node.lock_dir.join(LOCK),
        sshd: settings.docker.sshd.clone().unwrap_or_else(sshd),
        bind,
        ports: settings.docker.ssh_ports.unwrap_or(settings.miner.ssh_port.into()),
        ssh_ready: settings.docker.ssh_ready,
        runtime: settings.docker.runtime.clone(),
        subnets: settings.docker.subnets,
        share: SharePolicy {
            cpu: settings.docker.cpu_share,
            memory: settings.docker.memory_share,
            shm: settings.docker.shm_share,
            pids: settings.docker.pids,
        },
        // On a ledger nobody waits for an image that was not asked for.
        at_hand: at_hand(&images, original.as_deref(), settings.subtensor.network.is_ledger()),
        images,
        original_image: original,
        pulls: PullLimits {
            time: settings.docker.pull_timeout,
            size: settings.docker.max_image_gib << 30,
            wait: settings.docker.pull_wait,
        },
        volumes: data_dir.join(VOLUMES),
        disk: settings.docker.disk_gib << 30,
        disk_quota: settings.docker.disk_quota,
        egress: settings.docker.egress,
        state: data_dir.to_owned(),
    }
}

/// The image that callers of the original's protocol get, where there may be such callers. On a ledger there are none, unless an
/// image is named for them.
fn original_image(settings: &Settings) -> Option<String> {
    let image = &settings.leases.original_image;
    let served = settings.axon.accept_classic && !settings.leases.original_max_duration.is_zero();
    let expected = !settings.subtensor.network.is_ledger() || !image.is_empty();
    (served && expected).then(|| image.clone())
}

fn at_hand(images: &ImagePolicy, original: Option<&str>, default_only: bool) -> Vec<Reference> {
    let others = if default_only { Vec::new() } else { images.wanted() };
    let wanted =
        images.resolve("").into_iter().chain(original.and_then(|wish| images.resolve(wish).ok())).chain(others);
    wanted.fold(Vec::new(), |mut all, one| {
        if !all.contains(&one) {
            all.push(one);
        }
        all
    })
}

/// The SSH server of containers: beside this program, else where `scripts/sshd` builds it in a checkout.
fn sshd() -> PathBuf {
    const NAME: &str = "compute-sshd";
    let Ok(own) = std::env::current_exe() else { return PathBuf::from(NAME) };
    let beside = own.with_file_name(NAME);
    let built = own.ancestors().find_map(|dir| {
        let built = dir.join("sshd").join(NAME);
        (dir.ends_with("target") && built.is_file()).then_some(built)
    });
    if beside.is_file() { beside } else { built.unwrap_or(beside) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Policy;
    use crate::settings::{Cli, Role, load};

    fn settings(role: Role, keys: &[(&str, &str)]) -> Settings {
        let cli = keys.iter().fold(Cli::default(), |cli, (key, value)| cli.with_key(key, value));
        load(role, &cli, [("HOME".to_owned(), "/home/op".to_owned())]).unwrap().settings
    }

    #[test]
    fn miners_run_containers_in_docker_and_devnets_simulate_them_unless_told_otherwise() {
        assert!(is_docker(&settings(Role::Miner, &[])));
        assert!(!is_docker(&settings(Role::Devnet, &[])));
        assert!(is_docker(&settings(Role::Devnet, &[("docker.engine", "docker")])));
        assert!(!is_docker(&settings(Role::Miner, &[("docker.engine", "simulated")])));
    }

    #[test]
    fn a_miner_that_cannot_answer_a_renter_in_time_is_told_so_at_its_start() {
        let load = |role, keys: &[(&str, &str)]| {
            let cli = keys.iter().fold(Cli::default(), |cli, (key, value)| cli.with_key(key, value));
            load(role, &cli, [("HOME".to_owned(), "/home/op".to_owned())]).map(drop).map_err(|e| e.to_string())
        };
        let slow = load(Role::Miner, &[("docker.pull_wait", "30s")]).unwrap_err();
        assert!(slow.contains("leases.request_timeout") && slow.contains("docker.ssh_ready"), "{slow}");
        assert!(load(Role::Miner, &[("leases.request_timeout", "59s")]).is_err());
        assert_eq!(load(Role::Miner, &[("docker.pull_wait", "30s"), ("leases.request_timeout", "70s")]), Ok(()));
        assert_eq!(load(Role::Validator, &[("leases.request_timeout", "5s")]), Ok(()), "it makes no containers");
        assert_eq!(load(Role::Devnet, &[("leases.request_timeout", "5s")]), Ok(()), "nor do these");
        let options = options(&settings(Role::Miner, &[]), "0.0.0.0");
        assert!(options.longest_call() > options.longest_making(), "a call may wait for another before it");
    }

    #[test]
    fn the_socket_is_the_settings_then_dockers_own_variable_then_the_usual_one() {
        assert_eq!(socket(Some(Path::new("/a")), Some("unix:///b")), Path::new("/a"));
        assert_eq!(socket(None, Some("unix:///b")), Path::new("/b"));
        assert_eq!(socket(None, Some("tcp://127.0.0.1:2375")), Path::new(USUAL_SOCKET));
        assert_eq!(socket(None, None), Path::new(USUAL_SOCKET));
    }

    fn options(settings: &Settings, axon: &str) -> DockerOptions {
        docker_options(settings, Hotkey([1; 32]), axon.parse().unwrap(), Path::new("/data/miner-7"))
    }

    #[test]
    fn a_lease_has_its_disk_by_its_devices_in_the_miners_own_directory() {
        let shipped = options(&settings(Role::Miner, &[]), "0.0.0.0");
        assert_eq!((shipped.disk, shipped.volumes), (50 << 30, PathBuf::from("/data/miner-7/volumes")));
        assert_eq!((shipped.disk_quota, shipped.egress), (Policy::BestEffort, Policy::BestEffort));
        let keys = [("docker.disk_quota", "enforce"), ("docker.egress", "off"), ("docker.disk_gib", "7")];
        let told = options(&settings(Role::Miner, &keys), "0.0.0.0");
        assert_eq!((told.disk, told.disk_quota, told.egress), (7 << 30, Policy::Enforce, Policy::Off));
    }

    #[test]
    fn without_a_range_the_one_port_is_that_of_the_original() {
        let of = |keys: &[(&str, &str)]| options(&settings(Role::Miner, keys), "0.0.0.0").ports.to_string();
        assert_eq!(of(&[]), "4444");
        assert_eq!(of(&[("miner.ssh_port", "5000")]), "5000");
        assert_eq!(of(&[("docker.ssh_ports", "6000-6010")]), "6000-6010");
    }

    #[test]
    fn the_image_of_the_originals_callers_is_at_hand_and_tried_where_there_may_be_such_callers() {
        let named = [("leases.original_image", "debian")];
        let devnet = options(&settings(Role::Devnet, &named), "127.0.1.7");
        let debian = devnet.images.resolve("debian").unwrap();
        assert_eq!((devnet.original_image.as_deref(), devnet.at_hand.last()), (Some("debian"), Some(&debian)));
        let miner = options(&settings(Role::Miner, &named), "0.0.0.0");
        assert_eq!((miner.at_hand.len(), &miner.at_hand[1]), (2, &debian), "no image twice");
        for none in [("axon.accept_classic", "false"), ("leases.original_max_duration", "0s")] {
            let none = options(&settings(Role::Miner, &[named[0], none]), "0.0.0.0");
            assert_eq!(none.original_image, None, "they get no image");
        }
    }

    #[test]
    fn the_shipped_images_can_be_had_and_the_default_is_at_hand_first() {
        let miner = options(&settings(Role::Miner, &[]), "0.0.0.0");
        assert_eq!(miner.at_hand.len(), 2);
        assert_eq!(miner.at_hand[0], miner.images.resolve("").unwrap());
        assert_eq!(miner.original_image.as_deref(), Some(""));
        let devnet = options(&settings(Role::Devnet, &[]), "127.0.1.7");
        assert_eq!(devnet.original_image, None, "nobody of the original's calls a devnet");
        assert_eq!(devnet.at_hand.len(), 1);
        assert_eq!(devnet.bind.to_string(), "127.0.1.7", "a devnet's containers are seen on this machine only");
    }
}
