//! The calls that threads have made, with their times, for `fencepost watch --trace`.
//!
//! A thread writes its calls into a list of its own, and the watching thread takes them away
//! several times a second: see `batch.rs`. A list has room for [`MOST`] calls; those beyond are
//! counted. Nothing of this is done unless it is asked for.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::lock::Lock;

/// The variable that asks for it.
const TRACE: &str = "FENCEPOST_WATCH_TRACE";
/// How many calls of a thread are kept until they are sent.
const MOST: usize = 1 << 16;
/// How many kernels have names.
const KERNELS: usize = 1 << 16;

static ON: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Keeps calls from now on, if the variable says so.
pub(crate) fn start() {
    let asked = std::env::var_os(TRACE).is_some_and(|value| value == "1");
    ON.store(asked, Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Nanoseconds of the clock that the traces of all processes share.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A record, by the number of its stream and its own among those of the stream. Zeros: none.
pub(crate) type Marker = (u64, u64);

/// A call that has returned.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) tid: i32,
    /// Where CUPTI keeps the function's name.
    pub(crate) name: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The number of its stream; 0: none.
    pub(crate) stream: u64,
    /// The number of a launch's kernel; 0: none.
    pub(crate) kernel: u32,
    /// What it recorded, and what it made its stream wait for.
    pub(crate) recorded: Marker,
    pub(crate) awaited: Marker,
    pub(crate) code: c_int,
}

pub(crate) fn keep(list: &Lock<Vec<Traced>>, call: Traced) {
    let mut list = list.lock();
    if list.len() < MOST {
        list.push(call);
    } else {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many calls had no room.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The symbols of kernels, by numbers from 1 on.
struct Kernels {
    symbols: Vec<Vec<u8>>,
    numbers: BTreeMap<Vec<u8>, u32>,
    /// By address: what is there may change where a module is unloaded.
    by_address: BTreeMap<usize, u32>,
    unloaded: u64,
}

static KERNELS_SEEN: Lock<Kernels> = Lock::new(Kernels {
    symbols: Vec::new(),
    numbers: BTreeMap::new(),
    by_address: BTreeMap::new(),
    unloaded: 0,
});

/// The number of a kernel; 0 where it has none. `unloaded` counts the modules that were unloaded.
///
/// # Safety
/// `symbol` is null or a C string.
pub(crate) unsafe fn kernel(symbol: *const c_char, unloaded: u64) -> u32 {
    if symbol.is_null() {
        return 0;
    }
    let mut kernels = KERNELS_SEEN.lock();
    if kernels.unloaded != unloaded {
        kernels.unloaded = unloaded;
        kernels.by_address.clear();
    }
    if let Some(&number) = kernels.by_address.get(&symbol.addr()) {
        return number;
    }
    // SAFETY: the caller vouches for it
    let text = unsafe { CStr::from_ptr(symbol) }.to_bytes();
    let number = match kernels.numbers.get(text) {
        Some(&number) => number,
        None if kernels.symbols.len() < KERNELS => {
            kernels.symbols.push(text.to_vec());
            let number = kernels.symbols.len() as u32;
            kernels.numbers.insert(text.to_vec(), number);
            number
        }
        None => 0,
    };
    kernels.by_address.insert(symbol.addr(), number);
    number
}

/// The symbol of the kernel of this number.
pub(crate) fn symbol(number: u32) -> Option<Vec<u8>> {
    let at = number.checked_sub(1)?;
    KERNELS_SEEN.lock().symbols.get(at as usize).cloned()
}
