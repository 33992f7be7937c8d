//! What the findings mean for rentals, and the command that mends what is missing. Pure.

use serde::Serialize;

use super::elf::Program;
use super::engine::Info;
use crate::host::Policy;
use crate::launch::lines::{Line, Status, gib, table};

/// Less of open files than this is too little for a miner and its tenants.
const LEAST_FILES: u64 = 4096;
/// Room for one image, one tenant, and some air, in bytes.
const LEAST_DISK: u64 = 100 << 30;
/// The oldest CUDA of a driver that takes the proofs' kernels, and that today's images run on.
const LEAST_CUDA: (u32, u32) = (12, 0);

/// What was found on the machine.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Whether the program runs as root.
    pub(super) root: bool,
    /// The NVIDIA driver's version and CUDA's; else why there is none.
    pub(super) driver: Result<(String, String), String>,
    /// The models of the GPUs.
    pub(super) gpus: Vec<String>,
    /// The engine's version and its API's; else why there is none.
    pub(super) docker: Result<(String, String), String>,
    /// What the engine tells; else why it does not.
    pub(super) info: Result<Info, String>,
    /// Whether `nvidia-ctk` is there.
    pub(super) toolkit: bool,
    /// Whether a CDI specification of NVIDIA's GPUs is there.
    pub(super) cdi: bool,
    /// What holds a tenant's disk (`true`: against malice too); else why nothing does.
    pub(super) quota: Result<(&'static str, bool), String>,
    /// Where images and volumes are, with the free bytes.
    pub(super) disks: Vec<(&'static str, String, Option<u64>)>,
    /// What holds the rules for tenants; else why nothing does.
    pub(super) firewall: Result<String, String>,
    /// The image of the original's callers; `None` where there are none, or no engine answers.
    pub(super) image: Option<Image>,
    /// What becomes of rentals without: of a limit on the disk, of rules.
    pub(super) policies: (Policy, Policy),
    /// The SSH server for containers: where, and what it is, or why it cannot be read.
    pub(super) sshd: (String, Result<Program, String>),
    /// Ports: what they are for, which, the key that changes it, and why nobody can listen there.
    pub(super) ports: Vec<(&'static str, String, &'static str, Option<Busy>)>,
    /// Whether the clock is kept right by the network; `None`: nobody knows.
    pub(super) clock_synchronised: Option<bool>,
    /// Memory in bytes: all, available.
    pub(super) memory: Option<(u64, u64)>,
    /// Open files that a process may have: now, and if it asks.
    pub(super) files: Option<(u64, u64)>,
}

/// The image that callers of the original's protocol get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// How the settings name it; nothing for the default.
    pub(super) wish: String,
    /// What was seen of it.
    pub(super) found: Tried,
}

/// What was seen of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tried {
    /// It is what they expect; what was found.
    Fits(String),
    /// What it lacks.
    Lacks(String),
    /// The engine does not have it.
    NotThere,
    /// Why it could not be tried.
    Unclear(String),
}

/// Why a port cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Busy {
    /// Somebody listens there.
    InUse,
    /// Anything else.
    Other(String),
}

/// All of it, as people and programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// Whether rentals can run here: no line is a failure.
    pub(super) works: bool,
    /// What was looked at, in this order.
    pub(super) lines: Vec<Line>,
}

impl Report {
    pub(super) fn of(lines: Vec<Line>) -> Report {
        Report { works: lines.iter().all(|line| line.status != Status::Fail), lines }
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let count = |status| self.lines.iter().filter(|line| line.status == status).count();
        let last = match (count(Status::Fail), count(Status::Warn)) {
            (0, 0) => "rentals can run here".to_owned(),
            (0, warnings) => format!("rentals can run here; warnings: {warnings}"),
            (fails, warnings) => format!("rentals can NOT run here; missing: {fails}, warnings: {warnings}"),
        };
        format!("{}\n{last}\n", table(&self.lines))
    }
}

/// The lines of what was found.
pub(super) fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines = vec![root(facts)];
    lines.extend(driver(facts));
    lines.extend(docker(facts));
    lines.push(toolkit(facts));
    if let Ok(info) = &facts.info {
        lines.extend(contained(info, facts.gpus.is_empty()));
    }
    lines.push(quota(facts));
    lines.push(firewall(facts));
    lines.push(sshd(facts));
    lines.extend(facts.image.as_ref().map(image));
    lines.extend(facts.disks.iter().map(disk));
    lines.extend(facts.ports.iter().map(port));
    lines.extend([clock(facts), memory(facts), files(facts)]);
    lines
}

fn root(facts: &Facts) -> Line {
    match facts.root {
        true => Line::ok("user", "root"),
        false => Line::ok("user", "not root").needs(
            Status::Warn,
            "rules for tenants and volumes for their disks need root; who may use Docker's socket is root already (SECURITY.md)",
        ),
    }
}

fn driver(facts: &Facts) -> Vec<Line> {
    let (version, cuda) = match &facts.driver {
        Ok(found) => found,
        Err(why) => {
            let line = Line::ok("driver", why.clone());
            return vec![line.needs(
                Status::Fail,
                "Debian: apt-get install linux-headers-amd64 nvidia-driver (from contrib and non-free), then reboot; Ubuntu: \
                 ubuntu-drivers install --gpgpu; nvidia-smi shows when it works",
            )];
        }
    };
    let driver = Line::ok("driver", version.clone());
    let newest = parsed(cuda);
    let cuda = Line::ok("cuda", cuda.clone()).against(format!("at least {}.{}", LEAST_CUDA.0, LEAST_CUDA.1));
    let cuda = match newest.is_some_and(|found| found >= LEAST_CUDA) {
        true => cuda,
        false => cuda
            .needs(Status::Fail, "install a newer driver, 525 or later: CUDA itself comes with it, and in the images"),
    };
    let gpus = match facts.gpus.len() {
        0 => Line::ok("gpus", "none")
            .needs(Status::Fail, "the driver finds no card: lspci -d 10de: shows what is plugged in"),
        _ => Line::ok("gpus", counted(&facts.gpus)),
    };
    vec![driver, cuda, gpus]
}

/// `12.8` as numbers.
fn parsed(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `2 x A, B`.
fn counted(names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let groups = sorted.chunk_by(|a, b| a == b);
    let one = |group: &[&str]| match group {
        [name] => (*name).to_owned(),
        [name, ..] => format!("{} x {name}", group.len()),
        [] => String::new(),
    };
    groups.map(one).collect::<Vec<_>>().join(", ")
}

fn docker(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    lines.push(match &facts.docker {
        Err(why) => Line::ok("docker", why.clone()).needs(
            Status::Fail,
            "Debian and Ubuntu: apt-get install docker.io, then systemctl enable --now docker; docker version shows when it works",
        ),
        Ok((version, api)) => {
            let line = Line::ok("docker", version.clone()).against(format!("API {api}, at least 1.41"));
            match parsed(api).is_some_and(|found| found >= (1, 41)) {
                true => line,
                false => line.needs(Status::Fail, "install Docker Engine 20.10 or newer"),
            }
        }
    });
    if let (Ok(_), Err(why)) = (&facts.docker, &facts.info) {
        lines.push(Line::ok("docker info", why.clone()).needs(Status::Fail, "docker info says more; is dockerd well?"));
    }
    lines
}

fn toolkit(facts: &Facts) -> Line {
    const CHECK: &str = "gpus in containers";
    let runtime = facts.info.as_ref().is_ok_and(|info| info.runtimes.contains_key("nvidia"));
    let cdi = facts.cdi
        && facts.info.as_ref().is_ok_and(|info| info.cdi_spec_dirs.as_ref().is_some_and(|dirs| !dirs.is_empty()));
    match (cdi, runtime, facts.toolkit) {
        (true, ..) => Line::ok(CHECK, "by CDI"),
        (false, true, true) => Line::ok(CHECK, "by NVIDIA's runtime"),
        (false, false, true) => Line::ok(CHECK, "NVIDIA's toolkit is there, Docker does not use it").needs(
            Status::Fail,
            "nvidia-ctk runtime configure --runtime=docker && systemctl restart docker",
        ),
        (false, _, false) => Line::ok(CHECK, "no NVIDIA container toolkit").needs(
            Status::Fail,
            "install nvidia-container-toolkit from NVIDIA's repository (README, \"From nothing to a running miner\"), then\n\
             nvidia-ctk runtime configure --runtime=docker && systemctl restart docker",
        ),
    }
}

/// What of the engine keeps tenants apart, from one another and from the host.
fn contained(info: &Info, no_gpus: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let limits = [("memory", info.memory_limit), ("processes", info.pids_limit), ("processor time", info.cpu_quota)];
    let missing: Vec<&str> = limits.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    let version = format!("cgroup v{}, {}", info.cgroup_version, info.cgroup_driver);
    let line = Line::ok("limits", "memory, processes, processor time").against(version.clone());
    lines.push(match missing.as_slice() {
        [] => line,
        some => Line::ok("limits", format!("none of {}", some.join(", "))).against(version).needs(
            Status::Fail,
            "a tenant could take all of it: enable the cgroup controllers, on Debian and Ubuntu by booting with \
             cgroup_enable=memory in GRUB_CMDLINE_LINUX",
        ),
    });
    lines.push(match info.swap_limit {
        true => Line::ok("swap", "limited with the memory"),
        false => Line::ok("swap", "not limited").needs(
            Status::Warn,
            "a tenant at its memory limit goes on in the swap: swapoff -a, or swapaccount=1 in GRUB_CMDLINE_LINUX",
        ),
    });
    if info.cgroup_driver == "systemd" && !no_gpus {
        lines.push(Line::ok("cgroup driver", "systemd").needs(
            Status::Warn,
            "without CDI containers lose their GPUs at the next systemctl daemon-reload (nvidia-container-toolkit issue 48): \
             \"exec-opts\": [\"native.cgroupdriver=cgroupfs\"] in /etc/docker/daemon.json, then restart Docker while nothing is rented",
        ));
    }
    lines.push(match info.has("seccomp") {
        true => Line::ok("seccomp", "on"),
        false => Line::ok("seccomp", "off")
            .needs(Status::Fail, "take a kernel and an engine with seccomp: without, no tenant is contained"),
    });
    if info.has("rootless") {
        lines.push(
            Line::ok("engine", "rootless")
                .needs(Status::Warn, "rules for tenants, volumes and limits need an engine that runs as root"),
        );
    }
    lines.push(match info.has("userns") {
        true => Line::ok("user namespaces", "root in a container is nobody on the host"),
        false => Line::ok("user namespaces", "root in a container is the host's root, without its capabilities")
            .against("see SECURITY.md"),
    });
    let stronger: Vec<&str> =
        ["sysbox-runc", "runsc"].into_iter().filter(|name| info.runtimes.contains_key(*name)).collect();
    lines.push(match stronger.as_slice() {
        [] => Line::ok("runtimes", "runc alone").against("sysbox-runc and runsc contain more, see SECURITY.md"),
        some => Line::ok("runtimes", format!("runc, {}", some.join(", "))),
    });
    lines.push(match info.live_restore_enabled {
        true => Line::ok("live restore", "on: tenants outlive a restart of Docker"),
        false => Line::ok("live restore", "off").needs(
            Status::Warn,
            "a restart or crash of Docker ends all tenants: \"live-restore\": true in /etc/docker/daemon.json, then systemctl reload docker",
        ),
    });
    lines
}

fn quota(facts: &Facts) -> Line {
    const CHECK: &str = "tenants' disk";
    match &facts.quota {
        Ok((holds, true)) => Line::ok(CHECK, *holds),
        Ok((holds, false)) => Line::ok(CHECK, *holds)
            .needs(severity(facts.policies.0), "run the miner as root where loop devices work (modprobe loop), with Docker's overlay2"),
        Err(why) => Line::ok(CHECK, "not limited").needs(
            severity(facts.policies.0),
            format!(
                "a tenant can fill the host's disk: {why}\nvolumes need root, overlay2, e2fsprogs (mkfs.ext4), util-linux (mount) and loop \
                 devices (modprobe loop)"
            ),
        ),
    }
}

/// How bad it is that a protection is missing.
fn severity(policy: Policy) -> Status {
    match policy {
        Policy::Enforce => Status::Fail,
        Policy::BestEffort | Policy::Off => Status::Warn,
    }
}

fn firewall(facts: &Facts) -> Line {
    const CHECK: &str = "tenants' network";
    match &facts.firewall {
        Ok(by) => Line::ok(CHECK, format!("rules by {by}")),
        Err(why) => Line::ok(CHECK, "no rules").needs(
            severity(facts.policies.1),
            format!("a tenant reaches the host, its private networks, cloud metadata, mail servers: {why}\napt-get install nftables"),
        ),
    }
}

fn sshd(facts: &Facts) -> Line {
    let (path, found) = &facts.sshd;
    let line = |text: &str| Line::ok("compute-sshd", text).against(path.clone());
    match found {
        Ok(Program::Static) => line("there, static"),
        Ok(Program::Dynamic) => line("it needs a dynamic linker")
            .needs(Status::Fail, "images without its libc could not run it: build it with scripts/sshd"),
        Ok(Program::None) => line("no program of x86-64 Linux").needs(Status::Fail, "build it with scripts/sshd"),
        Err(why) => line(why)
            .needs(Status::Fail, "no tenant can log in without: build it with scripts/sshd, beside compute-miner"),
    }
}

fn image(Image { wish, found }: &Image) -> Line {
    let name = if wish.is_empty() { "docker.default_image" } else { wish };
    let line = |text: &str| Line::ok("old callers' image", text).against(name);
    match found {
        Tried::Fits(what) => line(what),
        Tried::Lacks(what) => line("lacks what their validators need").needs(
            Status::Warn,
            format!("{what}\nmake one from packaging/legacy-image and name it: leases.original_image (docs/legacy.md)"),
        ),
        Tried::NotThere => line("not there yet").needs(
            Status::Warn,
            "the miner pulls it when it starts; then ask again, it is tried only where it is there",
        ),
        Tried::Unclear(why) => line("not tried").needs(Status::Warn, why.as_str()),
    }
}

fn disk((what, path, free): &(&'static str, String, Option<u64>)) -> Line {
    match free {
        None => Line::ok(*what, "not measured").against(path.clone()).needs(Status::Warn, "does the directory exist?"),
        Some(free) => {
            let line = Line::ok(*what, format!("{} free", gib(*free))).against(path.clone());
            match *free < LEAST_DISK {
                true => line.needs(
                    Status::Warn,
                    format!(
                        "images and tenants want {} or more: docker image prune, or a larger disk",
                        gib(LEAST_DISK)
                    ),
                ),
                false => line,
            }
        }
    }
}

fn port((what, address, key, busy): &(&'static str, String, &'static str, Option<Busy>)) -> Line {
    let line = |text: &str| Line::ok(*what, text).against(address.clone());
    match busy {
        None => line("free"),
        Some(Busy::InUse) => line("in use").needs(
            Status::Warn,
            format!("by this machine's own miner or one of its tenants? Else choose another with {key}; ss -ltnp shows who it is"),
        ),
        Some(Busy::Other(why)) => line(why).needs(Status::Fail, format!("choose another with {key}")),
    }
}

fn clock(facts: &Facts) -> Line {
    match facts.clock_synchronised {
        Some(true) => Line::ok("clock", "synchronised"),
        Some(false) => Line::ok("clock", "not synchronised").needs(
            Status::Warn,
            "signed requests are refused when clocks differ: apt-get install systemd-timesyncd, then timedatectl set-ntp true",
        ),
        None => Line::ok("clock", "nobody says whether it is synchronised")
            .needs(Status::Warn, "see to it that something keeps it: chrony, ntpd or systemd-timesyncd"),
    }
}

fn memory(facts: &Facts) -> Line {
    match facts.memory {
        None => Line::ok("memory", "not measured").needs(Status::Warn, "the system does not tell its memory"),
        Some((all, available)) => Line::ok("memory", format!("{} available", gib(available))).against(gib(all)),
    }
}

fn files(facts: &Facts) -> Line {
    match facts.files {
        None => Line::ok("open files", "not limited"),
        Some((_, hard)) if hard < LEAST_FILES => Line::ok("open files", format!("at most {hard}"))
            .against(format!("at least {LEAST_FILES}"))
            .needs(Status::Warn, "LimitNOFILE=65536 in the service's unit, or ulimit -n"),
        Some((soft, hard)) => Line::ok("open files", format!("{soft}, at most {hard}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Info {
        serde_json::from_str(text).unwrap()
    }

    /// A machine as its operator wants it.
    fn ready() -> Facts {
        Facts {
            root: true,
            driver: Ok(("570.133.20".into(), "12.8".into())),
            gpus: vec!["NVIDIA H100 PCIe".into(); 2],
            docker: Ok(("28.2.2".into(), "1.50".into())),
            info: Ok(info(
                r#"{"Driver":"overlay2","MemoryLimit":true,"SwapLimit":true,"PidsLimit":true,"CpuCfsQuota":true,
                "CgroupDriver":"cgroupfs","CgroupVersion":"2","SecurityOptions":["name=apparmor","name=seccomp,profile=builtin"],
                "Runtimes":{"nvidia":{},"runc":{}},"LiveRestoreEnabled":true,"CDISpecDirs":["/etc/cdi"]}"#,
            )),
            toolkit: true,
            cdi: true,
            quota: Ok(("a volume for each lease", true)),
            disks: vec![("disk of images", "/var/lib/docker".into(), Some(900 << 30))],
            firewall: Ok("nftables".into()),
            image: Some(Image {
                wish: String::new(),
                found: Tried::Fits("Python 3.11.10, torch 2.5.1+cu124, numpy 2.1.2".into()),
            }),
            policies: (Policy::BestEffort, Policy::BestEffort),
            sshd: ("/opt/compute/compute-sshd".into(), Ok(Program::Static)),
            ports: vec![("axon port", "0.0.0.0:8091".into(), "--axon.port", None)],
            clock_synchronised: Some(true),
            memory: Some((256 << 30, 250 << 30)),
            files: Some((1024, 524_288)),
        }
    }

    /// One where nothing is.
    fn bare() -> Facts {
        Facts {
            root: false,
            gpus: Vec::new(),
            toolkit: false,
            cdi: false,
            clock_synchronised: None,
            memory: None,
            driver: Err("no NVIDIA driver: libnvidia-ml.so.1 is not installed".into()),
            docker: Err("no Docker: no socket at /var/run/docker.sock".into()),
            info: Err("no Docker".into()),
            quota: Err("no container can be limited here: the engine's storage driver is not known".into()),
            disks: vec![
                ("disk of images", "/var/lib/docker".into(), None),
                ("disk of tenants", "/data".into(), Some(5 << 30)),
            ],
            firewall: Err("neither nft nor iptables can hold rules here".into()),
            image: None,
            policies: (Policy::BestEffort, Policy::Off),
            sshd: ("/opt/compute/compute-sshd".into(), Err("No such file or directory (os error 2)".into())),
            ports: vec![
                ("axon port", "0.0.0.0:8091".into(), "--axon.port", Some(Busy::InUse)),
                (
                    "ssh port",
                    "0.0.0.0:4444".into(),
                    "--ssh.port",
                    Some(Busy::Other("Permission denied (os error 13)".into())),
                ),
            ],
            files: Some((256, 1024)),
        }
    }

    #[test]
    fn a_machine_that_lacks_nothing_reads_like_this() {
        let report = Report::of(lines(&ready()));
        assert!(report.works);
        insta::assert_snapshot!("ready", report.text());
    }

    #[test]
    fn a_machine_that_lacks_everything_is_told_what_to_do() {
        let report = Report::of(lines(&bare()));
        assert!(!report.works);
        assert!(report.lines.iter().all(|line| (line.status == Status::Ok) == line.remedy.is_empty()), "{report:?}");
        insta::assert_snapshot!("bare", report.text());
    }

    #[test]
    fn what_is_missing_is_a_failure_where_no_rental_goes_without() {
        let quota = Err("no loop devices".to_owned());
        let works = |policies| Report::of(lines(&Facts { quota: quota.clone(), policies, ..ready() })).works;
        assert!(works((Policy::BestEffort, Policy::Enforce)));
        assert!(!works((Policy::Enforce, Policy::BestEffort)));
    }

    #[test]
    fn an_engine_with_traps_is_told_apart_from_one_without() {
        let trapped = r#"{"Driver":"overlayfs","CgroupDriver":"systemd","CgroupVersion":"2","MemoryLimit":true,
            "SecurityOptions":["name=rootless"],"Runtimes":{"runc":{},"runsc":{}}}"#;
        let facts = Facts {
            info: Ok(info(trapped)),
            docker: Ok(("19.03.1".into(), "1.40".into())),
            driver: Ok(("470.1".into(), "11.4".into())),
            toolkit: true,
            cdi: true,
            quota: Ok(("project quotas", false)),
            sshd: ("/x".into(), Ok(Program::Dynamic)),
            image: Some(Image {
                wish: "debian".into(),
                found: Tried::Lacks("/opt/conda/bin/python cannot be started: no such file or directory".into()),
            }),
            clock_synchronised: Some(false),
            root: false,
            ..ready()
        };
        insta::assert_snapshot!("trapped", Report::of(lines(&facts)).text());
    }
}
