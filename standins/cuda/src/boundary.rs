//! Types of the C boundary that carry what the documentation promises about pointers, so that most
//! functions need no unsafe code.

use crate::codes::{CUDA_ERROR_INVALID_VALUE, Done};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// A place for a result: a pointer that is null or, as every function of the driver API asks, may
/// be written. It is passed as a plain pointer.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<'a, T>(Option<&'a mut MaybeUninit<T>>);

impl<'a, T> Out<'a, T> {
    /// The place to write to.
    pub fn to(place: &'a mut T) -> Out<'a, T> {
        // SAFETY: the layouts are the same, and only whole values of `T` are ever written through
        // it
        Out(Some(unsafe { &mut *std::ptr::from_mut(place).cast() }))
    }

    /// A null pointer.
    pub fn null() -> Out<'a, T> {
        Out(None)
    }

    /// For results that must not be null: found out before anything is done.
    pub(crate) fn needed(self) -> Done<Place<'a, T>> {
        self.0.map(Place).ok_or(CUDA_ERROR_INVALID_VALUE)
    }

    /// For results that may be left out.
    pub(crate) fn put(self, value: T) {
        if let Some(place) = self.0 {
            place.write(value);
        }
    }
}

/// A place that is there.
pub(crate) struct Place<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Place<'_, T> {
    pub(crate) fn put(self, value: T) {
        self.0.write(value);
    }
}

/// Reads a C string.
///
/// # Safety
/// It is null or ends with a zero, and nobody writes it meanwhile.
pub(crate) unsafe fn text(name: *const c_char) -> Done<String> {
    if name.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and the rest is the caller's word
    let name = unsafe { CStr::from_ptr(name) };
    Ok(name.to_string_lossy().into_owned())
}

/// Copies as much of a text as fits, with a zero at its end.
///
/// # Safety
/// `to` is null or has room for `room` bytes.
pub(crate) unsafe fn put_text(text: &str, to: *mut c_char, room: usize) {
    if to.is_null() || room == 0 {
        return;
    }
    let length = text.len().min(room - 1);
    // SAFETY: `length + 1` bytes fit, and a text of ours does not overlap a buffer of the caller
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), length);
        to.add(length).write(0);
    }
}
