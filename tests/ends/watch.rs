//! Looks at the engine from beside, past the miner and its proxy, all the time: what must never be seen, not even for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use compute_subnet::ids::LeaseId;

use crate::bed::processes_of;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(150);

/// A container as Docker's own client lists it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) lease: String,
    /// Each miner's devices are its own.
    miner: String,
    devices: String,
}

#[derive(Default)]
struct State {
    /// Leases that somebody was told to run, with their containers, and whether their processes must be there.
    held: BTreeMap<String, (String, bool)>,
    /// Containers of leases that were told to be released: no process may be in their control groups.
    released: BTreeSet<String>,
    /// Containers that were ever listed.
    seen: BTreeSet<String>,
    looks: u64,
    wrong: BTreeSet<String>,
}

pub(crate) struct Watch {
    state: Arc<Mutex<State>>,
    looking: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// All containers of leases; `None` while there is no engine.
pub(crate) async fn list(socket: &Path) -> Option<Vec<Listed>> {
    let label = |name: &str| format!("{{{{.Label \"compute-subnet.{name}\"}}}}");
    let labels = ["lease", "miner", "devices"].map(label).join("\t");
    let format = format!("{{{{.ID}}}}\t{{{{.State}}}}\t{labels}");
    let out = tokio::process::Command::new("docker")
        .args(["-H", &format!("unix://{}", socket.display()), "ps", "-a", "--no-trunc", "--format", &format])
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())?;
    let row = |line: &str| {
        let mut parts = line.split('\t').map(str::to_owned);
        let mut next = || parts.next();
        Some(Listed { id: next()?, state: next()?, lease: next()?, miner: next()?, devices: next()? })
    };
    Some(text.lines().filter_map(row).filter(|row| !row.lease.is_empty()).collect())
}

impl Watch {
    pub(crate) fn begin(socket: &Path, runtime: &tokio::runtime::Handle) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (seen, socket) = (state.clone(), socket.to_owned());
        let looking = runtime.spawn(async move {
            loop {
                let (before, released) = {
                    let state = lock(&seen);
                    (state.held.clone(), state.released.clone())
                };
                // Also while there is no engine.
                let running = processes_of(&released);
                lock(&seen).wrong.extend(running.into_iter().map(|what| format!("after its release was told: {what}")));
                if let Some(listed) = list(&socket).await {
                    judge(&mut lock(&seen), &before, &listed);
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
        Watch { state, looking }
    }

    /// From now on this lease runs; `processes`: and nobody may end what runs in it.
    pub(crate) fn hold(&self, lease: LeaseId, container: &str, processes: bool) {
        lock(&self.state).held.insert(lease.to_string(), (container.to_owned(), processes));
    }

    /// Nobody counts on any lease any more.
    pub(crate) fn let_go(&self) {
        lock(&self.state).held.clear();
    }

    /// This container's lease was told to be released.
    pub(crate) fn released(&self, container: &str) {
        lock(&self.state).released.insert(container.to_owned());
    }

    /// The processes of containers that were listed once and are not among these.
    pub(crate) fn left_running(&self, listed: &[Listed]) -> Vec<String> {
        let mut gone = lock(&self.state).seen.clone();
        gone.retain(|id| listed.iter().all(|row| row.id != *id));
        processes_of(&gone)
    }

    /// Every container that was ever listed; from now on none was.
    pub(crate) fn forget(&self) -> BTreeSet<String> {
        let mut state = lock(&self.state);
        state.released.clear();
        std::mem::take(&mut state.seen)
    }

    /// What was seen that must not be, and how often it was looked.
    pub(crate) fn told(&self) -> (Vec<String>, u64) {
        let mut state = lock(&self.state);
        (std::mem::take(&mut state.wrong).into_iter().collect(), state.looks)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn judge(state: &mut State, before: &BTreeMap<String, (String, bool)>, listed: &[Listed]) {
    state.looks += 1;
    state.seen.extend(listed.iter().map(|row| row.id.clone()));
    let (mut leases, mut devices) = (BTreeSet::new(), BTreeSet::new());
    let mut wrong = Vec::new();
    for row in listed {
        if !leases.insert(&row.lease) {
            wrong.push(format!("lease {} has two containers", row.lease));
        }
        for device in row.devices.split(',').filter(|device| !device.is_empty()) {
            if !devices.insert((&row.miner, device)) {
                wrong.push(format!("{device} of a miner is in two containers: {listed:?}"));
            }
        }
    }
    // What was held before the look and still is.
    for (lease, held) in before.iter().filter(|(lease, held)| state.held.get(*lease) == Some(held)) {
        let (container, processes) = held;
        match listed.iter().find(|row| row.id == *container) {
            None => wrong.push(format!("the running lease {lease} lost its container {container}")),
            Some(row) if *processes && !["running", "paused"].contains(&row.state.as_str()) => {
                wrong.push(format!("what ran in lease {lease} was ended: {}", row.state));
            }
            Some(_) => {}
        }
    }
    state.wrong.extend(wrong);
}
