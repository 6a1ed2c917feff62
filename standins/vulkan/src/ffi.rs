//! Types of the C boundary. Each stands for a pointer and for what Vulkan's valid usage says about
//! it, so that most functions need no unsafe code:
//! <https://docs.vulkan.org/spec/latest/chapters/fundamentals.html#fundamentals-validusage>.

use crate::usage::{VkResult, invalid_usage};
use ash::vk;
use fencepost_sim::ffi::read_text;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::time::Duration;

/// An allocator argument, which the stand-in ignores.
pub(crate) type Allocator<'a> = In<'a, vk::AllocationCallbacks<'a>>;

/// A pointer to a structure: null, or valid for the call. It has the layout of a plain pointer.
#[repr(transparent)]
pub(crate) struct In<'a, T>(Option<&'a T>);

impl<'a, T> In<'a, T> {
    pub(crate) fn required(self) -> VkResult<&'a T> {
        self.0.ok_or_else(|| invalid_usage("a pointer is null"))
    }

    pub(crate) fn peek(&self) -> Option<&'a T> {
        self.0
    }
}

/// A pointer to a result: null, or writable. It has the layout of a plain pointer.
#[repr(transparent)]
pub(crate) struct Out<'a, T>(Option<&'a mut MaybeUninit<T>>);

impl<'a, T> Out<'a, T> {
    /// For a result that must not be null. A function calls this before it changes anything.
    pub(crate) fn required(self) -> VkResult<Place<'a, T>> {
        self.0
            .map(Place)
            .ok_or_else(|| invalid_usage("a pointer to a result is null"))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

/// A pointer to a result that is not null.
pub(crate) struct Place<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Place<'_, T> {
    pub(crate) fn put(self, value: T) {
        self.0.write(value);
    }
}

impl<T> Place<'_, T> {
    /// The array of `count` results that begins here.
    pub(crate) fn many(self, count: usize) -> Places<T> {
        Places {
            first: self.0.as_mut_ptr(),
            count,
        }
    }
}

/// An array of results.
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

/// A pointer to an array whose length is another argument. It has the layout of a plain pointer.
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
/// `first` is null, or valid for `count` elements for `'a`.
pub(crate) unsafe fn slice<'a, T>(first: *const T, count: u32) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null, and the caller vouches for the rest
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}

/// What a pointer in a structure points to.
///
/// # Safety
/// `to` is null, or valid for `'a`.
pub(crate) unsafe fn pointed<'a, T>(to: *const T) -> Option<&'a T> {
    // SAFETY: the caller vouches for it
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

/// Walks an output chain, and calls `fill` with the type and address of each structure.
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

/// Returns an array as the `vkEnumerate…` functions do: the count alone if the array is null, else
/// as many elements as fit.
pub(crate) fn enumerate<T>(
    count: *mut u32,
    places: Out<'_, T>,
    values: impl ExactSizeIterator<Item = T>,
) -> VkResult {
    if count.is_null() {
        return Err(invalid_usage("the count is null"));
    }
    let have = values.len() as u32;
    if places.is_null() {
        // SAFETY: the count must be a valid pointer
        unsafe { count.write(have) };
        return Ok(());
    }
    // SAFETY: the count must be a valid pointer to the size of the array
    let room = unsafe { count.read() };
    places.required()?.many(room as usize).fill(values);
    // SAFETY: as above
    unsafe { count.write(room.min(have)) };
    if room < have {
        Err(vk::Result::INCOMPLETE)
    } else {
        Ok(())
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

/// The names in an array of C strings.
///
/// # Safety
/// `first` is null, or an array of `count` C strings.
pub(crate) unsafe fn names(first: *const *const c_char, count: u32) -> Vec<String> {
    // SAFETY: the caller vouches for it
    let all = unsafe { slice(first, count) };
    // SAFETY: as above
    all.iter()
        .filter_map(|name| unsafe { read_text(*name) })
        .collect()
}

pub(crate) fn extension_properties(name: &str) -> vk::ExtensionProperties {
    vk::ExtensionProperties {
        extension_name: characters(name),
        spec_version: 1,
    }
}

/// A timeout with all bits set is no limit.
pub(crate) fn timeout_of(ns: u64) -> Option<Duration> {
    (ns != u64::MAX).then(|| Duration::from_nanos(ns))
}
