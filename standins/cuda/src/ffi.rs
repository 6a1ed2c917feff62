//! Types of the C boundary. Each stands for a pointer and for what CUDA's documentation requires of
//! it, so that most functions need no unsafe code.

use crate::codes::{CUDA_ERROR_INVALID_VALUE, CudaResult};
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// A pointer to a result: null or writable, as every function of the driver API requires. It has
/// the layout of a plain pointer.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<'a, T>(Option<&'a mut MaybeUninit<T>>);

impl<'a, T> Out<'a, T> {
    /// A pointer to `place`.
    pub fn to(place: &'a mut T) -> Out<'a, T> {
        // SAFETY: the layouts are the same, and only whole values of `T` are written through it
        Out(Some(unsafe { &mut *std::ptr::from_mut(place).cast() }))
    }

    /// A null pointer.
    pub fn null() -> Out<'a, T> {
        Out(None)
    }

    /// Where it points to.
    pub(crate) fn pointer(&self) -> *const T {
        self.0
            .as_deref()
            .map_or(std::ptr::null(), |place| std::ptr::from_ref(place).cast())
    }

    /// For a result that must not be null. A function calls this before it changes anything.
    pub(crate) fn required(self) -> CudaResult<Place<'a, T>> {
        self.0.map(Place).ok_or(CUDA_ERROR_INVALID_VALUE)
    }

    /// For a result that may be null.
    pub(crate) fn put(self, value: T) {
        if let Some(place) = self.0 {
            place.write(value);
        }
    }
}

/// A pointer to a result that is not null.
pub(crate) struct Place<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Place<'_, T> {
    pub(crate) fn put(self, value: T) {
        self.0.write(value);
    }
}

/// Reads a C string.
///
/// # Safety
/// `name` is null or a C string that no thread writes during the call.
pub(crate) unsafe fn text(name: *const c_char) -> CudaResult<String> {
    // SAFETY: the caller vouches for it
    unsafe { fencepost_sim::ffi::read_text(name) }.ok_or(CUDA_ERROR_INVALID_VALUE)
}
