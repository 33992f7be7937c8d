//! The product by NVIDIA's cublasLt, where that is installed: exact, as it sums in i32.
//!
//! The library is looked for by the dynamic linker under the names of its versions 13, 12 and 11, and in the place where CUDA's
//! own packages put it; version 13 only where the driver takes it. What is called here is the same in all three versions.
//!
//! The library's matrices are column-major. A row-major strip of the product is a column-major `n × rows` matrix, which is
//! `Bᵀ` (column-major `k × n`, transposed) times `A`'s strip (column-major `k × rows`): nothing is moved.
#![expect(unsafe_code, reason = "cublasLt is a C library; every call of it is in this file, behind safe functions")]

use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, sys::CUstream};
use libloading::Library;

use super::CudaError;
use super::device::{LANES, Product};
use super::driver::Memory;

/// Scratch of one lane: what NVIDIA advises for its newest devices.
const WORKSPACE: u64 = 32 << 20;
/// Where CUDA's packages put libraries, below the dynamic linker's own places.
const DIRECTORIES: [&str; 2] = ["", "/usr/local/cuda/lib64/"];

// The library's numbers, from its headers.
const SUCCESS: c_int = 0;
/// `CUBLAS_COMPUTE_32I`.
const SUM_IN_I32: c_int = 72;
/// `CUDA_R_8I`.
const BYTES: c_int = 3;
/// `CUDA_R_32I`.
const ENTRIES: c_int = 10;
/// `CUBLASLT_MATMUL_DESC_TRANSA`.
const TRANSPOSE_FIRST: c_int = 3;
/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;
/// `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`.
const MOST_WORKSPACE: c_int = 1;

/// `cublasLtMatmulAlgo_t`: opaque.
type Algorithm = [u64; 8];

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Default)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// Something of the library's.
type Opaque = *mut c_void;

/// The library's functions that are called here, as its header declares them; an enum is a C `int`.
struct Functions {
    version: unsafe extern "C" fn() -> usize,
    create: unsafe extern "C" fn(*mut Opaque) -> c_int,
    destroy: unsafe extern "C" fn(Opaque) -> c_int,
    describe: unsafe extern "C" fn(*mut Opaque, c_int, c_int) -> c_int,
    destroy_description: unsafe extern "C" fn(Opaque) -> c_int,
    set_description: unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> c_int,
    lay_out: unsafe extern "C" fn(*mut Opaque, c_int, u64, u64, i64) -> c_int,
    destroy_layout: unsafe extern "C" fn(Opaque) -> c_int,
    prefer: unsafe extern "C" fn(*mut Opaque) -> c_int,
    destroy_preference: unsafe extern "C" fn(Opaque) -> c_int,
    set_preference: unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> c_int,
    choose: unsafe extern "C" fn(
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        c_int,
        *mut Heuristic,
        *mut c_int,
    ) -> c_int,
    multiply: unsafe extern "C" fn(
        Opaque,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *const c_void,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *mut c_void,
        Opaque,
        *const Algorithm,
        *mut c_void,
        usize,
        CUstream,
    ) -> c_int,
    /// Where it was found.
    name: String,
    /// The functions are the library's, so it stays.
    _library: Library,
}

/// The names that the library is looked for under, in order, with a driver of this CUDA version.
fn candidates(driver: i32) -> Vec<String> {
    // A driver takes libraries of its own major version and of older ones.
    let versions = [13, 12, 11].into_iter().filter(|major| *major <= driver / 1000);
    let names = versions.map(|major| format!("libcublasLt.so.{major}"));
    names.flat_map(|name| DIRECTORIES.map(|directory| format!("{directory}{name}"))).collect()
}

fn load(driver: i32) -> Result<Functions, String> {
    let (mut names, mut found) = (candidates(driver), None);
    names.retain(|name| {
        if found.is_none() {
            // SAFETY: cublasLt's initialisers touch nothing of ours.
            found = unsafe { Library::new(name) }.ok().map(|library| (library, name.clone()));
        }
        !name.contains('/')
    });
    let Some((library, name)) = found else {
        return Err(format!(
            "cublasLt was not found ({}); install CUDA's cuBLAS, or name its directory in prover.library_path",
            names.join(", ")
        ));
    };
    macro_rules! function {
        ($symbol:literal) => {
            // SAFETY: the function has this type in the headers of versions 11 to 13.
            *unsafe { library.get($symbol) }.map_err(|error| format!("{name}: {error}"))?
        };
    }
    Ok(Functions {
        version: function!(b"cublasLtGetVersion"),
        create: function!(b"cublasLtCreate"),
        destroy: function!(b"cublasLtDestroy"),
        describe: function!(b"cublasLtMatmulDescCreate"),
        destroy_description: function!(b"cublasLtMatmulDescDestroy"),
        set_description: function!(b"cublasLtMatmulDescSetAttribute"),
        lay_out: function!(b"cublasLtMatrixLayoutCreate"),
        destroy_layout: function!(b"cublasLtMatrixLayoutDestroy"),
        prefer: function!(b"cublasLtMatmulPreferenceCreate"),
        destroy_preference: function!(b"cublasLtMatmulPreferenceDestroy"),
        set_preference: function!(b"cublasLtMatmulPreferenceSetAttribute"),
        choose: function!(b"cublasLtMatmulAlgoGetHeuristic"),
        multiply: function!(b"cublasLtMatmul"),
        name,
        _library: library,
    })
}

/// The functions, loaded once in a process.
fn functions(driver: i32) -> Result<&'static Functions, CudaError> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    LOADED.get_or_init(|| load(driver)).as_ref().map_err(|why| CudaError::Unusable(why.clone()))
}

impl Functions {
    fn version(&self) -> String {
        // SAFETY: it reads a constant. 10000 × major + 100 × minor + patch since version 12, 1000 × major before.
        let version = unsafe { (self.version)() };
        let major = if version < 100_000 { version / 1000 } else { version / 10_000 };
        format!("cublasLt {major} ({})", self.name)
    }
}

/// Which library is found, with a driver of this CUDA version.
///
/// # Errors
/// [`CudaError::Unusable`] with what to do.
pub(super) fn found(driver: i32) -> Result<String, CudaError> {
    functions(driver).map(Functions::version)
}

fn checked(what: &'static str, status: c_int) -> Result<(), CudaError> {
    let name = match status {
        SUCCESS => return Ok(()),
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        _ => return Err(CudaError::Failed { what, code: format!("cuBLAS status {status}") }),
    };
    Err(CudaError::Failed { what, code: name.to_owned() })
}

/// Something that the library made, and how it is given back.
struct Made {
    it: Opaque,
    destroy: unsafe extern "C" fn(Opaque) -> c_int,
}

impl Made {
    fn by(
        what: &'static str,
        destroy: unsafe extern "C" fn(Opaque) -> c_int,
        make: impl FnOnce(*mut Opaque) -> c_int,
    ) -> Result<Made, CudaError> {
        let mut it = std::ptr::null_mut();
        checked(what, make(&raw mut it))?;
        Ok(Made { it, destroy })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: the library made it, `destroy` is for its kind, and nobody else gives it back.
        let _ = unsafe { (self.destroy)(self.it) };
    }
}

/// The library, and what it was told of a product of one size.
pub(super) struct CublasLt {
    // Given back in this order.
    size: Option<Prepared>,
    description: Made,
    handle: Made,
    workspaces: Vec<Memory>,
    functions: &'static Functions,
}

/// The layouts of one size of product, and the algorithm for it; there may be none.
struct Prepared {
    size: (u32, u32, u32),
    b: Made,
    a: Made,
    c: Made,
    algorithm: Option<Algorithm>,
}

impl CublasLt {
    /// The library for this context, which is this thread's, with a driver of this CUDA version.
    pub(super) fn open(context: &Arc<CudaContext>, driver: i32) -> Result<CublasLt, CudaError> {
        let functions = functions(driver)?;
        let what = "starting cublasLt";
        let workspaces = (0..LANES).map(|_| Memory::allocate(context, WORKSPACE)).collect::<Result<_, _>>()?;
        // SAFETY: each is told where to put what it makes; the attribute is an `i32`, which the library copies.
        unsafe {
            let handle = Made::by(what, functions.destroy, |it| (functions.create)(it))?;
            let describe = |it| (functions.describe)(it, SUM_IN_I32, ENTRIES);
            let description = Made::by(what, functions.destroy_description, describe)?;
            let transposed = TRANSPOSED;
            let (value, bytes) = ((&raw const transposed).cast(), size_of_val(&transposed));
            checked(what, (functions.set_description)(description.it, TRANSPOSE_FIRST, value, bytes))?;
            Ok(CublasLt { size: None, description, handle, workspaces, functions })
        }
    }

    /// Which library it is.
    pub(super) fn version(&self) -> String {
        self.functions.version()
    }

    /// Chooses an algorithm for products of this size. `false` if the library has none.
    pub(super) fn prepare(&mut self, product: &Product<'_, Memory>) -> Result<bool, CudaError> {
        let size = (product.rows, product.n, product.k);
        let (rows, n, k) = (u64::from(product.rows), u64::from(product.n), u64::from(product.k));
        if let Some(prepared) = self.size.as_ref().filter(|prepared| prepared.size == size) {
            return Ok(prepared.algorithm.is_some());
        }
        let what = "choosing an algorithm of cublasLt";
        let of = self.functions;
        let layout = |kind, rows: u64, columns: u64| {
            // SAFETY: it is told where to put what it makes. The columns lie one behind the other.
            let lay_out = |it| unsafe { (of.lay_out)(it, kind, rows, columns, rows as i64) };
            Made::by(what, of.destroy_layout, lay_out)
        };
        let mut prepared = Prepared {
            size,
            b: layout(BYTES, k, n)?,
            a: layout(BYTES, k, rows)?,
            c: layout(ENTRIES, n, rows)?,
            algorithm: None,
        };
        // SAFETY: all that is passed exists; the attribute is a `u64`, which the library copies; there is room for one result,
        // as it is told.
        unsafe {
            let preference = Made::by(what, of.destroy_preference, |it| (of.prefer)(it))?;
            let most = WORKSPACE;
            let (value, bytes) = ((&raw const most).cast(), size_of_val(&most));
            checked(what, (of.set_preference)(preference.it, MOST_WORKSPACE, value, bytes))?;
            let (mut heuristic, mut count) = (Heuristic::default(), 0);
            let (handle, description) = (self.handle.it, self.description.it);
            let (b, a, c) = (prepared.b.it, prepared.a.it, prepared.c.it);
            let (one, result) = (1, &raw mut heuristic);
            let status = (of.choose)(handle, description, b, a, c, c, preference.it, one, result, &raw mut count);
            if status == SUCCESS && count > 0 && heuristic.state == SUCCESS {
                prepared.algorithm = Some(heuristic.algorithm);
            }
        }
        let found = prepared.algorithm.is_some();
        self.size = Some(prepared);
        Ok(found)
    }

    /// Begins a product of the prepared size.
    pub(super) fn multiply(
        &mut self,
        lane: usize,
        stream: CUstream,
        product: &Product<'_, Memory>,
    ) -> Result<(), CudaError> {
        let what = "a product by cublasLt";
        let prepared = self.size.as_ref().and_then(|prepared| Some((prepared, prepared.algorithm.as_ref()?)));
        let Some((prepared, algorithm)) = prepared else {
            return Err(CudaError::Failed { what, code: "no algorithm is prepared".to_owned() });
        };
        let (one, zero) = (1i32, 0i32);
        let place = |memory: &Memory| memory.address() as *mut c_void;
        // SAFETY: all that is passed exists; α and β are of the scale's type, i32, and read before the call returns; the
        // memories have the sizes that the layouts tell, and outlive the launch: giving them back waits for the device.
        // Only this lane uses its workspace.
        let status = unsafe {
            (self.functions.multiply)(
                self.handle.it,
                self.description.it,
                (&raw const one).cast(),
                place(product.b),
                prepared.b.it,
                place(product.a),
                prepared.a.it,
                (&raw const zero).cast(),
                place(product.c),
                prepared.c.it,
                place(product.c),
                prepared.c.it,
                algorithm,
                place(&self.workspaces[lane]),
                WORKSPACE as usize,
                stream,
            )
        };
        checked(what, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_looked_for_under_every_version_that_the_driver_takes_the_newest_first() {
        let old = ["libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12", "libcublasLt.so.11"];
        assert_eq!(candidates(12_040)[..3], old);
        assert_eq!(candidates(13_000)[..3], ["libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13", old[0]]);
        assert_eq!(candidates(13_000).len(), 6);
    }
}
