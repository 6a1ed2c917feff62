//! The types of the runtime's C functions, and what all of these functions use.

use crate::report;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;

/// A pointer to an object, a block or a class.
pub(crate) type Id = *mut c_void;
/// A pointer to a registered name.
pub(crate) type Sel = *const c_char;
/// A method's function, of whatever type its encoding says.
pub(super) type Imp = unsafe extern "C-unwind" fn();

/// A mistake that cannot be carried on from: written down, and a panic in the thread that makes it.
#[track_caller]
pub(super) fn fail(what: fmt::Arguments<'_>) -> ! {
    let text = what.to_string();
    report::violation(&text);
    panic!("{text}")
}

/// The text at `name`, for as long as the caller says.
///
/// # Safety
/// `name` is a C string that stays as it is for that long.
pub(super) unsafe fn text<'a>(name: *const c_char) -> &'a CStr {
    // SAFETY: the caller's word
    unsafe { CStr::from_ptr(name) }
}
