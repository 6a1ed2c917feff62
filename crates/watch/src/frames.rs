//! The lines of a thread of CPython 3.13, whose fault handler is not exported.
//!
//! It tells debuggers where its structures have what: `_Py_DebugOffsets`, at the begin of
//! `_PyRuntime`
//! (<https://github.com/python/cpython/blob/3.13/Include/internal/pycore_runtime.h>). A thread reads
//! its own frames by that, without the interpreter's lock: it is inside a call that Python code has
//! made, so its frames stay as they are, and they keep their code and the names of its files.

use std::ffi::{c_int, c_void};

use crate::driver;

type ThisThread = unsafe extern "C" fn() -> *const u8;
type Line = unsafe extern "C" fn(*const u8) -> c_int;
type Length = unsafe extern "C" fn(*const u8) -> isize;
type ReadChar = unsafe extern "C" fn(*const u8, isize) -> u32;

/// As deep as the fault handler looks.
const DEEPEST: usize = 100;
/// `FRAME_OWNED_BY_CSTACK`: a frame of the interpreter, without code.
const OF_C: u8 = 3;
/// The version as in `PY_VERSION_HEX`, without its last two parts.
const VERSION: u64 = 0x030d;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    this_thread: ThisThread,
    line: Line,
    length: Length,
    read_char: ReadChar,
    /// The address of `PyCode_Type`.
    code: usize,
    /// Offsets, in a thread's state, a frame, a code object and any object.
    current_frame: usize,
    previous: usize,
    executable: usize,
    owner: usize,
    filename: usize,
    ob_type: usize,
}

impl Frames {
    /// `None`: the process has no CPython of this version, or a free-threaded one.
    pub(crate) fn find() -> Option<Frames> {
        let find = |name| driver::symbol(libc::RTLD_DEFAULT, name);
        let runtime = find("_PyRuntime")?.cast::<u64>().cast_const();
        // SAFETY: CPython's structure of this name is longer, and filled by the compiler
        let word = |at: usize| unsafe { runtime.add(at).read() };
        let is_known =
            word(0) == u64::from_ne_bytes(*b"xdebugpy") && word(1) >> 16 == VERSION && word(2) == 0;
        if !is_known {
            return None;
        }
        // The places of the offsets in the structure.
        let offset = |at: usize| word(at) as usize;
        // SAFETY: CPython declares the functions of these names with these types
        unsafe {
            Some(Frames {
                this_thread: std::mem::transmute::<*mut c_void, ThisThread>(find(
                    "PyGILState_GetThisThreadState",
                )?),
                line: std::mem::transmute::<*mut c_void, Line>(find(
                    "PyUnstable_InterpreterFrame_GetLine",
                )?),
                length: std::mem::transmute::<*mut c_void, Length>(find("PyUnicode_GetLength")?),
                read_char: std::mem::transmute::<*mut c_void, ReadChar>(find(
                    "PyUnicode_ReadChar",
                )?),
                code: find("PyCode_Type")?.addr(),
                current_frame: offset(23),
                previous: offset(29),
                executable: offset(30),
                owner: offset(33),
                filename: offset(35),
                ob_type: offset(45),
            })
        }
    }

    /// The lines of the calling thread, the innermost first, as the fault handler writes them.
    pub(crate) fn text(&self) -> Option<String> {
        // SAFETY: it has no requirement
        let thread = unsafe { (self.this_thread)() };
        if thread.is_null() {
            return None;
        }
        let mut text = String::new();
        // SAFETY: see the head of the file
        let mut frame = unsafe { pointer(thread, self.current_frame) };
        for _ in 0..DEEPEST {
            if frame.is_null() {
                break;
            }
            // SAFETY: as above
            if let Some((file, line)) = unsafe { self.place(frame) } {
                text.push_str(&format!("  File \"{file}\", line {line} in ?\n"));
            }
            // SAFETY: as above
            frame = unsafe { pointer(frame, self.previous) };
        }
        Some(text)
    }

    /// # Safety
    /// The frame is one of the calling thread.
    unsafe fn place(&self, frame: *const u8) -> Option<(String, c_int)> {
        // SAFETY: the caller vouches for the frame, which keeps its code
        unsafe {
            if frame.add(self.owner).read() == OF_C {
                return None;
            }
            let code = pointer(frame, self.executable);
            if code.is_null() || pointer(code, self.ob_type).addr() != self.code {
                return None;
            }
            let file = pointer(code, self.filename);
            let chars = (0..(self.length)(file)).map(|at| (self.read_char)(file, at));
            let file = chars.map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            Some((file.collect(), (self.line)(frame)))
        }
    }
}

/// # Safety
/// The structure has a pointer at this offset.
unsafe fn pointer(structure: *const u8, offset: usize) -> *const u8 {
    // SAFETY: the caller vouches for it
    unsafe { structure.add(offset).cast::<*const u8>().read() }
}
