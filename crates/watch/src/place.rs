//! Lines of the watched program, if it is Python and somebody asks for them.
//!
//! A thread calls the driver with or without the interpreter's lock: PyTorch launches kernels
//! without it. Taking it here could make threads wait for each other that do not otherwise. So the
//! interpreter is asked as its own fault handler asks: `_Py_DumpTraceback` needs no lock, and
//! writes the thread's own lines to a descriptor. That takes some microseconds, which is why it is
//! done only where it is asked for. CPython 3.11 and 3.12 export it; of 3.13, see `frames.rs`.

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use fencepost::{Place, bindings};

use crate::{driver, frames::Frames};

/// The line that made a call, where somebody looked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line(pub(crate) Option<Place>);

impl Line {
    pub(crate) const UNKNOWN: Line = Line(None);

    /// In words behind others: `, recorded at train.py:7`.
    pub(crate) fn after(self, what: &str) -> String {
        match self.0 {
            Some(place) => format!(", {what} at {place}"),
            None => String::new(),
        }
    }
}

/// The variable that asks for lines.
const LINES: &str = "FENCEPOST_WATCH_LINES";

static ASKED_FOR: AtomicBool = AtomicBool::new(false);

/// Looks for lines from now on, if the variable says so.
pub(crate) fn start() {
    let asked = std::env::var_os(LINES).is_some_and(|value| value == "1");
    ASKED_FOR.store(asked, Ordering::Relaxed);
}

/// The line of the program that makes the call that is being followed.
#[inline]
pub(crate) fn line() -> Line {
    match ASKED_FOR.load(Ordering::Relaxed) {
        true => look(),
        false => Line::UNKNOWN,
    }
}

type ThisThread = unsafe extern "C" fn() -> *mut c_void;
type Dump = unsafe extern "C" fn(c_int, *mut c_void);

#[derive(Clone, Copy, Debug)]
struct Python {
    this_thread: ThisThread,
    dump: Dump,
}

/// The interpreter of the process; `None`: it is no Python, or of a version without the function.
fn python() -> Option<Python> {
    static PYTHON: OnceLock<Option<Python>> = OnceLock::new();
    *PYTHON.get_or_init(|| {
        let this_thread = driver::symbol(libc::RTLD_DEFAULT, "PyGILState_GetThisThreadState")?;
        let dump = driver::symbol(libc::RTLD_DEFAULT, "_Py_DumpTraceback")?;
        // SAFETY: CPython declares the functions of these names with these types
        unsafe {
            Some(Python {
                this_thread: std::mem::transmute::<*mut c_void, ThisThread>(this_thread),
                dump: std::mem::transmute::<*mut c_void, Dump>(dump),
            })
        }
    })
}

fn frames() -> Option<Frames> {
    static FRAMES: OnceLock<Option<Frames>> = OnceLock::new();
    *FRAMES.get_or_init(Frames::find)
}

/// Whether lines are asked for of an interpreter that does not tell them.
pub(crate) fn are_untold() -> bool {
    ASKED_FOR.load(Ordering::Relaxed)
        && python().is_none()
        && frames().is_none()
        && driver::symbol(libc::RTLD_DEFAULT, "Py_IsInitialized").is_some()
}

/// A file in memory that one thread writes to and reads.
struct Memory {
    descriptor: c_int,
    /// The program may close the descriptor and open another file under its number.
    identity: (u64, u64),
}

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// How much of a thread's lines is read: those of the innermost functions come first.
const READ: usize = 8192;

impl Memory {
    fn new() -> Option<Memory> {
        let name = c"fencepost-watch".as_ptr();
        // SAFETY: the name is a C string
        let low = unsafe { libc::memfd_create(name, libc::MFD_CLOEXEC) };
        let lowest = crate::channel::LOWEST;
        // SAFETY: the descriptor is open, or -1
        let descriptor = unsafe { libc::fcntl(low, libc::F_DUPFD_CLOEXEC, lowest) };
        // SAFETY: the descriptor is ours
        unsafe { libc::close(low) };
        Some(Memory {
            identity: crate::channel::identity(descriptor)?,
            descriptor,
        })
    }

    /// The lines of the calling thread.
    fn dump(&self, python: Python) -> Option<String> {
        if crate::channel::identity(self.descriptor) != Some(self.identity) {
            return None;
        }
        // SAFETY: it has no requirement
        let thread = unsafe { (python.this_thread)() };
        if thread.is_null() {
            return None;
        }
        let mut bytes = vec![0; READ];
        // SAFETY: the descriptor is a file, and the thread's state its own; the buffer has room
        let read = unsafe {
            libc::lseek(self.descriptor, 0, libc::SEEK_SET);
            libc::ftruncate(self.descriptor, 0);
            (python.dump)(self.descriptor, thread);
            libc::pread(self.descriptor, bytes.as_mut_ptr().cast(), READ, 0)
        };
        bytes.truncate(usize::try_from(read).unwrap_or(0));
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if crate::channel::identity(self.descriptor) == Some(self.identity) {
            // SAFETY: the descriptor is ours
            unsafe { libc::close(self.descriptor) };
        }
    }
}

#[cold]
fn look() -> Line {
    let text = match python() {
        Some(python) => dumped(python),
        None => frames().and_then(|frames| frames.text()),
    };
    let line = text.as_deref().and_then(own_line);
    Line(line.map(|(file, line)| bindings::place(file, line)))
}

fn dumped(python: Python) -> Option<String> {
    let dump = |memory: &RefCell<Option<Memory>>| {
        let mut memory = memory.borrow_mut();
        if memory.is_none() {
            *memory = Memory::new();
        }
        memory.as_ref()?.dump(python)
    };
    MEMORY.try_with(dump).ok().flatten()
}

/// The first line that is not of an installed package or of Python itself.
fn own_line(text: &str) -> Option<(&str, u32)> {
    let lines = || text.lines().filter_map(parse);
    let foreign = [
        "/site-packages/",
        "/dist-packages/",
        "/lib/python3",
        "<frozen ",
    ];
    let is_own = |(file, _): &(&str, u32)| !foreign.iter().any(|part| file.contains(part));
    lines().find(is_own).or_else(|| lines().next())
}

/// `  File "train.py", line 7 in main`.
fn parse(line: &str) -> Option<(&str, u32)> {
    let rest = line.trim_start().strip_prefix("File \"")?;
    let (file, rest) = rest.split_once("\", line ")?;
    let number = rest.split(' ').next()?;
    Some((file, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_line_is_taken() {
        let text = "Stack (most recent call first):\n  \
                    File \"/v/site-packages/torch/cuda/streams.py\", line 198 in record\n  \
                    File \"/home/train.py\", line 7 in step\n  \
                    File \"/home/train.py\", line 90 in <module>\n";
        assert_eq!(own_line(text), Some(("/home/train.py", 7)));
        let only = "  File \"/v/lib/python3.12/runpy.py\", line 3 in run\n";
        assert_eq!(own_line(only), Some(("/v/lib/python3.12/runpy.py", 3)));
        assert_eq!(own_line("no Python"), None);
    }
}
