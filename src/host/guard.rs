//! Both protections of a lease in the order of a container's life, by the operator's policies: what a container engine calls.
//!
//! [`Guard::before_create`] → the engine makes the container → [`Guard::before_start`] → it starts it → [`Guard::after_start`] → … →
//! it removes it → [`Guard::after_remove`]. What a crash leaves in between [`Guard::keep`] clears away; it also brings back rules that another
//! service flushed. What the machine can hold is found out at the first call, and again at each until it can.
//!
//! Whether a new volume can be had is one question, what volumes there are is another: a disk that is full or does not answer leaves the
//! first open, and never makes a volume that is there one that is not. What cannot be seen is an error, and nothing is started,
//! made anew or called gone.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use super::Policy;
use super::firewall::{Bridge, Firewall, FirewallError, resolvers};
use super::quota::{EngineStorage, NameFiles, Prepared, Quota, QuotaError, VolumeKey, needs_volume};
use crate::ids::Hotkey;
use crate::telemetry::error_chain;

/// Where the system's resolvers are named; the first also names those behind `systemd-resolved`.
const RESOLV_CONF: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// The protections, as metrics name them; the keys of section `docker` are called the same.
pub const PROTECTIONS: &[&str] = &["egress", "disk_quota"];
const EGRESS: usize = 0;
const DISK: usize = 1;

/// What a guard is told.
#[derive(Debug, Clone)]
pub struct GuardOptions {
    /// Whose tenants.
    pub miner: Hotkey,
    /// Where their volumes are.
    pub volumes: PathBuf,
    /// Whether rules for what they reach are needed.
    pub egress: Policy,
    /// Whether a limit of what they write is needed.
    pub disk_quota: Policy,
}

/// Why a lease is not protected as the policies want it.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// What tenants reach.
    #[error("what the tenant reaches (docker.egress)")]
    Egress(#[from] FirewallError),
    /// What tenants write.
    #[error("what the tenant writes (docker.disk_quota)")]
    Disk(#[from] QuotaError),
}

/// The protections of one miner's tenants.
#[derive(Debug)]
pub struct Guard {
    options: GuardOptions,
    firewall: OnceCell<Firewall>,
    quota: OnceCell<Quota>,
    /// The volumes that there are, once their directory was seen.
    volumes: OnceCell<Quota>,
    /// What has been said of what is missing, so that it is said once.
    said: [AtomicBool; 2],
    /// What a policy wants and the machine did not give when it was last needed.
    missing: [AtomicBool; 2],
    /// Whether rules of a time with another policy were looked for.
    cleared: AtomicBool,
}

impl Guard {
    /// One that has not looked at the machine yet.
    pub fn new(options: GuardOptions) -> Guard {
        Guard {
            options,
            firewall: OnceCell::new(),
            quota: OnceCell::new(),
            volumes: OnceCell::new(),
            said: Default::default(),
            missing: Default::default(),
            cleared: AtomicBool::new(false),
        }
    }

    /// What holds a tenant's network, if anything is to.
    ///
    /// # Errors
    /// Where the policy enforces it, and nothing can.
    pub async fn firewall(&self) -> Result<Option<&Firewall>, GuardError> {
        let policy = self.options.egress;
        if policy == Policy::Off {
            return Ok(None);
        }
        let found = self.found_firewall().await;
        self.note(EGRESS, found.is_err());
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if policy == Policy::Enforce => Err(error.into()),
            Err(error) => {
                self.say(EGRESS, "no rules hold what tenants reach", &error);
                Ok(None)
            }
        }
    }

    /// What holds a tenant's disk, if anything is to; `engine` is what the container engine tells of its storage.
    ///
    /// # Errors
    /// Where the policy enforces it, and nothing can, or nothing that holds against malice; and where the disk has no room to find out.
    pub async fn quota(&self, engine: &EngineStorage) -> Result<Option<&Quota>, GuardError> {
        let policy = self.options.disk_quota;
        if policy == Policy::Off {
            return Ok(None);
        }
        let found = self.found_quota(engine).await;
        self.note(DISK, found.is_err());
        match found {
            Ok(quota @ Quota::Project) if policy == Policy::Enforce => {
                self.note(DISK, true);
                Err(QuotaError::Unavailable(quota.holds().to_owned()).into())
            }
            Ok(found) => Ok(Some(found)),
            Err(error) if policy == Policy::Enforce => Err(error.into()),
            // That says nothing of what the machine can hold, and a full disk is no place for a tenant without a limit.
            Err(error @ QuotaError::NoRoom { .. }) => Err(error.into()),
            Err(error) => {
                self.say(DISK, "nothing limits what tenants write", &error);
                Ok(None)
            }
        }
    }

    async fn found_firewall(&self) -> Result<&Firewall, FirewallError> {
        let find = || async { Firewall::detect(self.options.miner, system_resolvers().await).await };
        self.firewall.get_or_try_init(find).await
    }

    async fn found_quota(&self, engine: &EngineStorage) -> Result<&Quota, QuotaError> {
        self.quota.get_or_try_init(|| Quota::detect(&self.options.volumes, engine)).await
    }

    /// What holds the volumes that there are, of whatever policy's time; `None` where there certainly are none.
    async fn volumes(&self) -> Result<Option<&Quota>, QuotaError> {
        if self.volumes.get().is_none() {
            let Some(found) = Quota::existing(&self.options.volumes).await? else { return Ok(None) };
            // Somebody else may have seen it meanwhile: it is the same directory.
            let _ = self.volumes.set(found);
        }
        Ok(self.volumes.get())
    }

    fn note(&self, which: usize, missing: bool) {
        if let Some(noted) = self.missing.get(which) {
            noted.store(missing, Ordering::Relaxed);
        }
    }

    /// Those of [`PROTECTIONS`] that a policy wants and that the machine did not give when they were last needed.
    pub fn missing(&self) -> Vec<&'static str> {
        let noted = PROTECTIONS.iter().zip(&self.missing);
        noted.filter(|(_, missing)| missing.load(Ordering::Relaxed)).map(|(name, _)| *name).collect()
    }

    fn say(&self, which: usize, what: &str, error: &(dyn std::error::Error + 'static)) {
        if self.said.get(which).is_some_and(|said| !said.swap(true, Ordering::Relaxed)) {
            tracing::warn!(why = error_chain(error), "{what}; compute-miner doctor says what to do");
        }
    }

    /// Before the container is made: the room for what it writes, `bytes` in all, and its rules.
    ///
    /// # Errors
    /// See [`GuardError`]; [`Guard::after_remove`] takes back what was made.
    pub async fn before_create(
        &self,
        key: VolumeKey,
        engine: &EngineStorage,
        bytes: u64,
        hostname: &str,
    ) -> Result<Prepared, GuardError> {
        self.close(&[Bridge::of(key.lease, key.epoch)]).await?;
        let Some(quota) = self.quota(engine).await? else { return Ok(Prepared::default()) };
        let names = NameFiles { hostname: hostname.to_owned(), resolvers: system_resolvers().await };
        Ok(quota.prepare(key, bytes, &names).await?)
    }

    /// Before every start of the container; `bridge` is its network's, `upper` what the engine tells as `GraphDriver.Data.UpperDir`. `true`:
    /// its volume was not mounted, so the container has not run since the machine started, or never.
    ///
    /// # Errors
    /// See [`GuardError`]: do not start it. [`QuotaError::NoVolume`]: it had a volume, which is not there now.
    pub async fn before_start(&self, key: VolumeKey, bridge: Bridge, upper: &Path) -> Result<bool, GuardError> {
        self.close(&[bridge]).await?;
        match self.volumes().await? {
            Some(quota) if quota.has(key).await? => Ok(quota.attach(key, upper).await?),
            _ if needs_volume(upper).await? => Err(QuotaError::NoVolume { key }.into()),
            // It was made while nothing held it, or by another policy.
            _ => Ok(false),
        }
    }

    /// After each start: whether the container, by one of its processes, writes into its volume.
    ///
    /// # Errors
    /// [`GuardError::Disk`]: destroy it.
    pub async fn after_start(&self, key: VolumeKey, pid: u32) -> Result<(), GuardError> {
        match self.volumes().await? {
            Some(quota) if quota.has(key).await? => Ok(quota.verify(key, pid).await?),
            _ => Ok(()),
        }
    }

    /// After the container is removed, or where there never was one. Whether a policy wants them now does not matter: what is there goes.
    ///
    /// # Errors
    /// See [`GuardError`]; a repeat goes on where it stopped.
    pub async fn after_remove(&self, key: VolumeKey) -> Result<(), GuardError> {
        if let Some(quota) = self.volumes().await? {
            quota.release(key).await?;
        }
        // Rules of a bridge that is gone hold nobody: those that cannot be reached now, or that are of a time with another policy,
        // go with the next `keep`, and need not hold up the end of a lease. So do those of a bridge that an older version named.
        if let Ok(Some(firewall)) = self.firewall().await {
            firewall.remove(&Bridge::of(key.lease, key.epoch)).await?;
        }
        Ok(())
    }

    /// Makes what there is match these leases and their networks' bridges, which are all that have a container or are being given one:
    /// takes away what is nobody's, and brings rules back that are gone. Returns the volumes that were nobody's.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn keep(
        &self,
        leases: &[(VolumeKey, Bridge)],
        engine: &EngineStorage,
    ) -> Result<Vec<VolumeKey>, GuardError> {
        if let Some(firewall) = self.firewall().await? {
            let mut bridges: Vec<Bridge> = leases.iter().map(|(_, bridge)| bridge.clone()).collect();
            bridges.sort();
            bridges.dedup();
            firewall.retain(&bridges).await?;
            if !bridges.is_empty() {
                self.close(&bridges).await?;
            }
        } else if self.options.egress == Policy::Off && !self.cleared.swap(true, Ordering::Relaxed) {
            // Rules that an earlier policy made would hold for nobody's tenants.
            if let Ok(firewall) = self.found_firewall().await {
                firewall.retain(&[]).await?;
            }
        }
        // So that it is known whether it can be had before anybody rents.
        let _ = self.quota(engine).await;
        let keys: Vec<VolumeKey> = leases.iter().map(|(key, _)| *key).collect();
        match self.volumes().await? {
            Some(quota) => Ok(quota.sweep(&keys).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Sees to it that there are rules for these bridges, if there are to be any.
    async fn close(&self, bridges: &[Bridge]) -> Result<(), GuardError> {
        let Some(firewall) = self.firewall().await? else { return Ok(()) };
        let closed = firewall.ensure(bridges).await;
        self.note(EGRESS, closed.is_err());
        Ok(closed?)
    }
}

/// What tenants ask where this system's own name servers are all on loopback, where a tenant reaches none; the engine would take the
/// same.
const PUBLIC_RESOLVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// The name servers that tenants ask: this system's, as far as a tenant can reach them.
async fn system_resolvers() -> Vec<IpAddr> {
    let mut texts = Vec::with_capacity(RESOLV_CONF.len());
    for path in RESOLV_CONF {
        texts.push(tokio::fs::read_to_string(path).await.unwrap_or_default());
    }
    reachable_resolvers(texts.iter().map(String::as_str))
}

/// The name servers of the first of these files that names any that a tenant can reach.
fn reachable_resolvers<'a>(mut resolv_confs: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let named = resolv_confs.find_map(|text| Some(resolvers(text)).filter(|found| !found.is_empty()));
    named.unwrap_or_else(|| PUBLIC_RESOLVERS.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaseId;

    fn guard(disk_quota: Policy, volumes: &Path) -> Guard {
        let volumes = volumes.to_owned();
        Guard::new(GuardOptions { miner: Hotkey([1; 32]), volumes, egress: Policy::Off, disk_quota })
    }

    #[test]
    fn a_tenant_has_name_servers_also_where_the_hosts_are_all_on_loopback() {
        let of = |texts: &[&'static str]| reachable_resolvers(texts.iter().copied());
        assert_eq!(of(&["nameserver 10.0.0.2\n", "nameserver 10.0.0.3\n"]), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(of(&["", "nameserver 127.0.0.1\nnameserver 10.0.0.3\n"]), ["10.0.0.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(of(&["nameserver 127.0.0.53\n", "nameserver ::1\n"]), PUBLIC_RESOLVERS);
    }

    #[tokio::test]
    async fn a_machine_that_cannot_hold_the_disk_refuses_leases_only_where_the_policy_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = dir.path().join("volumes");
        let engine = EngineStorage { driver: "vfs".into(), root: dir.path().to_owned(), status: vec![] };
        let key = VolumeKey { lease: LeaseId([7; 16]), epoch: 1 };
        let refused = guard(Policy::Enforce, &volumes).before_create(key, &engine, 1 << 30, "x").await.unwrap_err();
        let text = error_chain(&refused);
        assert!(text.contains("docker.disk_quota") && text.contains("\"storage-driver\": \"overlay2\""), "{text}");
        for policy in [Policy::BestEffort, Policy::Off] {
            let guard = guard(policy, &volumes);
            assert_eq!(guard.before_create(key, &engine, 1 << 30, "x").await.unwrap(), Prepared::default());
            let bridge = Bridge::of(key.lease, key.epoch);
            assert!(!guard.before_start(key, bridge, Path::new("/x/overlay2/1/diff")).await.unwrap());
            guard.after_start(key, 1).await.unwrap();
            guard.after_remove(key).await.unwrap();
            let missing: &[&str] = if policy == Policy::Off { &[] } else { &["disk_quota"] };
            assert_eq!(guard.missing(), missing, "{policy:?}: what is wanted and cannot be had is told");
        }
        assert!(!volumes.exists(), "nothing was made");
    }

    #[tokio::test]
    async fn volumes_that_cannot_be_looked_for_are_not_taken_for_gone() {
        let dir = tempfile::tempdir().unwrap();
        // What cannot be looked into, as a disk that gives errors.
        let broken = dir.path().join("broken");
        std::os::unix::fs::symlink(&broken, &broken).unwrap();
        let engine = EngineStorage { driver: "vfs".into(), root: dir.path().to_owned(), status: vec![] };
        let key = VolumeKey { lease: LeaseId([7; 16]), epoch: 1 };
        for policy in [Policy::Enforce, Policy::BestEffort, Policy::Off] {
            let guard = guard(policy, &broken.join("volumes"));
            let bridge = Bridge::of(key.lease, key.epoch);
            let upper = Path::new("/x/overlay2/1/diff");
            assert!(guard.before_start(key, bridge, upper).await.is_err(), "{policy:?}: it may have one");
            assert!(guard.after_start(key, 1).await.is_err(), "{policy:?}: nor is it seen to be held");
            assert!(guard.after_remove(key).await.is_err(), "{policy:?}: nor to be gone");
            assert!(guard.keep(&[], &engine).await.is_err(), "{policy:?}");
        }
    }

    #[tokio::test]
    async fn a_container_that_had_a_volume_is_not_started_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("overlay2/0a1b");
        std::fs::create_dir_all(layer.join("diff")).unwrap();
        let key = VolumeKey { lease: LeaseId([7; 16]), epoch: 1 };
        // The disk with the volumes is not mounted.
        let guard = guard(Policy::BestEffort, &dir.path().join("volumes"));
        let start = async || {
            let bridge = Bridge::of(key.lease, key.epoch);
            guard.before_start(key, bridge, &layer.join("diff")).await
        };
        std::fs::write(layer.join("lower"), "l/ABC").unwrap();
        assert!(!start().await.unwrap(), "one that never had a volume");
        std::fs::write(layer.join("lower"), "0a1b/no-volume").unwrap();
        let refused = start().await.unwrap_err();
        assert!(matches!(refused, GuardError::Disk(QuotaError::NoVolume { .. })), "{refused:?}");
    }
}
