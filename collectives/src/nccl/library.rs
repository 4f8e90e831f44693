//! The part of NCCL that is used, bound by hand: the wheel ships `libnccl.so.2` only, a name that binding crates do not try.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::Unavailable;
use crate::{DType, Error, Result};

/// An opaque `ncclComm_t`.
pub(super) type Comm = *mut c_void;
pub(super) type UniqueId = [u8; 128];

pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;
const SUM: c_int = 0;
/// The first version with everything that is used here (the non-blocking mode is of 2.14).
const OLDEST: c_int = 21_800;

/// `ncclUniqueId`, which is passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct IdByValue {
    internal: UniqueId,
}

/// `ncclConfig_t` as of version 2.18; newer libraries fill in the rest by the size and version given.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    /// `NCCL_CONFIG_INITIALIZER` with `blocking = 0`.
    fn non_blocking() -> Self {
        // "Not set" in NCCL's headers.
        const UNSET: c_int = c_int::MIN;
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: OLDEST as c_uint,
            blocking: 0,
            cga_cluster_size: UNSET,
            min_ctas: UNSET,
            max_ctas: UNSET,
            net_name: std::ptr::null(),
            split_share: UNSET,
        }
    }
}

type InitRank = unsafe extern "C" fn(*mut Comm, c_int, IdByValue, c_int, *mut Config) -> c_int;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
type ReduceScatter = AllReduce;
type AllGather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, *mut c_void) -> c_int;
type Broadcast = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;

/// The loaded library.
pub(super) struct Nccl {
    get_unique_id: unsafe extern "C" fn(*mut IdByValue) -> c_int,
    init_rank_config: InitRank,
    get_async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    finalize: unsafe extern "C" fn(Comm) -> c_int,
    destroy: unsafe extern "C" fn(Comm) -> c_int,
    abort: unsafe extern "C" fn(Comm) -> c_int,
    all_reduce: AllReduce,
    reduce_scatter: ReduceScatter,
    all_gather: AllGather,
    broadcast: Broadcast,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Comm) -> *const c_char,
    /// Keeps the functions where they are.
    library: Library,
}

impl Nccl {
    /// The library, loaded at the first call.
    pub(super) fn get() -> Result<&'static Self, Unavailable> {
        static LOADED: OnceLock<Result<Nccl, Unavailable>> = OnceLock::new();
        LOADED.get_or_init(|| Self::load("libnccl.so.2")).as_ref().map_err(Clone::clone)
    }

    fn load(name: &str) -> Result<Self, Unavailable> {
        let missing = |error: libloading::Error| Unavailable::of(name, &error);
        // SAFETY: NCCL's initialisers have no preconditions.
        let library = unsafe { Library::new(name) }.map_err(missing)?;
        // SAFETY: the types are those of nccl.h for these names; the symbols live as long as `library`, which moves along.
        let nccl = unsafe {
            Self {
                get_unique_id: *library.get(b"ncclGetUniqueId").map_err(missing)?,
                init_rank_config: *library.get(b"ncclCommInitRankConfig").map_err(missing)?,
                get_async_error: *library.get(b"ncclCommGetAsyncError").map_err(missing)?,
                finalize: *library.get(b"ncclCommFinalize").map_err(missing)?,
                destroy: *library.get(b"ncclCommDestroy").map_err(missing)?,
                abort: *library.get(b"ncclCommAbort").map_err(missing)?,
                all_reduce: *library.get(b"ncclAllReduce").map_err(missing)?,
                reduce_scatter: *library.get(b"ncclReduceScatter").map_err(missing)?,
                all_gather: *library.get(b"ncclAllGather").map_err(missing)?,
                broadcast: *library.get(b"ncclBroadcast").map_err(missing)?,
                get_error_string: *library.get(b"ncclGetErrorString").map_err(missing)?,
                get_last_error: *library.get(b"ncclGetLastError").map_err(missing)?,
                library,
            }
        };
        // SAFETY: as above; the version is looked up on its own so that an old library is named as such.
        let version = unsafe {
            let get_version: unsafe extern "C" fn(*mut c_int) -> c_int =
                *nccl.library.get(b"ncclGetVersion").map_err(missing)?;
            let mut version = 0;
            get_version(&raw mut version);
            version
        };
        if version < OLDEST {
            return Err(Unavailable(format!("{name} has version {version}, at least {OLDEST} is needed")));
        }
        Ok(nccl)
    }

    /// Turns a return code into an error; calls that go on in the background are fine.
    pub(super) fn check(&self, attempted: &'static str, comm: Comm, code: c_int) -> Result<()> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: both return static or communicator-owned strings, which are copied at once; a null communicator is allowed.
        let (name, detail) = unsafe { (text((self.get_error_string)(code)), text((self.get_last_error)(comm))) };
        Err(Error::Device { attempted, message: format!("{name} (NCCL code {code}) {detail}").trim_end().to_owned() })
    }

    pub(super) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = IdByValue { internal: [0; 128] };
        // SAFETY: the pointer is to a whole id.
        let code = unsafe { (self.get_unique_id)(&raw mut id) };
        self.check("make an NCCL id", std::ptr::null_mut(), code)?;
        Ok(id.internal)
    }

    /// Begins to form a communicator on the current CUDA device.
    pub(super) fn init(&self, world: u32, rank: u32, id: &UniqueId) -> Result<Comm> {
        let mut comm: Comm = std::ptr::null_mut();
        let mut config = Config::non_blocking();
        let id = IdByValue { internal: *id };
        // SAFETY: both pointers are valid for the call, which copies the configuration.
        let code =
            unsafe { (self.init_rank_config)(&raw mut comm, world as c_int, id, rank as c_int, &raw mut config) };
        self.check("form the communicator", std::ptr::null_mut(), code)?;
        Ok(comm)
    }

    /// The state of a communicator: success, in progress, or an error.
    ///
    /// # Safety
    /// `comm` is a communicator of this library that was not aborted or destroyed, and no other thread is inside NCCL
    /// with it. This holds for all functions below.
    pub(super) unsafe fn state(&self, comm: Comm) -> Result<c_int> {
        let mut state = SUCCESS;
        // SAFETY: passed on to the caller.
        let code = unsafe { (self.get_async_error)(comm, &raw mut state) };
        self.check("ask NCCL for its state", comm, code)?;
        self.check("reduce over NCCL", comm, state)?;
        Ok(state)
    }

    /// # Safety
    /// As `state`; further, `ptr` is device memory of `len` elements that stays until the stream has passed the call.
    pub(super) unsafe fn sum(&self, ptr: u64, len: usize, dtype: DType, comm: Comm, stream: *mut c_void) -> Result<()> {
        let memory = ptr as *mut c_void;
        // SAFETY: passed on to the caller; in place is allowed.
        let code = unsafe { (self.all_reduce)(memory, memory, len, data_type(dtype), SUM, comm, stream) };
        self.check("reduce over NCCL", comm, code)
    }

    /// # Safety
    /// As `sum`; further, `len` divides by the number of ranks.
    pub(super) unsafe fn reduce_scatter(
        &self,
        (rank, world): (usize, usize),
        (ptr, len, dtype): (u64, usize, DType),
        comm: Comm,
        stream: *mut c_void,
    ) -> Result<()> {
        let share = len / world;
        let own = ptr + (rank * share * dtype.size()) as u64;
        let (memory, own) = (ptr as *const c_void, own as *mut c_void);
        // SAFETY: passed on to the caller; in place is allowed where the result is the rank's own segment.
        let code = unsafe { (self.reduce_scatter)(memory, own, share, data_type(dtype), SUM, comm, stream) };
        self.check("reduce and scatter over NCCL", comm, code)
    }

    /// # Safety
    /// As `reduce_scatter`.
    pub(super) unsafe fn all_gather(
        &self,
        (rank, world): (usize, usize),
        (ptr, len, dtype): (u64, usize, DType),
        comm: Comm,
        stream: *mut c_void,
    ) -> Result<()> {
        let share = len / world;
        let own = ptr + (rank * share * dtype.size()) as u64;
        let (memory, own) = (ptr as *mut c_void, own as *const c_void);
        // SAFETY: passed on to the caller; in place is allowed where what is sent is the rank's own segment.
        let code = unsafe { (self.all_gather)(own, memory, share, data_type(dtype), comm, stream) };
        self.check("gather over NCCL", comm, code)
    }

    /// # Safety
    /// As `sum`.
    pub(super) unsafe fn broadcast(
        &self,
        root: u32,
        (ptr, len, dtype): (u64, usize, DType),
        comm: Comm,
        stream: *mut c_void,
    ) -> Result<()> {
        let memory = ptr as *mut c_void;
        // SAFETY: passed on to the caller; in place is allowed.
        let code = unsafe { (self.broadcast)(memory, memory, len, data_type(dtype), root as c_int, comm, stream) };
        self.check("broadcast over NCCL", comm, code)
    }

    /// # Safety
    /// As `state`; only `state` and `destroy` may follow.
    pub(super) unsafe fn finalize(&self, comm: Comm) -> Result<()> {
        // SAFETY: passed on to the caller.
        let code = unsafe { (self.finalize)(comm) };
        self.check("finalize the communicator", comm, code)
    }

    /// # Safety
    /// As `state`, after `finalize` has come to success; nothing may follow.
    pub(super) unsafe fn destroy(&self, comm: Comm) {
        // SAFETY: passed on to the caller. A failure leaves nothing to be done.
        let _ = unsafe { (self.destroy)(comm) };
    }

    /// # Safety
    /// As `state`; nothing may follow.
    pub(super) unsafe fn abort(&self, comm: Comm) {
        // SAFETY: passed on to the caller. A failure leaves nothing to be done.
        let _ = unsafe { (self.abort)(comm) };
    }
}

/// `ncclDataType_t`.
fn data_type(dtype: DType) -> c_int {
    match dtype {
        DType::Bytes => 1,
        DType::U64 => 5,
        DType::F32 => 7,
        DType::F64 => 8,
        DType::Bf16 => 9,
    }
}

/// # Safety
/// `pointer` is null or a string that ends with a zero.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: passed on to the caller.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_the_loaders_reason() {
        let error = Nccl::load("libnccl-that-is-not-there.so.2").map(drop).unwrap_err();
        assert!(error.0.contains("libnccl-that-is-not-there.so.2"), "{error}");
        assert!(error.0.contains("cannot open shared object file"), "{error}");
    }

    #[test]
    fn a_library_that_is_not_nccl_is_refused() {
        let error = Nccl::load("libc.so.6").map(drop).unwrap_err();
        assert!(error.0.contains("ncclGetUniqueId"), "{error}");
    }

    #[test]
    fn the_configuration_has_the_layout_of_the_c_header() {
        assert_eq!(size_of::<Config>(), 48);
        assert_eq!(std::mem::offset_of!(Config, blocking), 16);
        assert_eq!(std::mem::offset_of!(Config, net_name), 32);
        assert_eq!(Config::non_blocking().size, 48);
    }
}
