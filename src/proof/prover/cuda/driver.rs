//! A GPU through CUDA's driver, which is looked for when it is needed and never linked.
#![expect(
    unsafe_code,
    reason = "CUDA's driver is a C library; every call of it is in this file, behind safe functions"
)]

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, result::stream::StreamKind};

use super::cublaslt::CublasLt;
use super::device::{Device, LANES, Product};
use super::kernels::{Argument, Kernel, Launch};
use super::{CudaError, Multiplier, unwinding};
use crate::ids::DeviceId;

/// The oldest driver that takes the kernels: the first of CUDA 12.0, whose PTX they are in.
pub(super) const OLDEST_DRIVER: u32 = 525;
/// The CUDA version that such a driver tells, at the least.
const OLDEST_VERSION: i32 = 12_000;
/// Most arguments of a kernel.
const ARGUMENTS: usize = 8;

/// A GPU that CUDA's driver offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its UUID.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: (i32, i32),
    /// All of its memory, in bytes.
    pub memory: u64,
}

/// All GPUs that CUDA's driver offers, in its order.
///
/// # Errors
/// [`CudaError::NoDriver`] and the like. No GPU at all is no error.
pub fn gpus() -> Result<Vec<Gpu>, CudaError> {
    unwinding(|| (0..start()?).map(gpu).collect())
}

/// Starts the driver, and counts its devices.
fn start() -> Result<i32, CudaError> {
    // SAFETY: it opens the library and closes it; libcuda's initialisers touch nothing of ours.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let fails = |error: DriverError| CudaError::DriverFails { code: name(error.0) };
    let mut version = 0;
    // SAFETY: the library is there, and `version` is a place for the number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(fails)?;
    if version < OLDEST_VERSION {
        return Err(CudaError::OldDriver { version });
    }
    match result::init() {
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        other => other.and_then(|()| result::device::get_count()).map_err(fails),
    }
}

fn gpu(ordinal: i32) -> Result<Gpu, CudaError> {
    let failed = failed("asking the driver for a device");
    let device = result::device::get(ordinal).map_err(&failed)?;
    let attribute = |which| {
        // SAFETY: the driver gave the device.
        unsafe { result::device::get_attribute(device, which) }.map_err(&failed)
    };
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: the driver gave the device.
    let memory = unsafe { result::device::total_mem(device) }.map_err(&failed)?;
    Ok(Gpu {
        device: uuid(ordinal)?,
        name: result::device::get_name(device).map_err(&failed)?,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        memory: memory as u64,
    })
}

fn uuid(ordinal: i32) -> Result<DeviceId, CudaError> {
    let uuid = result::device::get(ordinal).and_then(result::device::get_uuid);
    let uuid = uuid.map_err(failed("asking the driver for a device's UUID"))?;
    Ok(DeviceId(uuid.bytes.map(|byte| byte as u8)))
}

/// The driver's name of an error.
fn name(code: CUresult) -> String {
    format!("{code:?}")
}

/// What an error of the driver means.
pub(super) fn failed(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |DriverError(code)| match code {
        // The first four: the device is gone, or the driver took it away. A device that fell off the bus is also "unknown".
        CUresult::CUDA_ERROR_NO_DEVICE
        | CUresult::CUDA_ERROR_INVALID_DEVICE
        | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_SYSTEM_NOT_READY
        | CUresult::CUDA_ERROR_UNKNOWN => CudaError::Vanished { what, code: name(code) },
        _ => CudaError::Failed { what, code: name(code) },
    }
}

/// Device memory. Giving it back waits for all that is under way on the device.
pub(super) struct Memory {
    address: sys::CUdeviceptr,
    bytes: u64,
    context: Arc<CudaContext>,
}

impl Memory {
    pub(super) fn allocate(context: &Arc<CudaContext>, bytes: u64) -> Result<Memory, CudaError> {
        let failed = failed("allocating device memory");
        context.bind_to_thread().map_err(&failed)?;
        let length = usize::try_from(bytes).map_err(|_| CudaError::OutOfMemory { needed: bytes, free: 0 })?;
        // SAFETY: the content is never read before a kernel has written it, and any content is valid.
        match unsafe { result::malloc_sync(length) } {
            Ok(address) => Ok(Memory { address, bytes, context: context.clone() }),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = context.mem_get_info().map_or(0, |(free, _)| free as u64);
                Err(CudaError::OutOfMemory { needed: bytes, free })
            }
            Err(other) => Err(failed(other)),
        }
    }

    /// Its address on the device.
    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A device that cannot take its memory back is lost, which whoever waits for it hears.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: `allocate` got the address, and nobody else gives it back.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Page-locked memory of the host, where copies land.
struct Landing {
    at: *mut c_void,
    bytes: usize,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // SAFETY: `Cuda::fetch` got it from `malloc_host`, and nobody else gives it back.
        let _ = unsafe { result::free_host(self.at) };
    }
}

/// A stream, and what was fetched on it.
struct Lane {
    stream: sys::CUstream,
    landing: Option<Landing>,
    fetched: usize,
}

/// A GPU, ready to compute.
pub(super) struct Cuda {
    // Dropped in this order: all that needs the context goes before it.
    cublaslt: Option<CublasLt>,
    multiplier: Multiplier,
    lanes: Vec<Lane>,
    functions: Vec<sys::CUfunction>,
    modules: Vec<(&'static str, sys::CUmodule)>,
    context: Arc<CudaContext>,
}

// SAFETY: the driver's handles belong to the process, not to a thread; a thread that uses them enters the context first
// (`open`, `enter`), and `&mut` keeps it to one thread at a time.
unsafe impl Send for Cuda {}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            // The context is gone, and all that was in it.
            self.lanes.iter_mut().for_each(|lane| std::mem::forget(lane.landing.take()));
            return;
        }
        for lane in &mut self.lanes {
            // SAFETY: `open` made the stream; it is waited for before the memory where its copies land goes.
            unsafe {
                let _ = result::stream::synchronize(lane.stream);
                let _ = result::stream::destroy(lane.stream);
            }
            lane.landing = None;
        }
        for (_, module) in &self.modules {
            // SAFETY: `open` loaded it, and nothing that it has is running any more.
            let _ = unsafe { result::module::unload(*module) };
        }
    }
}

impl Cuda {
    /// Opens the GPU with this UUID, and loads the kernels.
    pub(super) fn open(device: DeviceId, multiplier: Multiplier) -> Result<Cuda, CudaError> {
        let found = (0..start()?).map(uuid).collect::<Result<Vec<_>, _>>()?;
        let Some(ordinal) = found.iter().position(|one| *one == device) else {
            return Err(CudaError::NoSuchDevice { device, found });
        };
        let context = CudaContext::new(ordinal).map_err(failed("opening the device"))?;
        let (major, minor) = context.compute_capability().map_err(failed("asking for the compute capability"))?;
        if (major, minor) < (7, 5) {
            return Err(CudaError::OldDevice { device, major, minor });
        }
        let (lanes, functions, modules) = (Vec::new(), Vec::new(), Vec::new());
        let mut cuda = Cuda { cublaslt: None, multiplier, lanes, functions, modules, context };
        for _ in 0..LANES {
            let stream = result::stream::create(StreamKind::NonBlocking).map_err(failed("making a stream"))?;
            cuda.lanes.push(Lane { stream, landing: None, fetched: 0 });
        }
        for kernel in Kernel::ALL {
            let function = cuda.load(kernel, major)?;
            cuda.functions.push(function);
        }
        if multiplier != Multiplier::Own {
            cuda.cublaslt = CublasLt::open(&cuda.context)?;
            if cuda.cublaslt.is_none() && multiplier == Multiplier::CublasLt {
                return Err(CudaError::Unusable("libcublasLt.so.12 was not found; install CUDA's cuBLAS".to_owned()));
            }
        }
        Ok(cuda)
    }

    /// Makes this thread one that may use the device. `open` does so for its own.
    pub(super) fn enter(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(failed("entering the device's context"))
    }

    /// Copies `bytes` bytes from one place of the device's memory to another: once to make all ready, and `times` more
    /// from `started` on.
    pub(super) fn copy(&mut self, bytes: u64, times: u32, started: impl FnOnce()) -> Result<(), CudaError> {
        let (from, to) = (self.allocate(bytes)?, self.allocate(bytes)?);
        let (length, stream) = (usize::try_from(bytes).unwrap_or(0), self.lanes[0].stream);
        let copy = || {
            // SAFETY: both places have `bytes` bytes, any content is valid, and `open` made the stream, which is waited for
            // before the places are given back.
            unsafe { result::memcpy_dtod_async(to.address, from.address, length, stream) }
                .map_err(failed("copying on the device"))
        };
        let done = copy().and_then(|()| self.wait(0, &mut |_| {})).and_then(|()| {
            started();
            (0..times).try_for_each(|_| copy())
        });
        let waited = self.wait(0, &mut |_| {});
        done.and(waited)
    }

    /// What multiplies, so far.
    pub(super) fn multiplied_by(&self) -> &'static str {
        if self.cublaslt.is_some() { "cublasLt" } else { "own kernel" }
    }

    fn load(&mut self, kernel: Kernel, major: i32) -> Result<sys::CUfunction, CudaError> {
        let failed = failed("loading the kernels");
        let ptx = kernel.ptx(major);
        let text = |text: &str| CString::new(text).map_err(|error| CudaError::Unusable(error.to_string()));
        let known = self.modules.iter().find(|(loaded, _)| *loaded == ptx);
        let module = match known {
            Some((_, module)) => *module,
            None => {
                let image = text(ptx)?;
                // SAFETY: the image is PTX and ends with a zero byte; the driver copies it.
                let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(&failed)?;
                self.modules.push((ptx, module));
                module
            }
        };
        // SAFETY: the module is loaded until `self` is dropped, and the function is used by `self` only.
        unsafe { result::module::get_function(module, text(kernel.name())?) }.map_err(&failed)
    }
}

impl Device for Cuda {
    type Memory = Memory;

    fn free_memory(&mut self) -> Result<u64, CudaError> {
        let (free, _) = self.context.mem_get_info().map_err(failed("asking for free memory"))?;
        Ok(free as u64)
    }

    fn allocate(&mut self, bytes: u64) -> Result<Memory, CudaError> {
        Memory::allocate(&self.context, bytes)
    }

    fn launch(&mut self, lane: usize, launch: &Launch<'_, Memory>) -> Result<(), CudaError> {
        // Every argument by its address, in a place that is aligned for all of them.
        let mut values = [[0u64; 4]; ARGUMENTS];
        assert!(launch.arguments.len() <= ARGUMENTS, "the arguments of a kernel");
        for (value, argument) in values.iter_mut().zip(&launch.arguments) {
            match argument {
                Argument::Key(key) => {
                    for (word, bytes) in value.iter_mut().zip(key.as_chunks::<8>().0) {
                        *word = u64::from_ne_bytes(*bytes);
                    }
                }
                Argument::Number(number) => value[0] = u64::from(*number).to_le(),
                Argument::Memory { memory, offset } => value[0] = memory.address + offset,
            }
        }
        let mut addresses = values.each_mut().map(|value| value.as_mut_ptr().cast::<c_void>());
        let parameters = &mut addresses[..launch.arguments.len()];
        let function = self.functions[launch.kernel as usize];
        let (grid, block) = ((launch.grid.0, launch.grid.1, 1), (launch.threads, 1, 1));
        // SAFETY: the function belongs to a loaded module; there is a parameter for each of its arguments, of its size
        // and kind, which a test of `kernels` compares with the PTX; the driver copies them before it returns. The memory
        // outlives the launch: giving it back waits for the device.
        unsafe { result::launch_kernel(function, grid, block, 0, self.lanes[lane].stream, parameters) }
            .map_err(failed("launching a kernel"))
    }

    fn multiply(&mut self, lane: usize, product: &Product<'_, Memory>) -> Result<(), CudaError> {
        if let Some(cublaslt) = &mut self.cublaslt {
            if cublaslt.prepare(product)? {
                return cublaslt.multiply(lane, self.lanes[lane].stream, product);
            }
            if self.multiplier == Multiplier::CublasLt {
                let what = "cublasLt has nothing for int8 products of this size on this device";
                return Err(CudaError::Unusable(what.to_owned()));
            }
            self.cublaslt = None;
        }
        self.launch(lane, &Launch::multiply_strip(product))
    }

    fn fetch(&mut self, lane: usize, from: &Memory, offset: u64, bytes: usize) -> Result<(), CudaError> {
        let end = offset.saturating_add(bytes as u64);
        assert!(end <= from.bytes, "what is fetched is within its memory");
        let lane = &mut self.lanes[lane];
        if lane.landing.as_ref().is_none_or(|landing| landing.bytes < bytes) {
            // SAFETY: `open` made the stream. No copy is on its way to the landing that is given back.
            unsafe { result::stream::synchronize(lane.stream) }.map_err(failed("waiting for the device"))?;
            lane.landing = None;
            // SAFETY: any content is valid.
            let at = unsafe { result::malloc_host(bytes, 0) }
                .map_err(|_| CudaError::OutOfHostMemory { bytes: bytes as u64 })?;
            lane.landing = Some(Landing { at, bytes });
        }
        let Some(landing) = &lane.landing else { return Ok(()) };
        // SAFETY: the source is within `from` (see above), the landing has at least `bytes` bytes and is not read or given
        // back before the stream was waited for.
        let copied =
            unsafe { sys::cuMemcpyDtoHAsync_v2(landing.at, from.address + offset, bytes, lane.stream).result() };
        copied.map_err(failed("copying to the host"))?;
        lane.fetched = bytes;
        Ok(())
    }

    fn wait(&mut self, lane: usize, read: &mut dyn FnMut(&[u8])) -> Result<(), CudaError> {
        let lane = &mut self.lanes[lane];
        // SAFETY: `open` made the stream.
        unsafe { result::stream::synchronize(lane.stream) }.map_err(failed("waiting for the device"))?;
        let fetched = std::mem::take(&mut lane.fetched);
        if let Some(landing) = lane.landing.as_ref().filter(|_| fetched > 0) {
            // SAFETY: the landing has at least `fetched` bytes, which the copy has written; no copy is under way.
            read(unsafe { std::slice::from_raw_parts(landing.at.cast(), fetched) });
        }
        Ok(())
    }
}
