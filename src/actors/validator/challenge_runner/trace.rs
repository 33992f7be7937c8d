//! What was exchanged with one miner, gathered while its challenge runs: for the evidence log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::evidence::record::{DeviceTrace, Sample, Trace};
use crate::ids::{ChallengeId, DeviceId, Hash32};
use crate::proof::tile::TILE_BYTES;
use crate::proof::verifier::{Checked, Rejection};
use crate::proof::{Root, Work, kept_sample};
use crate::wire::reply::ReplyProof;

/// Gathers the trace of one miner's challenge. The devices of a miner are opened side by side, hence the lock; it is held
/// for no longer than it takes to note something down.
#[derive(Debug, Default)]
pub struct Tracer(Mutex<Option<Trace>>);

impl Tracer {
    /// A challenge goes out. An earlier one of the round, which got no roots, is forgotten.
    pub fn sent(&self, id: ChallengeId, nonce: Hash32, sent_ms: u64, jobs: &[(DeviceId, Work)]) {
        let devices = jobs.iter().map(|(device, work)| DeviceTrace::asked(*device, *work)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Trace { id, nonce, sent_ms, reply: None, devices });
    }

    /// Roots were received.
    pub fn roots(&self, proof: ReplyProof, elapsed: Duration, roots: &HashMap<DeviceId, Vec<Root>>) {
        self.note(|trace| {
            trace.reply = Some(proof);
            for device in &mut trace.devices {
                if let Some(roots) = roots.get(&device.device) {
                    device.roots = roots.clone();
                    device.elapsed_ns = nanos(elapsed);
                }
            }
        });
    }

    /// Positions of a device were drawn.
    pub fn drawn(&self, device: DeviceId, seed: Hash32, samples: usize) {
        self.device(device, |trace| {
            trace.seed = Some(seed);
            trace.samples = u32::try_from(samples).unwrap_or(u32::MAX);
        });
    }

    /// A device's openings were checked.
    pub fn opened(&self, device: DeviceId, openings: Opened) {
        self.device(device, |trace| {
            trace.openings = Some(openings.digest);
            trace.sample = openings.sample;
        });
    }

    /// The trace; `None` if nothing was sent.
    pub fn into_trace(self) -> Option<Trace> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, write: impl FnOnce(&mut Trace)) {
        if let Some(trace) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            write(trace);
        }
    }

    fn device(&self, device: DeviceId, write: impl FnOnce(&mut DeviceTrace)) {
        self.note(|trace| {
            if let Some(found) = trace.devices.iter_mut().find(|d| d.device == device) {
                write(found);
            }
        });
    }
}

/// What is kept of openings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    digest: Hash32,
    sample: Option<Sample>,
}

impl Opened {
    /// Of a pass the path of the sample that the seed names; of a wrong opening that opening, whole.
    pub fn of(work: &Work, seed: &Hash32, openings: &[u8], checked: &Result<Checked, Rejection>) -> Self {
        let digest = Hash32(*blake3::hash(openings).as_bytes());
        let one = work.opening_len();
        let at = |index: usize| openings.chunks_exact(one).nth(index);
        let sample = match checked {
            Ok(checked) => {
                let index = kept_sample(checked.samples as usize, &seed.0);
                let path = at(index).and_then(|opening| opening.get(TILE_BYTES..));
                path.map(|path| Sample::Path { index: index as u64, path: hex::encode(path) })
            }
            Err(rejection) => rejection
                .opening
                .and_then(|index| Some(Sample::Opening { index: index as u64, opening: hex::encode(at(index)?) })),
        };
        Opened { digest, sample }
    }
}

/// A time as the log and the verdict have it.
pub fn nanos(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
