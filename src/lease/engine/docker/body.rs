//! What the engine is asked to create: every limit and every right of a container in one place. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::share::Share;
use crate::ids::DeviceId;

/// The port of the SSH server inside the container.
pub(super) const SSH_PORT: &str = "22/tcp";

/// What the container's root may do as root, of what Docker would let it. `apt`, users, services and daemons of one's own
/// work with these:
/// - `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`, `SETFCAP`: packages are unpacked with owners, modes and file capabilities;
/// - `SETUID`, `SETGID`: `apt` fetches as `_apt`, `su` and services change their user;
/// - `KILL`: root ends processes of the container's other users;
/// - `NET_BIND_SERVICE`: services on ports below 1024, the SSH server's 22 among them;
/// - `SYS_CHROOT`: services that lock themselves in, OpenSSH's among them.
///
/// Left out of Docker's own list: `NET_RAW` (forged packets on the bridge), `MKNOD` (device files), `SETPCAP`, `AUDIT_WRITE`.
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
];

/// How the engine gives GPUs to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GpuAccess {
    /// By the `nvidia` driver of device requests, which the NVIDIA Container Toolkit brings.
    Driver,
    /// By the Container Device Interface.
    Cdi,
}

/// What a container is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan<'a> {
    /// The image, by its content's digest: what was looked at is what runs.
    pub(super) image: &'a str,
    /// Its labels.
    pub(super) labels: HashMap<String, String>,
    /// Its network, by name; made before it is started.
    pub(super) network: &'a str,
    /// Its name for itself.
    pub(super) hostname: String,
    /// Its devices.
    pub(super) devices: &'a [DeviceId],
    /// How GPUs get in.
    pub(super) gpus: GpuAccess,
    /// Its part of the machine.
    pub(super) share: Share,
    /// Where its SSH server is published.
    pub(super) bind: IpAddr,
    /// At which port.
    pub(super) port: u16,
    /// The runtime, where it is not the engine's own choice.
    pub(super) runtime: Option<&'a str>,
    /// Options of the storage driver.
    pub(super) storage: HashMap<String, String>,
    /// Files of the host that stand in for the engine's own, and where.
    pub(super) binds: &'a [(PathBuf, &'static str)],
}

/// The request.
pub(super) fn body(plan: Plan<'_>) -> ContainerCreateBody {
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let signed = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
    let all = plan.bind.is_unspecified();
    let host = HostConfig {
        device_requests: device_requests(plan.devices, plan.gpus),
        nano_cpus: signed(plan.share.nano_cpus),
        memory: signed(plan.share.memory),
        // The same number: no swap beside it, so the limit is one.
        memory_swap: signed(plan.share.memory),
        shm_size: signed(plan.share.shm),
        pids_limit: Some(i64::from(plan.share.pids)),
        cap_drop: texts(&["ALL"]),
        cap_add: texts(CAPABILITIES),
        // The engine's seccomp and AppArmor profiles stay as they are: nothing here turns them off.
        security_opt: texts(&["no-new-privileges"]),
        privileged: Some(false),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some(plan.network.to_owned()),
        port_bindings: Some(HashMap::from([(
            SSH_PORT.to_owned(),
            Some(vec![PortBinding {
                host_ip: (!all).then(|| plan.bind.to_string()),
                host_port: Some(plan.port.to_string()),
            }]),
        )])),
        // Reaps what the tenant's processes leave behind, and passes signals on to the SSH server.
        init: Some(true),
        // The engine starts it again after its own restart, after the machine's, and when a tenant ends everything inside; also
        // where we stopped it for a restart and did not come to the start. Who removes it takes the policy away first.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None }),
        // Whatever a tenant prints at its first process stays small.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "1m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        runtime: plan.runtime.map(str::to_owned),
        storage_opt: (!plan.storage.is_empty()).then_some(plan.storage),
        mounts: (!plan.binds.is_empty()).then(|| plan.binds.iter().map(bind).collect()),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        hostname: Some(plan.hostname),
        image: Some(plan.image.to_owned()),
        // What the image would run, and as whom, does not matter: the SSH server runs, as root.
        user: Some("0:0".to_owned()),
        env: Some(vec![visible_gpus(plan.devices, plan.gpus)]),
        entrypoint: texts(&["/.compute/sshd"]),
        cmd: texts(&["--dir", "/.compute", "--listen", "0.0.0.0:22"]),
        healthcheck: Some(HealthConfig { test: texts(&["NONE"]), ..HealthConfig::default() }),
        exposed_ports: texts(&[SSH_PORT]),
        labels: Some(plan.labels),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// A file of the host, read-write. As a mount, not as a bind: the engine makes nothing in its place where it is missing.
fn bind((source, target): &(PathBuf, &'static str)) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some((*target).to_owned()),
        read_only: Some(false),
        ..Mount::default()
    }
}

/// Those of the devices that are GPUs, by UUID.
fn uuids(devices: &[DeviceId]) -> Vec<String> {
    devices.iter().filter(|d| d.cpu_index().is_none()).map(ToString::to_string).collect()
}

/// What NVIDIA's runtime goes by where it is the engine's default: it gives a container the GPUs that this variable names, and
/// images of CUDA name all. So the lease's own stand here, or none where they come in another way.
fn visible_gpus(devices: &[DeviceId], access: GpuAccess) -> String {
    let gpus = match access {
        GpuAccess::Driver => uuids(devices),
        GpuAccess::Cdi => Vec::new(),
    };
    format!("NVIDIA_VISIBLE_DEVICES={}", if gpus.is_empty() { "void".to_owned() } else { gpus.join(",") })
}

/// The requests for these GPUs, by UUID; none for devices that are processors.
fn device_requests(devices: &[DeviceId], access: GpuAccess) -> Option<Vec<DeviceRequest>> {
    let gpus = uuids(devices);
    if gpus.is_empty() {
        return None;
    }
    let request = match access {
        GpuAccess::Driver => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(gpus),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        },
        GpuAccess::Cdi => DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(gpus.iter().map(|gpu| format!("nvidia.com/gpu={gpu}")).collect()),
            ..DeviceRequest::default()
        },
    };
    Some(vec![request])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: DeviceId = DeviceId([3; 16]);
    const UUID: &str = "GPU-03030303-0303-0303-0303-030303030303";

    fn plan(devices: &[DeviceId]) -> Plan<'_> {
        Plan {
            image: "sha256:1",
            labels: HashMap::new(),
            network: "compute-1-1",
            hostname: "lease".into(),
            devices,
            gpus: GpuAccess::Driver,
            share: Share { nano_cpus: 1_500_000_000, memory: 1 << 30, shm: 1 << 29, pids: 100 },
            bind: "0.0.0.0".parse().unwrap(),
            port: 4444,
            runtime: None,
            storage: HashMap::new(),
            binds: &[],
        }
    }

    #[test]
    fn a_container_has_every_limit_and_no_more_rights_than_it_needs() {
        let host = body(plan(&[GPU])).host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)), "no swap beside the memory");
        assert_eq!((host.nano_cpus, host.shm_size), (Some(1_500_000_000), Some(1 << 29)));
        assert_eq!((host.pids_limit, host.privileged), (Some(100), Some(false)));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        let kept = host.cap_add.unwrap();
        for never in
            ["SYS_ADMIN", "NET_ADMIN", "NET_RAW", "MKNOD", "SYS_PTRACE", "SYS_MODULE", "DAC_READ_SEARCH", "ALL"]
        {
            assert!(!kept.iter().any(|cap| cap == never), "{never}");
        }
        let options = host.security_opt.unwrap();
        assert_eq!(options, ["no-new-privileges"], "and the engine's own seccomp profile");
        assert_eq!((host.network_mode.as_deref(), host.ipc_mode.as_deref()), (Some("compute-1-1"), Some("private")));
        assert!(host.binds.is_none() && host.devices.is_none() && host.pid_mode.is_none() && host.mounts.is_none());
    }

    #[test]
    fn what_stands_in_for_the_engines_files_is_mounted_and_nothing_else_of_the_host() {
        let binds = [(PathBuf::from("/v/names/hosts"), "/etc/hosts")];
        let storage = HashMap::from([("size".to_owned(), "1024".to_owned())]);
        let host = body(Plan { binds: &binds, storage, ..plan(&[]) }).host_config.unwrap();
        let [mount] = &host.mounts.unwrap()[..] else { panic!("one mount") };
        assert_eq!((mount.source.as_deref(), mount.target.as_deref()), (Some("/v/names/hosts"), Some("/etc/hosts")));
        assert_eq!((mount.typ, mount.read_only), (Some(MountType::BIND), Some(false)));
        assert_eq!(host.storage_opt.unwrap()["size"], "1024");
        assert!(host.binds.is_none());
    }

    #[test]
    fn gpus_are_asked_for_by_uuid_and_processors_not_at_all() {
        let requests = |devices: &[DeviceId], gpus| {
            body(Plan { gpus, ..plan(devices) }).host_config.unwrap().device_requests.unwrap_or_default()
        };
        let [driver] = &requests(&[GPU, DeviceId::cpu(0)], GpuAccess::Driver)[..] else { panic!("one request") };
        assert_eq!((driver.driver.as_deref(), driver.count), (Some("nvidia"), None));
        assert_eq!(driver.device_ids.as_deref(), Some(&[UUID.to_owned()][..]));
        assert_eq!(driver.capabilities, Some(vec![vec!["gpu".to_owned()]]));
        let [cdi] = &requests(&[GPU], GpuAccess::Cdi)[..] else { panic!("one request") };
        assert_eq!(cdi.driver.as_deref(), Some("cdi"));
        assert_eq!(cdi.device_ids.as_deref(), Some(&[format!("nvidia.com/gpu={UUID}")][..]));
        assert!(requests(&[DeviceId::cpu(0), DeviceId::cpu(1)], GpuAccess::Driver).is_empty());
    }

    #[test]
    fn an_image_that_asks_for_all_gpus_gets_those_of_the_lease() {
        let seen = |devices: &[DeviceId], gpus| body(Plan { gpus, ..plan(devices) }).env.unwrap();
        assert_eq!(seen(&[GPU, DeviceId::cpu(0)], GpuAccess::Driver), [format!("NVIDIA_VISIBLE_DEVICES={UUID}")]);
        for (devices, access) in [(&[DeviceId::cpu(0)], GpuAccess::Driver), (&[GPU], GpuAccess::Cdi)] {
            assert_eq!(seen(devices, access), ["NVIDIA_VISIBLE_DEVICES=void"]);
        }
    }

    #[test]
    fn the_images_own_command_user_and_health_check_do_not_run() {
        let body = body(plan(&[]));
        assert_eq!(body.entrypoint.unwrap(), ["/.compute/sshd"]);
        assert_eq!(body.user.as_deref(), Some("0:0"));
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
    }

    #[test]
    fn the_port_is_published_on_all_addresses_or_on_the_one_that_is_named() {
        let binding = |bind: &str| {
            let host = body(Plan { bind: bind.parse().unwrap(), ..plan(&[]) }).host_config.unwrap();
            host.port_bindings.unwrap()[SSH_PORT].clone().unwrap().remove(0)
        };
        assert_eq!(binding("0.0.0.0"), PortBinding { host_ip: None, host_port: Some("4444".into()) });
        assert_eq!(binding("127.0.1.7").host_ip.as_deref(), Some("127.0.1.7"));
    }
}
