//! Types of the C boundary that carry what Vulkan's valid usage promises about pointers, so that
//! most functions need no unsafe code:
//! <https://docs.vulkan.org/spec/latest/chapters/fundamentals.html#fundamentals-validusage>.

use crate::calls::misuse;
use ash::vk;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// What a call gives: `Err` also for the results that are no errors, such as `NOT_READY`.
pub(crate) type Done<T = ()> = Result<T, vk::Result>;

/// The allocator that a function is given, which the stand-in does not use.
pub(crate) type Allocator<'a> = In<'a, vk::AllocationCallbacks<'a>>;

/// A pointer to a structure: null, or valid for the call. It is passed as a plain pointer.
#[repr(transparent)]
pub(crate) struct In<'a, T>(Option<&'a T>);

impl<'a, T> In<'a, T> {
    pub(crate) fn needed(self) -> Done<&'a T> {
        self.0.ok_or_else(|| misuse("a pointer is null"))
    }

    pub(crate) fn peek(&self) -> Option<&'a T> {
        self.0
    }
}

/// A place for a result: a pointer that is null, or may be written. It is passed as a plain
/// pointer.
#[repr(transparent)]
pub(crate) struct Out<'a, T>(Option<&'a mut MaybeUninit<T>>);

impl<'a, T> Out<'a, T> {
    /// For results that must not be null: found out before anything is done.
    pub(crate) fn needed(self) -> Done<Place<'a, T>> {
        self.0
            .map(Place)
            .ok_or_else(|| misuse("a place for a result is null"))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

/// A place that is there.
pub(crate) struct Place<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Place<'_, T> {
    pub(crate) fn put(self, value: T) {
        self.0.write(value);
    }
}

impl<T> Place<'_, T> {
    /// The first of `count` places.
    pub(crate) fn many(self, count: usize) -> Places<T> {
        Places {
            first: self.0.as_mut_ptr(),
            count,
        }
    }
}

/// As many places as the function was told of.
pub(crate) struct Places<T> {
    first: *mut T,
    count: usize,
}

impl<T> Places<T> {
    pub(crate) fn fill(self, values: impl IntoIterator<Item = T>) {
        for (index, value) in values.into_iter().take(self.count).enumerate() {
            // SAFETY: a `pX` parameter with a count must be a valid pointer to an array of that
            // many, and the index is below the count
            unsafe { self.first.add(index).write(value) };
        }
    }
}

/// A pointer that a function is told a count for. It is passed as a plain pointer.
#[repr(transparent)]
pub(crate) struct Array<'a, T>(Option<&'a T>);

impl<'a, T> Array<'a, T> {
    pub(crate) fn of(self, count: u32) -> &'a [T] {
        let first = self.0.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: a `pX` parameter with a count must be a valid pointer to an array of that many
        unsafe { slice(first, count) }
    }
}

/// The elements of an array in a structure.
///
/// # Safety
/// Null, or valid for so many elements for `'a`.
pub(crate) unsafe fn slice<'a, T>(first: *const T, count: u32) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null, and the rest is the caller's word
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}

/// What a pointer in a structure points to.
///
/// # Safety
/// Null, or valid for `'a`.
pub(crate) unsafe fn pointed<'a, T>(to: *const T) -> Option<&'a T> {
    // SAFETY: the caller's word
    unsafe { to.as_ref() }
}

/// The structures of an input chain.
pub(crate) fn chain<'a>(
    first: *const std::ffi::c_void,
) -> impl Iterator<Item = &'a vk::BaseInStructure<'a>> {
    let mut next: *const vk::BaseInStructure<'_> = first.cast();
    std::iter::from_fn(move || {
        // SAFETY: `pNext` must be null or a valid pointer to a structure that begins with a type
        // and the next pointer
        let found = unsafe { next.as_ref() }?;
        next = found.p_next;
        Some(found)
    })
}

/// Finds the structure of one type in an input chain.
pub(crate) fn find<'a, T: vk::TaggedStructure>(first: *const std::ffi::c_void) -> Option<&'a T> {
    let found = chain(first).find(|link| link.s_type == T::STRUCTURE_TYPE)?;
    // SAFETY: a structure with this `sType` must be of the type that belongs to it
    unsafe { pointed(std::ptr::from_ref(found).cast()) }
}

/// Walks an output chain: `fill` is given each structure's type and its address.
pub(crate) fn fill_chain(
    first: *mut std::ffi::c_void,
    mut fill: impl FnMut(vk::StructureType, *mut std::ffi::c_void),
) {
    let mut next: *mut vk::BaseOutStructure<'_> = first.cast();
    while !next.is_null() {
        // SAFETY: `pNext` must be null or a valid pointer to a structure that begins with a type
        // and the next pointer
        let (kind, after) = unsafe { ((*next).s_type, (*next).p_next) };
        fill(kind, next.cast());
        next = after;
    }
}

/// Two calls, the first for the count: `vkEnumerate…` and `vkGet…` functions with a count and an
/// array.
pub(crate) fn enumerate<T>(
    count: *mut u32,
    places: Out<'_, T>,
    values: impl ExactSizeIterator<Item = T>,
) -> Done {
    if count.is_null() {
        return Err(misuse("the count is null"));
    }
    let have = values.len() as u32;
    if places.is_null() {
        // SAFETY: the count must be a valid pointer
        unsafe { count.write(have) };
        return Ok(());
    }
    // SAFETY: the count must be a valid pointer to the size of the array
    let room = unsafe { count.read() };
    places.needed()?.many(room as usize).fill(values);
    // SAFETY: as above
    unsafe { count.write(room.min(have)) };
    if room < have {
        Err(vk::Result::INCOMPLETE)
    } else {
        Ok(())
    }
}

/// Reads a C string.
///
/// # Safety
/// It is null or ends with a zero, and nobody writes it meanwhile.
pub(crate) unsafe fn text(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, and the rest is the caller's word
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
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

/// A text in a fixed array of characters.
pub(crate) fn characters<const N: usize>(text: &str) -> [c_char; N] {
    let mut all = [0; N];
    for (to, from) in all.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from as c_char;
    }
    all
}
