//! Strings across the C boundary, and the paths of libraries, for the stand-ins that are loaded as
//! libraries.

#![allow(unsafe_code)]

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

/// Reads a C string; `None` for null.
///
/// # Safety
/// `text` is null or a C string that no thread writes meanwhile.
pub unsafe fn read_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller vouches for the rest
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// Copies as much of `text` as fits, and a terminating zero. Returns the full length.
///
/// # Safety
/// `to` is null or has space for `size` bytes.
pub unsafe fn write_text(text: &str, to: *mut c_char, size: usize) -> usize {
    if to.is_null() || size == 0 {
        return text.len();
    }
    let length = text.len().min(size - 1);
    // SAFETY: `length + 1` bytes fit, and a Rust string does not overlap the caller's buffer
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), length);
        to.add(length).write(0);
    }
    text.len()
}

/// The text that `fill` writes to a buffer of a given size, and whose full length it returns. Long
/// texts are cut.
pub fn text_from(fill: impl FnOnce(*mut c_char, usize) -> usize) -> String {
    let mut bytes = vec![0; 1 << 14];
    let length = fill(bytes.as_mut_ptr().cast(), bytes.len());
    bytes.truncate(length.min(bytes.len() - 1));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A C string; empty if `name` has a zero in it, which no name has.
pub fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// The path of the library of a crate, if cargo has built it beside the running test.
pub fn library_path(crate_name: &str) -> Option<PathBuf> {
    let name = format!("{DLL_PREFIX}{crate_name}{DLL_SUFFIX}");
    let program = std::env::current_exe().ok()?;
    program
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|folder| [folder.join(&name), folder.join("deps").join(&name)])
        .find(|path| path.is_file())
}
