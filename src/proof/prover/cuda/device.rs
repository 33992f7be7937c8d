//! What the rounds need of a device: memory, launches on two lanes, and bytes back.

use super::CudaError;
use super::kernels::{Argument, Launch};
use crate::ids::Hash32;

/// Lanes of work. What is begun on one is done in its order; lanes know nothing of each other.
pub(super) const LANES: usize = 2;

/// A strip of the product: `c[i][j] = Σ_x a[i][x]·b[j][x]`, row-major.
pub(super) struct Product<'a, M> {
    /// `rows` rows of `k` bytes.
    pub(super) a: &'a M,
    /// `n` rows of `k` bytes.
    pub(super) b: &'a M,
    /// `rows` rows of `n` entries.
    pub(super) c: &'a M,
    pub(super) rows: u32,
    pub(super) n: u32,
    pub(super) k: u32,
}

/// A device. All its methods begin something and return, but [`Device::wait`].
pub(super) trait Device {
    /// Memory of the device, given back when it is dropped. Nothing that uses it may be under way then: see
    /// [`Device::wait`].
    type Memory;

    /// Bytes that can be allocated, about.
    fn free_memory(&mut self) -> Result<u64, CudaError>;

    /// Memory of this many bytes, aligned to 256, its content whatever it is.
    fn allocate(&mut self, bytes: u64) -> Result<Self::Memory, CudaError>;

    /// Begins a kernel on a lane.
    fn launch(&mut self, lane: usize, launch: &Launch<'_, Self::Memory>) -> Result<(), CudaError>;

    /// Begins a product on a lane.
    fn multiply(&mut self, lane: usize, product: &Product<'_, Self::Memory>) -> Result<(), CudaError> {
        self.launch(lane, &Launch::multiply_strip(product))
    }

    /// Begins to copy these bytes to the host. [`Device::wait`] hands them over.
    fn fetch(&mut self, lane: usize, from: &Self::Memory, offset: u64, bytes: usize) -> Result<(), CudaError>;

    /// Waits for all that was begun on a lane, and lets `read` read what was fetched last, if anything was since the last wait.
    fn wait(&mut self, lane: usize, read: &mut dyn FnMut(&[u8])) -> Result<(), CudaError>;
}

/// Waits until nothing is under way that uses memory which is about to be given back.
pub(super) fn settle<D: Device>(device: &mut D) {
    for lane in 0..LANES {
        // A device that fails here has failed before, and that error is the one to tell.
        let _ = device.wait(lane, &mut |_| {});
    }
}

/// Hashes, as the device has them when all that was begun on the first lane is done.
pub(super) fn hashes<D: Device>(
    device: &mut D,
    from: &D::Memory,
    offset: u64,
    count: u64,
) -> Result<Vec<Hash32>, CudaError> {
    let bytes = count.saturating_mul(32);
    let length = usize::try_from(bytes).map_err(|_| CudaError::OutOfHostMemory { bytes })?;
    let mut out = vec![Hash32([0; 32]); length / 32];
    device.fetch(0, from, offset, length)?;
    device.wait(0, &mut |bytes| put(bytes, &mut out))?;
    Ok(out)
}

/// Puts the bytes of hashes into their place.
pub(super) fn put(bytes: &[u8], hashes: &mut [Hash32]) {
    for (hash, bytes) in hashes.iter_mut().zip(bytes.as_chunks::<32>().0) {
        hash.0 = *bytes;
    }
}

/// A place in memory: an argument.
pub(super) fn at<M>(memory: &M, offset: u64) -> Argument<'_, M> {
    Argument::Memory { memory, offset }
}
