//! What was exchanged with one miner over its memory, gathered while its round runs: for the evidence log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::plan::PlannedDevice;
use crate::actors::validator::challenge_runner::trace::nanos;
use crate::evidence::record::{MemoryDeviceTrace, MemoryTrace, Sample};
use crate::ids::{ChallengeId, DeviceId, Hash32};
use crate::proof::verifier::{Checked, Rejection};
use crate::proof::{Root, kept_sample};
use crate::wire::reply::ReplyProof;

/// Gathers the trace of one miner. Its devices are opened side by side, hence the lock; it is held for no longer than it takes
/// to note something down.
#[derive(Debug)]
pub struct Tracer(Mutex<MemoryTrace>);

impl Tracer {
    /// A challenge goes out.
    pub fn new(id: ChallengeId, nonce: Hash32, sent_ms: u64, devices: &[PlannedDevice]) -> Self {
        let devices = devices.iter().map(|d| MemoryDeviceTrace::asked(d.device, d.work.size)).collect();
        Tracer(Mutex::new(MemoryTrace { id, nonce, sent_ms, scan_nonce: None, reply: None, devices }))
    }

    /// The first scan's nonce goes out.
    pub fn scan(&self, nonce: Hash32) {
        self.note(|trace| trace.scan_nonce = Some(nonce));
    }

    /// Roots were received.
    pub fn roots(&self, proof: ReplyProof, elapsed: Duration, roots: &HashMap<DeviceId, Vec<Root>>) {
        self.note(|trace| {
            trace.reply = Some(proof);
            for device in &mut trace.devices {
                if let Some(roots) = roots.get(&device.device) {
                    device.roots.clone_from(roots);
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

    /// A device's openings were checked: of a pass the opening that the seed names is kept, of a fail the first wrong one.
    pub fn opened(&self, device: DeviceId, seed: &Hash32, openings: &[u8], checked: &Result<Checked, Rejection>) {
        self.device(device, |trace| {
            let at = |index: usize| Some(hex::encode(openings.chunks_exact(trace.size.opening_len()).nth(index)?));
            trace.openings = Some(Hash32(*blake3::hash(openings).as_bytes()));
            trace.sample = match checked {
                Ok(checked) => {
                    let index = kept_sample(checked.samples as usize, &seed.0);
                    at(index).map(|path| Sample::Path { index: index as u64, path })
                }
                Err(rejection) => rejection
                    .opening
                    .and_then(|index| Some(Sample::Opening { index: index as u64, opening: at(index)? })),
            };
        });
    }

    /// The trace as it is now.
    pub fn trace(&self) -> Option<MemoryTrace> {
        Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn note(&self, write: impl FnOnce(&mut MemoryTrace)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn device(&self, device: DeviceId, write: impl FnOnce(&mut MemoryDeviceTrace)) {
        self.note(|trace| {
            if let Some(found) = trace.devices.iter_mut().find(|d| d.device == device) {
                write(found);
            }
        });
    }
}
