//! Handles: keys of tables, never pointers. So a lookup detects an invalid handle: its object is
//! destroyed or has another parent, or it was never returned.

use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes the handles of one simulated machine from those of the next.
static EPOCH: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_epoch() -> u64 {
    EPOCH.fetch_add(1, Ordering::Relaxed) & 0xff
}

/// An object in a table. A lookup checks that the object has the expected parent.
pub(crate) trait Child {
    /// The handle of the device, instance or pool that it was created from.
    fn parent(&self) -> u64;
}

/// A handle is `kind + 1: 8 | epoch: 8 | serial: 44 | 0000`, and is never used twice. Kinds are
/// numbered as in `VkObjectType`.
#[derive(Debug)]
pub(crate) struct Table<H, T> {
    base: u64,
    next: u64,
    all: BTreeMap<u64, T>,
    handles: PhantomData<fn(H)>,
}

/// The object type of a handle of the stand-in.
pub(crate) fn kind_of(handle: u64) -> vk::ObjectType {
    vk::ObjectType::from_raw((handle >> 56) as i32 - 1)
}

/// The name of a handle in violations.
pub(crate) fn name_of(handle: u64) -> String {
    let kind = format!("{:?}", kind_of(handle))
        .to_lowercase()
        .replace('_', " ");
    format!("{kind} {handle:#x}")
}

impl<H: Handle + Copy, T: Child> Table<H, T> {
    pub(crate) fn new(epoch: u64) -> Table<H, T> {
        Table {
            base: (H::TYPE.as_raw() as u64 + 1) << 56 | epoch << 48,
            next: 1,
            all: BTreeMap::new(),
            handles: PhantomData,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> H {
        let handle = self.base | self.next << 4;
        self.next += 1;
        self.all.insert(handle, value);
        H::from_raw(handle)
    }

    /// The object, whatever its parent. An invalid handle is reported.
    pub(crate) fn find(&self, handle: H) -> VkResult<&T> {
        let raw = handle.as_raw();
        self.all.get(&raw).ok_or_else(|| self.missing(raw))
    }

    /// As `find`, without reporting an invalid handle.
    pub(crate) fn peek(&self, handle: H) -> Option<&T> {
        self.all.get(&handle.as_raw())
    }

    pub(crate) fn find_mut(&mut self, handle: H) -> VkResult<&mut T> {
        let raw = handle.as_raw();
        if !self.all.contains_key(&raw) {
            return Err(self.missing(raw));
        }
        self.all.get_mut(&raw).ok_or(vk::Result::ERROR_UNKNOWN)
    }

    /// As `find`, and reports an object of another parent.
    pub(crate) fn get(&self, parent: impl Handle, handle: H) -> VkResult<&T> {
        let found = self.find(handle)?;
        belongs(found, parent, handle)?;
        Ok(found)
    }

    pub(crate) fn get_mut(&mut self, parent: impl Handle, handle: H) -> VkResult<&mut T> {
        let found = self.find_mut(handle)?;
        belongs(found, parent, handle)?;
        Ok(found)
    }

    pub(crate) fn remove(&mut self, parent: impl Handle, handle: H) -> VkResult<T> {
        self.get(parent, handle)?;
        self.all
            .remove(&handle.as_raw())
            .ok_or(vk::Result::ERROR_UNKNOWN)
    }

    /// Removes all objects with this parent, and returns their handles.
    pub(crate) fn remove_all(&mut self, parent: impl Handle) -> Vec<u64> {
        let parent = parent.as_raw();
        let removed = self
            .all
            .iter()
            .filter(|(_, value)| value.parent() == parent);
        let removed: Vec<u64> = removed.map(|(handle, _)| *handle).collect();
        self.all.retain(|_, value| value.parent() != parent);
        removed
    }

    pub(crate) fn contains(&self, handle: u64) -> bool {
        self.all.contains_key(&handle)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (H, &T)> {
        self.all
            .iter()
            .map(|(handle, value)| (H::from_raw(*handle), value))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    fn missing(&self, handle: u64) -> vk::Result {
        let kind = format!("{:?}", H::TYPE).to_lowercase().replace('_', " ");
        let given = handle & !0xffff_ffff_ffff == self.base && handle & 0xf == 0;
        let serial = handle >> 4 & 0xfff_ffff_ffff;
        if given && (1..self.next).contains(&serial) {
            invalid_usage(&format!("{kind} {handle:#x} was destroyed"))
        } else {
            invalid_usage(&format!("{kind} {handle:#x} was never created"))
        }
    }
}

fn belongs<T: Child>(found: &T, parent: impl Handle, handle: impl Handle) -> VkResult {
    let (parent, handle) = (parent.as_raw(), handle.as_raw());
    if found.parent() == parent {
        return Ok(());
    }
    let (handle, parent) = (name_of(handle), name_of(parent));
    Err(invalid_usage(&format!(
        "{handle} does not belong to {parent}"
    )))
}

#[cfg(test)]
mod tests {
    use super::{Child, Table};
    use ash::vk::{Device, Fence, Handle, Result};

    impl Child for char {
        fn parent(&self) -> u64 {
            7
        }
    }

    #[test]
    fn an_invalid_handle_names_no_object() {
        let mut table = Table::<Fence, char>::new(1);
        let (own, other) = (Device::from_raw(7), Device::from_raw(8));
        let first = table.insert('a');
        assert_eq!(table.get(own, first), Ok(&'a'));
        let wrong = Err(Result::ERROR_VALIDATION_FAILED_EXT);
        assert_eq!(table.get(other, first).copied(), wrong);
        assert_eq!(table.remove(other, first), wrong);
        assert_eq!(table.remove(own, first), Ok('a'));
        assert_eq!(table.remove(own, first), wrong);
        let second = table.insert('b');
        assert_ne!(first, second);
        for made_up in [0, 1, second.as_raw() + 1, second.as_raw() + 16, u64::MAX] {
            assert_eq!(table.find(Fence::from_raw(made_up)).copied(), wrong);
        }
    }
}
