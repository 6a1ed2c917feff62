//! The types of the runtime's C functions, and what all of these functions use.

use crate::report;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;

/// A pointer to an object, a block or a class.
pub(crate) type Id = *mut c_void;
/// A pointer to a registered name.
pub(crate) type Sel = *const c_char;
/// A method's function. The method's encoding gives its type.
pub(super) type Imp = unsafe extern "C-unwind" fn();

/// Reports a mistake after which the calling thread cannot continue, and panics.
#[track_caller]
pub(super) fn fail(what: fmt::Arguments<'_>) -> ! {
    let text = what.to_string();
    report::violation(&text);
    panic!("{text}")
}

/// The text at `name`.
///
/// # Safety
/// `name` is a C string that lives and does not change for `'a`.
pub(super) unsafe fn text<'a>(name: *const c_char) -> &'a CStr {
    // SAFETY: the caller vouches for it
    unsafe { CStr::from_ptr(name) }
}
