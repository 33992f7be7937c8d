//! The product by NVIDIA's cublasLt, where that is installed: exact, as it sums in i32.
//!
//! The library's matrices are column-major. A row-major strip of the product is a column-major `n × rows` matrix, which is
//! `Bᵀ` (column-major `k × n`, transposed) times `A`'s strip (column-major `k × rows`): nothing is moved.
#![expect(unsafe_code, reason = "cublasLt is a C library; every call of it is in this file, behind safe functions")]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::{CudaContext, sys::CUstream};

use super::CudaError;
use super::device::{LANES, Product};
use super::driver::Memory;

/// Scratch of one lane: what NVIDIA advises for its newest devices.
const WORKSPACE: u64 = 32 << 20;

/// The library's `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

/// The library, and what it was told of a product of one size.
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    description: sys::cublasLtMatmulDesc_t,
    workspaces: Vec<Memory>,
    size: Option<Prepared>,
}

/// The layouts of one size of product, and the algorithm for it; there may be none.
struct Prepared {
    size: (u32, u32, u32),
    b: sys::cublasLtMatrixLayout_t,
    a: sys::cublasLtMatrixLayout_t,
    c: sys::cublasLtMatrixLayout_t,
    algorithm: Option<sys::cublasLtMatmulAlgo_t>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for layout in [self.b, self.a, self.c].into_iter().filter(|layout| !layout.is_null()) {
            // SAFETY: `prepare` made it, and nobody else destroys it.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        self.size = None;
        // SAFETY: `open` made both, and nobody else destroys them. What is under way does not need them any more.
        unsafe {
            if !self.description.is_null() {
                let _ = result::destroy_matmul_desc(self.description);
            }
            let _ = result::destroy_handle(self.handle);
        }
    }
}

fn failed(what: &'static str) -> impl Fn(CublasError) -> CudaError {
    move |CublasError(status)| CudaError::Failed { what, code: format!("{status:?}") }
}

impl CublasLt {
    /// The library for this context, which is this thread's, or `None` where it is not installed.
    pub(super) fn open(context: &Arc<CudaContext>) -> Result<Option<CublasLt>, CudaError> {
        // SAFETY: it opens the library and closes it; cublasLt's initialisers touch nothing of ours.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let failed = failed("starting cublasLt");
        let workspaces = (0..LANES).map(|_| Memory::allocate(context, WORKSPACE)).collect::<Result<_, _>>()?;
        let handle = result::create_handle().map_err(&failed)?;
        let mut cublaslt = CublasLt { handle, description: std::ptr::null_mut(), workspaces, size: None };
        let sum = sys::cublasComputeType_t::CUBLAS_COMPUTE_32I;
        cublaslt.description = result::create_matmul_desc(sum, sys::cudaDataType::CUDA_R_32I).map_err(&failed)?;
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        let transposed = TRANSPOSED;
        // SAFETY: the description exists; the attribute is an `i32`, which the library copies.
        unsafe {
            let (value, bytes) = ((&raw const transposed).cast(), size_of_val(&transposed));
            result::set_matmul_desc_attribute(cublaslt.description, attribute, value, bytes).map_err(&failed)?;
        }
        Ok(Some(cublaslt))
    }

    /// Chooses an algorithm for products of this size. `false` if the library has none.
    pub(super) fn prepare(&mut self, product: &Product<'_, Memory>) -> Result<bool, CudaError> {
        let size = (product.rows, product.n, product.k);
        let (rows, n, k) = (u64::from(product.rows), u64::from(product.n), u64::from(product.k));
        if let Some(prepared) = self.size.as_ref().filter(|prepared| prepared.size == size) {
            return Ok(prepared.algorithm.is_some());
        }
        let failed = failed("choosing an algorithm of cublasLt");
        let (bytes, entries) = (sys::cudaDataType::CUDA_R_8I, sys::cudaDataType::CUDA_R_32I);
        let none = std::ptr::null_mut();
        let mut prepared = Prepared { size, b: none, a: none, c: none, algorithm: None };
        prepared.b = result::create_matrix_layout(bytes, k, n, i64::from(product.k)).map_err(&failed)?;
        prepared.a = result::create_matrix_layout(bytes, k, rows, i64::from(product.k)).map_err(&failed)?;
        prepared.c = result::create_matrix_layout(entries, n, rows, i64::from(product.n)).map_err(&failed)?;
        let preference = result::create_matmul_pref().map_err(&failed)?;
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let most = WORKSPACE;
        // SAFETY: all that is passed exists; the attribute is a `u64`, which the library copies; the preference is destroyed
        // once.
        let chosen = unsafe {
            let (value, bytes) = ((&raw const most).cast(), size_of_val(&most));
            let set = result::set_matmul_pref_attribute(preference, attribute, value, bytes);
            let (b, a, c) = (prepared.b, prepared.a, prepared.c);
            let chosen = set.and_then(|()| {
                result::get_matmul_algo_heuristic(self.handle, self.description, b, a, c, c, preference)
            });
            let _ = result::destroy_matmul_pref(preference);
            chosen
        };
        prepared.algorithm = chosen.ok().map(|chosen| chosen.algo);
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
        unsafe {
            result::matmul(
                self.handle,
                self.description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                place(product.b),
                prepared.b,
                place(product.a),
                prepared.a,
                place(product.c),
                prepared.c,
                place(product.c),
                prepared.c,
                algorithm,
                place(&self.workspaces[lane]),
                WORKSPACE as usize,
                stream.cast(),
            )
        }
        .map_err(failed(what))
    }
}
