//! Handles: keys of tables with a generation, never pointers. So a lookup detects an invalid
//! handle: its object is destroyed, or it was never returned.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Distinguishes the handles of one simulated machine from those of the next.
static EPOCH: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn next_epoch() -> usize {
    EPOCH.fetch_add(1, Ordering::Relaxed) & 0xff
}

/// Why a handle names no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidHandle {
    /// Its object was destroyed.
    Destroyed,
    /// The table never returned it.
    Unknown,
}

#[derive(Debug)]
struct Slot<T> {
    generation: usize,
    value: Option<T>,
}

/// A handle is `kind: 8 | epoch: 8 | generation: 20 | index + 1: 24 | 0000`. So it is never one of
/// the small special stream handles, and never equal to a handle of another table.
#[derive(Debug)]
pub(crate) struct Table<T> {
    base: usize,
    slots: Vec<Slot<T>>,
    /// Free slots, the most recently freed last.
    recycled: Vec<usize>,
}

const GENERATIONS: usize = 1 << 20;

impl<T> Table<T> {
    pub(crate) fn new(kind: u8, epoch: usize) -> Table<T> {
        Table {
            base: (kind as usize) << 56 | epoch << 48,
            slots: Vec::new(),
            recycled: Vec::new(),
        }
    }

    fn handle(&self, index: usize) -> usize {
        self.base | self.slots[index].generation << 28 | (index + 1) << 4
    }

    fn index(&self, handle: usize) -> Option<usize> {
        let index = (handle >> 4 & 0xff_ffff).checked_sub(1)?;
        (handle & !0xffff_ffff_ffff == self.base && handle & 0xf == 0 && index < self.slots.len())
            .then_some(index)
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let index = match self.recycled.pop() {
            Some(index) => {
                self.slots[index].value = Some(value);
                index
            }
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    value: Some(value),
                });
                self.slots.len() - 1
            }
        };
        self.handle(index)
    }

    /// With `recycle`, the next insert returns the same handle again. Real drivers do so, since
    /// their handles are addresses.
    pub(crate) fn remove(&mut self, handle: usize, recycle: bool) -> Result<T, InvalidHandle> {
        let Some(index) = self.index(handle).filter(|&p| self.handle(p) == handle) else {
            return Err(self.invalid(handle));
        };
        let value = self.slots[index]
            .value
            .take()
            .ok_or(InvalidHandle::Destroyed)?;
        if !recycle {
            self.slots[index].generation = (self.slots[index].generation + 1) % GENERATIONS;
        }
        self.recycled.push(index);
        Ok(value)
    }

    pub(crate) fn get(&self, handle: usize) -> Result<&T, InvalidHandle> {
        self.index(handle)
            .filter(|&index| self.handle(index) == handle)
            .and_then(|index| self.slots[index].value.as_ref())
            .ok_or_else(|| self.invalid(handle))
    }

    pub(crate) fn get_mut(&mut self, handle: usize) -> Result<&mut T, InvalidHandle> {
        let why = self.invalid(handle);
        self.index(handle)
            .filter(|&index| self.handle(index) == handle)
            .and_then(|index| self.slots[index].value.as_mut())
            .ok_or(why)
    }

    fn invalid(&self, handle: usize) -> InvalidHandle {
        match self.index(handle) {
            Some(index) if handle >> 28 & (GENERATIONS - 1) <= self.slots[index].generation => {
                InvalidHandle::Destroyed
            }
            _ => InvalidHandle::Unknown,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value.as_ref().map(|value| (self.handle(index), value))
        })
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidHandle, Table};

    #[test]
    fn a_stale_handle_is_distinguished_from_a_made_up_one() {
        let mut table = Table::new(0x11, 0);
        let first = table.insert('a');
        assert_eq!(table.get(first), Ok(&'a'));
        assert_eq!(table.remove(first, false), Ok('a'));
        assert_eq!(table.get(first), Err(InvalidHandle::Destroyed));
        let second = table.insert('b');
        assert_ne!(first, second);
        assert_eq!(table.get(first), Err(InvalidHandle::Destroyed));
        assert_eq!(table.remove(first, false), Err(InvalidHandle::Destroyed));
        for made_up in [
            0,
            1,
            2,
            second + 1,
            second + 16,
            second ^ 1 << 57,
            usize::MAX,
        ] {
            assert_eq!(
                table.get(made_up),
                Err(InvalidHandle::Unknown),
                "{made_up:#x}"
            );
        }
    }

    #[test]
    fn a_recycled_handle_names_the_new_object() {
        let mut table = Table::new(0x11, 0);
        let first = table.insert('a');
        assert_eq!(table.remove(first, true), Ok('a'));
        assert_eq!(table.get(first), Err(InvalidHandle::Destroyed));
        assert_eq!(table.insert('b'), first);
        assert_eq!(table.get(first), Ok(&'b'));
    }
}
