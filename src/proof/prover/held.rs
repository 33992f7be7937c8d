//! Filled memory of any backend, on the thread that computes, and what may be asked of it when.

use std::sync::atomic::AtomicBool;

use super::BackendError;
use super::cuda::GpuMemory;
use crate::proof::memory::cpu::{Filled, Scans};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::{Position, Size};
use crate::proof::work::Root;

/// What a backend can do with memory that it has filled. After an error it is asked for nothing more.
pub(super) trait Backing: Send {
    /// Does all scans. They replace those before.
    fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, BackendError>;
    /// Opens blocks of the last scans. There was a scan, and all positions are within the size.
    fn open(&mut self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, BackendError>;
}

/// Filled memory. A request takes it, and gives it back if it succeeds.
pub(crate) struct Held {
    size: Size,
    scanned: bool,
    backing: Box<dyn Backing>,
}

impl Held {
    pub(super) fn new(size: Size, backing: Box<dyn Backing>) -> Self {
        Held { size, scanned: false, backing }
    }

    /// Why these positions cannot be opened, if they cannot.
    pub(super) fn refuses(&self, positions: &[Position]) -> Option<String> {
        if !self.scanned {
            return Some("nothing is scanned yet".to_owned());
        }
        positions.iter().find(|p| !p.is_within(&self.size)).map(|outside| format!("{outside:?} is not in the memory"))
    }

    /// Does all scans.
    pub(super) fn scan(mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<(Held, Vec<Root>), BackendError> {
        let roots = self.backing.scan(nonce_0, cancel)?;
        self.scanned = true;
        Ok((self, roots))
    }

    /// Opens blocks of the last scans, unless it [refuses](Held::refuses).
    pub(super) fn open(mut self, positions: &[Position], cancel: &AtomicBool) -> Result<(Held, Vec<u8>), BackendError> {
        let bytes = self.backing.open(positions, cancel)?;
        Ok((self, bytes))
    }
}

/// Memory of this machine's processor.
pub(super) struct OnCpu {
    filled: Filled,
    scans: Option<Scans>,
}

impl OnCpu {
    pub(super) fn held(filled: Filled) -> Held {
        Held::new(filled.size(), Box::new(OnCpu { filled, scans: None }))
    }
}

impl Backing for OnCpu {
    fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, BackendError> {
        self.scans = None;
        let scans = self.filled.scans(nonce_0, cancel)?;
        let roots = scans.roots().to_vec();
        self.scans = Some(scans);
        Ok(roots)
    }

    fn open(&mut self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, BackendError> {
        let opened = self.scans.as_ref().map(|scans| self.filled.open(scans, positions, cancel));
        Ok(opened.unwrap_or(Ok(Vec::new()))?)
    }
}

impl Backing for GpuMemory {
    fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, BackendError> {
        Ok(GpuMemory::scan(self, nonce_0, cancel)?)
    }

    fn open(&mut self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, BackendError> {
        Ok(GpuMemory::open(self, positions, cancel)?)
    }
}
