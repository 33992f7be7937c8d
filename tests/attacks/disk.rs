//! A disk that is full while requests come in.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::requests::{ALLOCATE, Request, now_ns};
use crate::stage::Stage;
use crate::wait::until;

/// Size of the miner's disk.
const SIZE: &str = "size=4m";
/// Of the disk's file that takes the rest.
const BALLAST: &str = "ballast";

/// A small file system of its own, unmounted at the end.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Disk(at))
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join(BALLAST)).unwrap();
        for piece in [vec![0u8; 65_536], vec![0u8; 1]] {
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join(BALLAST)).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

async fn allocate(stage: &mut Stage) -> Value {
    let request = stage.own();
    let reply = stage.send(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    serde_json::from_str(reply.body()).unwrap()
}

/// The parts that are not ready.
async fn not_ready(stage: &Stage) -> Vec<String> {
    let (_, text) = stage.miner.page("/readyz").await.unwrap();
    let page: Value = serde_json::from_str(&text).unwrap();
    page["reasons"].as_array().unwrap().iter().map(|r| r["part"].as_str().unwrap().to_owned()).collect()
}

/// Where no file system can be mounted, this is left out and says so.
pub(crate) async fn a_full_disk_stops_rentals_and_nothing_else(mut stage: Stage) -> Stage {
    let at = stage.subnet.dir.join("small");
    let Some(disk) = Disk::mount(&at) else {
        stage.leave_out("the whole attack: only root can mount the small file system that it fills".to_owned());
        return stage;
    };
    let mut stage = stage.moved(&at).await;
    disk.fill();
    let used = Request::own(stage.caller(), &stage.us(), "/ComputeSpecs", b"{}", now_ns());
    assert_eq!(stage.send(&used).await.status, 200);

    // The first rental finds the disk full; from then on none is tried.
    until("the miner refuses rentals", async || {
        let refused = allocate(&mut stage).await;
        assert_eq!(refused["outcome"], "refused", "nothing can be recorded, so nothing may run: {refused}");
        (refused["reason"] == "degraded").then_some(())
    })
    .await;
    until("it says that it is degraded", async || {
        (not_ready(&stage).await == ["journal"] && stage.miner.metrics().await["compute_journal_degraded"] == 1.0)
            .then_some(())
    })
    .await;
    let leases = |effects: std::collections::BTreeMap<String, u64>| -> Vec<(String, u64)> {
        effects.into_iter().filter(|(name, n)| name.starts_with("compute_leases{") && *n > 0).collect()
    };
    assert_eq!(leases(stage.effects().await), [], "no lease was made");

    // Meanwhile callers are answered, and attackers refused, as ever.
    for _ in 0..20 {
        stage.honest_call(crate::http::HOME).await.unwrap();
        stage.refused("a replay", &used, 401, "replayed_request").await;
        let request = stage.own().without("x-bittensor-signature");
        stage.refused("no signature", &request, 401, "malformed_auth").await;
    }
    let (status, text) = stage.miner.page("/healthz").await.unwrap();
    assert_eq!(status, 200, "{text}");

    disk.free();
    until("it is ready again by itself", async || not_ready(&stage).await.is_empty().then_some(())).await;
    let rented = until("it rents again", async || {
        let reply = allocate(&mut stage).await;
        (reply["outcome"] == "running").then_some(reply)
    })
    .await;
    assert!(rented["container"].is_string(), "{rented}");
    let release = serde_json::json!({ "lease": "09".repeat(16), "fencing_epoch": 1, "owner_token": "03".repeat(32) });
    let body = serde_json::to_vec(&release).unwrap();
    let request = Request::own(stage.caller(), &stage.us(), "/ComputeRelease", &body, now_ns());
    let reply = stage.send(&request).await;
    assert_eq!(reply.status, 200, "{ALLOCATE} then release: {}", reply.text);
    let data = stage.subnet.dir.join("miner");
    let stage = stage.moved(&data).await;
    drop(disk);
    stage
}
