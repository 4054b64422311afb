//! cuBLASLt as a contestant, loaded only when it is there. Source of every constant and signature: cublasLt.h of CUDA 12.

use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};

use libloading::Library;

type Handle = *mut c_void;
type Status = i32;

/// Bytes that an algorithm may use beside the operands.
pub const WORKSPACE_BYTES: usize = 64 << 20;
/// Algorithms asked for.
const ALGORITHMS: usize = 32;
const TRANSA: i32 = 3;
const TRANSPOSED: i32 = 1;
const MAX_WORKSPACE: i32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Heuristic {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [i32; 4],
}

/// The library and a handle.
pub struct CublasLt {
    library: Library,
    handle: Handle,
}

/// Types of operands, of the result, of sums and of the scale, in the library's numbers.
#[derive(Clone, Copy)]
pub struct Types {
    operand: i32,
    result: i32,
    sum: i32,
    scale: i32,
}

/// f16, bf16 and s8s8: results as our kernels store them.
pub fn types(dtype: &str) -> Option<Types> {
    Some(match dtype {
        "f16" => Types { operand: 2, result: 2, sum: 68, scale: 0 },
        "bf16" => Types { operand: 14, result: 14, sum: 68, scale: 0 },
        "s8s8" => Types { operand: 3, result: 10, sum: 72, scale: 10 },
        _ => return None,
    })
}

/// A product D[M,N] = A[M,K] W[N,K]^T in row-major terms: transposed times plain in the library's.
pub struct Product {
    description: Handle,
    layouts: [Handle; 3],
    /// The library's choices, best first.
    pub algorithms: Vec<Heuristic>,
    integer: bool,
}

fn checked(call: &str, status: Status) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{call} answers {status}")) }
}

impl CublasLt {
    /// Errors when the library is not on the loader's path.
    pub fn open() -> Result<CublasLt, String> {
        let names = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
        // SAFETY: the library's initialisers are those of NVIDIA's own library.
        let found = names.iter().find_map(|n| unsafe { Library::new(*n) }.ok());
        let library = found.ok_or("libcublasLt is not on the loader's path (LD_LIBRARY_PATH)")?;
        let mut lt = CublasLt { library, handle: null_mut() };
        let mut handle = null_mut();
        let create = lt.symbol::<unsafe extern "C" fn(*mut Handle) -> Status>("cublasLtCreate")?;
        // SAFETY: the signature is the header's.
        checked("cublasLtCreate", unsafe { create(&mut handle) })?;
        lt.handle = handle;
        Ok(lt)
    }

    fn symbol<T: Copy>(&self, name: &str) -> Result<T, String> {
        // SAFETY: callers name the header's signatures.
        unsafe { self.library.get::<T>(name.as_bytes()) }.map(|s| *s).map_err(|e| e.to_string())
    }

    /// Describes a product and asks for algorithms.
    pub fn product(&self, types: Types, [m, n, k]: [usize; 3]) -> Result<Product, String> {
        let create = self.symbol::<unsafe extern "C" fn(*mut Handle, i32, i32) -> Status>("cublasLtMatmulDescCreate")?;
        let set =
            self.symbol::<unsafe extern "C" fn(Handle, i32, *const c_void, usize) -> Status>("cublasLtMatmulDescSetAttribute")?;
        let mut description = null_mut();
        // SAFETY: the signatures are the header's, and what is pointed at lives through the call; so below.
        unsafe {
            checked("cublasLtMatmulDescCreate", create(&mut description, types.sum, types.scale))?;
            checked("TRANSA", set(description, TRANSA, from_ref(&TRANSPOSED).cast(), 4))?;
        }
        let layouts =
            [self.layout(types.operand, k, n, k)?, self.layout(types.operand, k, m, k)?, self.layout(types.result, n, m, n)?];
        let algorithms = self.algorithms(description, layouts)?;
        Ok(Product { description, layouts, algorithms, integer: types.sum == 72 })
    }

    /// A column-major matrix.
    fn layout(&self, dtype: i32, rows: usize, columns: usize, stride: usize) -> Result<Handle, String> {
        let create =
            self.symbol::<unsafe extern "C" fn(*mut Handle, i32, u64, u64, i64) -> Status>("cublasLtMatrixLayoutCreate")?;
        let mut layout = null_mut();
        // SAFETY: as above.
        let status = unsafe { create(&mut layout, dtype, rows as u64, columns as u64, stride as i64) };
        checked("cublasLtMatrixLayoutCreate", status).map(|()| layout)
    }

    fn algorithms(&self, description: Handle, [a, b, d]: [Handle; 3]) -> Result<Vec<Heuristic>, String> {
        type Ask =
            unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle, Handle, Handle, i32, *mut Heuristic, *mut i32) -> Status;
        let create = self.symbol::<unsafe extern "C" fn(*mut Handle) -> Status>("cublasLtMatmulPreferenceCreate")?;
        let set = self.symbol::<unsafe extern "C" fn(Handle, i32, *const c_void, usize) -> Status>(
            "cublasLtMatmulPreferenceSetAttribute",
        )?;
        let ask = self.symbol::<Ask>("cublasLtMatmulAlgoGetHeuristic")?;
        let empty = Heuristic { algorithm: [0; 8], workspace: 0, state: 0, waves: 0.0, reserved: [0; 4] };
        let (mut preference, mut found, mut count) = (null_mut(), vec![empty; ALGORITHMS], 0);
        // SAFETY: as above; at most ALGORITHMS results are written.
        unsafe {
            checked("cublasLtMatmulPreferenceCreate", create(&mut preference))?;
            checked(
                "MAX_WORKSPACE_BYTES",
                set(preference, MAX_WORKSPACE, from_ref(&WORKSPACE_BYTES).cast(), size_of::<usize>()),
            )?;
            let (most, results) = (ALGORITHMS as i32, found.as_mut_ptr());
            let status = ask(self.handle, description, a, b, d, d, preference, most, results, &mut count);
            checked("cublasLtMatmulAlgoGetHeuristic", status)?;
        }
        found.truncate(count.max(0) as usize);
        found.retain(|h| h.state == 0);
        if found.is_empty() { Err("no algorithm".into()) } else { Ok(found) }
    }

    /// Puts the product into a stream, with device addresses of W, A, D and the workspace.
    pub fn run(&self, p: &Product, with: &Heuristic, [w, a, d, workspace]: [u64; 4], stream: *mut c_void) -> Result<(), String> {
        type Matmul = unsafe extern "C" fn(
            Handle,
            Handle,
            *const c_void,
            u64,
            Handle,
            u64,
            Handle,
            *const c_void,
            u64,
            Handle,
            u64,
            Handle,
            *const [u64; 8],
            u64,
            usize,
            *mut c_void,
        ) -> Status;
        let matmul = self.symbol::<Matmul>("cublasLtMatmul")?;
        let (ones, zeros) = ((1f32, 1i32), (0f32, 0i32));
        let pick =
            |both: &(f32, i32)| -> *const c_void { if p.integer { from_ref(&both.1).cast() } else { from_ref(&both.0).cast() } };
        let [lw, la, ld] = p.layouts;
        let (alpha, beta, algorithm) = (pick(&ones), pick(&zeros), &with.algorithm);
        // SAFETY: as above; addresses are of device memory large enough for the layouts, 64-bit as device pointers are.
        let status = unsafe {
            matmul(
                self.handle,
                p.description,
                alpha,
                w,
                lw,
                a,
                la,
                beta,
                d,
                ld,
                d,
                ld,
                algorithm,
                workspace,
                WORKSPACE_BYTES,
                stream,
            )
        };
        checked("cublasLtMatmul", status)
    }
}

const _: () = assert!(size_of::<Heuristic>() == 96);
