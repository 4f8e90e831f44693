//! The few calls of the CUDA driver that order our stream with the caller's.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use libloading::Library;

use super::Unavailable;
use crate::{Error, Result};

const SUCCESS: c_int = 0;
const NOT_READY: c_int = 600;
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;
const POINTER_ATTRIBUTE_MEMORY_TYPE: c_int = 2;
const POINTER_ATTRIBUTE_DEVICE_ORDINAL: c_int = 9;
const MEMORY_TYPE_DEVICE: c_uint = 2;

type Handle = *mut c_void;

/// The functions of `libcuda.so.1`; the types are those of cuda.h.
pub(super) struct Driver {
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    primary_retain: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    primary_release: unsafe extern "C" fn(c_int) -> c_int,
    context_push: unsafe extern "C" fn(Handle) -> c_int,
    context_pop: unsafe extern "C" fn(*mut Handle) -> c_int,
    stream_create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    stream_destroy: unsafe extern "C" fn(Handle) -> c_int,
    stream_wait_event: unsafe extern "C" fn(Handle, Handle, c_uint) -> c_int,
    event_create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    event_destroy: unsafe extern "C" fn(Handle) -> c_int,
    event_record: unsafe extern "C" fn(Handle, Handle) -> c_int,
    event_query: unsafe extern "C" fn(Handle) -> c_int,
    pointer_attribute: unsafe extern "C" fn(*mut c_void, c_int, u64) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
    pub(super) device_count: u32,
    /// Keeps the functions where they are.
    library: Library,
}

/// The driver, loaded and initialised at the first call.
pub(super) fn driver() -> Result<&'static Driver, Unavailable> {
    static LOADED: OnceLock<Result<Driver, Unavailable>> = OnceLock::new();
    LOADED.get_or_init(Driver::load).as_ref().map_err(Clone::clone)
}

impl Driver {
    fn load() -> Result<Self, Unavailable> {
        let missing = |error: libloading::Error| Unavailable::of("libcuda.so.1", &error);
        // SAFETY: the driver's initialisers have no preconditions.
        let library = unsafe { Library::new("libcuda.so.1") }.map_err(missing)?;
        // SAFETY: the types are those of cuda.h for these names (with the suffixes that its macros give them); the symbols
        // live as long as `library`, which moves along.
        let mut driver = unsafe {
            let init: unsafe extern "C" fn(c_uint) -> c_int = *library.get(b"cuInit").map_err(missing)?;
            let code = init(0);
            if code != SUCCESS {
                return Err(Unavailable(format!("cuInit of libcuda.so.1 failed with code {code}; is there a GPU?")));
            }
            Self {
                device_get: *library.get(b"cuDeviceGet").map_err(missing)?,
                primary_retain: *library.get(b"cuDevicePrimaryCtxRetain").map_err(missing)?,
                primary_release: *library.get(b"cuDevicePrimaryCtxRelease_v2").map_err(missing)?,
                context_push: *library.get(b"cuCtxPushCurrent_v2").map_err(missing)?,
                context_pop: *library.get(b"cuCtxPopCurrent_v2").map_err(missing)?,
                stream_create: *library.get(b"cuStreamCreate").map_err(missing)?,
                stream_destroy: *library.get(b"cuStreamDestroy_v2").map_err(missing)?,
                stream_wait_event: *library.get(b"cuStreamWaitEvent").map_err(missing)?,
                event_create: *library.get(b"cuEventCreate").map_err(missing)?,
                event_destroy: *library.get(b"cuEventDestroy_v2").map_err(missing)?,
                event_record: *library.get(b"cuEventRecord").map_err(missing)?,
                event_query: *library.get(b"cuEventQuery").map_err(missing)?,
                pointer_attribute: *library.get(b"cuPointerGetAttribute").map_err(missing)?,
                error_string: *library.get(b"cuGetErrorString").map_err(missing)?,
                device_count: 0,
                library,
            }
        };
        let mut count = 0;
        // SAFETY: as above; the pointer is to an int.
        let code = unsafe {
            let get_count: unsafe extern "C" fn(*mut c_int) -> c_int =
                *driver.library.get(b"cuDeviceGetCount").map_err(missing)?;
            get_count(&raw mut count)
        };
        if code != SUCCESS || count == 0 {
            return Err(Unavailable("the CUDA driver shows no GPU".to_owned()));
        }
        driver.device_count = count as u32;
        Ok(driver)
    }

    fn check(&self, attempted: &'static str, code: c_int) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the pointer is to a place for a pointer; a set result is a static string.
        let message = unsafe {
            (self.error_string)(code, &raw mut text);
            if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(Error::Device { attempted, message: format!("{message} (CUDA code {code})") })
    }

    /// Makes something that the driver returns a handle for.
    fn create(&self, attempted: &'static str, call: impl FnOnce(*mut Handle) -> c_int) -> Result<Handle> {
        let mut handle = std::ptr::null_mut();
        self.check(attempted, call(&raw mut handle))?;
        Ok(handle)
    }
}

/// A GPU and its primary context, which libtorch uses as well.
pub(super) struct Device {
    driver: &'static Driver,
    ordinal: c_int,
    context: Handle,
}
// SAFETY: contexts belong to the process; the driver takes calls from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    pub(super) fn open(driver: &'static Driver, ordinal: u32) -> Result<Arc<Self>> {
        let mut device = 0;
        // SAFETY: the pointer is to a device number.
        let code = unsafe { (driver.device_get)(&raw mut device, ordinal as c_int) };
        driver.check("open the GPU", code)?;
        // SAFETY: `device` is valid; the context is released in drop.
        let retain = |context| unsafe { (driver.primary_retain)(context, device) };
        let context = driver.create("open the GPU", retain)?;
        Ok(Arc::new(Self { driver, ordinal: device, context }))
    }

    /// Makes the GPU current on this thread until the guard goes.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        // SAFETY: the context is retained while `self` lives.
        self.driver.check("select the GPU", unsafe { (self.driver.context_push)(self.context) })?;
        Ok(Current { driver: self.driver, device: PhantomData, thread: PhantomData })
    }

    /// Fails unless the address is memory of this GPU.
    pub(super) fn check_address(&self, ptr: u64) -> Result<()> {
        let (mut kind, mut ordinal): (c_uint, c_int) = (0, -1);
        // SAFETY: both attributes are ints; the driver only looks the address up.
        let codes = unsafe {
            [
                (self.driver.pointer_attribute)((&raw mut kind).cast(), POINTER_ATTRIBUTE_MEMORY_TYPE, ptr),
                (self.driver.pointer_attribute)((&raw mut ordinal).cast(), POINTER_ATTRIBUTE_DEVICE_ORDINAL, ptr),
            ]
        };
        if codes == [SUCCESS; 2] && kind == MEMORY_TYPE_DEVICE && ordinal == self.ordinal {
            return Ok(());
        }
        let what = format!("address {ptr:#x}, which is not memory of GPU {}", self.ordinal);
        Err(Error::Unsupported { operation: "a call on device memory", what })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`. A failure leaves nothing to be done.
        let _ = unsafe { (self.driver.primary_release)(self.ordinal) };
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.ordinal)
    }
}

/// The GPU is current on this thread; the guard stays on it.
pub(super) struct Current<'a> {
    driver: &'static Driver,
    device: PhantomData<&'a Device>,
    thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let _ = (self.device, self.thread);
        let mut popped = std::ptr::null_mut();
        // SAFETY: pops what `enter` pushed on this thread.
        let _ = unsafe { (self.driver.context_pop)(&raw mut popped) };
    }
}

/// A stream of ours, which does not wait for the default stream.
#[derive(Debug)]
pub(super) struct Stream {
    device: Arc<Device>,
    handle: Handle,
}
// SAFETY: stream handles may be used from any thread.
unsafe impl Send for Stream {}

impl Stream {
    /// Makes a stream; the device is current.
    pub(super) fn new(device: &Arc<Device>) -> Result<Self> {
        // SAFETY: the pointer is to a place for the handle, which drop destroys.
        let make = |handle| unsafe { (device.driver.stream_create)(handle, STREAM_NON_BLOCKING) };
        let handle = device.driver.create("make a CUDA stream", make)?;
        Ok(Self { device: Arc::clone(device), handle })
    }

    pub(super) fn raw(&self) -> Handle {
        self.handle
    }

    pub(super) fn handle(&self) -> u64 {
        self.handle as u64
    }

    /// Makes later work of this stream wait for the event.
    pub(super) fn wait_for(&self, event: &Event) -> Result<()> {
        event.order(self.handle())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once; the driver finishes the work that it holds.
        let _ = unsafe { (self.device.driver.stream_destroy)(self.handle) };
    }
}

/// A mark in the order of a stream; may be set again and again.
#[derive(Debug)]
pub(super) struct Event {
    device: Arc<Device>,
    handle: Handle,
}
// SAFETY: event handles may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// Makes an event; the device is current.
    pub(super) fn new(device: &Arc<Device>) -> Result<Self> {
        // SAFETY: the pointer is to a place for the handle, which drop destroys.
        let make = |handle| unsafe { (device.driver.event_create)(handle, EVENT_DISABLE_TIMING) };
        let handle = device.driver.create("make a CUDA event", make)?;
        Ok(Self { device: Arc::clone(device), handle })
    }

    /// Sets the mark after all that the stream holds now.
    pub(super) fn record(&self, stream: u64) -> Result<()> {
        let driver = self.device.driver;
        // SAFETY: the event is ours; the stream is ours or, by the contract of `DeviceBuffer`, a live one of the owner.
        driver.check("record a CUDA event", unsafe { (driver.event_record)(self.handle, stream as Handle) })
    }

    /// Makes later work of the stream wait for the mark.
    pub(super) fn order(&self, stream: u64) -> Result<()> {
        let driver = self.device.driver;
        // SAFETY: as in `record`.
        let code = unsafe { (driver.stream_wait_event)(stream as Handle, self.handle, 0) };
        driver.check("order CUDA streams", code)
    }

    /// Whether the GPU has passed the mark.
    pub(super) fn is_reached(&self) -> Result<bool> {
        let driver = self.device.driver;
        // SAFETY: the event is ours.
        match unsafe { (driver.event_query)(self.handle) } {
            NOT_READY => Ok(false),
            code => driver.check("wait for the GPU", code).map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. A failure leaves nothing to be done.
        let _ = unsafe { (self.device.driver.event_destroy)(self.handle) };
    }
}
