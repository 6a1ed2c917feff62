//! Handles: keys of tables with a generation, so that a stale or made-up one is found out and never
//! followed.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Tells the handles of one simulated machine from those of the next.
static EPOCH: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn next_epoch() -> usize {
    EPOCH.fetch_add(1, Ordering::Relaxed) & 0xff
}

/// Why a handle names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It named something once.
    Destroyed,
    /// This table never gave it out.
    Unknown,
}

#[derive(Debug)]
struct Place<T> {
    generation: usize,
    value: Option<T>,
}

/// A handle is `kind: 8 | epoch: 8 | generation: 20 | place + 1: 24 | 0000`: never small, so never
/// one of the special stream handles, and of another kind than the handles of other tables.
#[derive(Debug)]
pub(crate) struct Table<T> {
    base: usize,
    places: Vec<Place<T>>,
    /// Places whose handle is given out again, newest first.
    recycled: Vec<usize>,
}

const GENERATIONS: usize = 1 << 20;

impl<T> Table<T> {
    pub(crate) fn new(kind: u8, epoch: usize) -> Table<T> {
        Table {
            base: (kind as usize) << 56 | epoch << 48,
            places: Vec::new(),
            recycled: Vec::new(),
        }
    }

    fn handle(&self, place: usize) -> usize {
        self.base | self.places[place].generation << 28 | (place + 1) << 4
    }

    fn place(&self, handle: usize) -> Option<usize> {
        let place = (handle >> 4 & 0xff_ffff).checked_sub(1)?;
        (handle & !0xffff_ffff_ffff == self.base && handle & 0xf == 0 && place < self.places.len())
            .then_some(place)
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let place = match self.recycled.pop() {
            Some(place) => {
                self.places[place].value = Some(value);
                place
            }
            None => {
                self.places.push(Place {
                    generation: 0,
                    value: Some(value),
                });
                self.places.len() - 1
            }
        };
        self.handle(place)
    }

    /// With `recycle` the next insert gives the same handle again, as real drivers do: their
    /// handles are addresses.
    pub(crate) fn remove(&mut self, handle: usize, recycle: bool) -> Result<T, Missing> {
        let Some(place) = self.place(handle).filter(|&p| self.handle(p) == handle) else {
            return Err(self.missing(handle));
        };
        let value = self.places[place].value.take().ok_or(Missing::Destroyed)?;
        if !recycle {
            self.places[place].generation = (self.places[place].generation + 1) % GENERATIONS;
        }
        self.recycled.push(place);
        Ok(value)
    }

    pub(crate) fn get(&self, handle: usize) -> Result<&T, Missing> {
        self.place(handle)
            .filter(|&place| self.handle(place) == handle)
            .and_then(|place| self.places[place].value.as_ref())
            .ok_or_else(|| self.missing(handle))
    }

    pub(crate) fn get_mut(&mut self, handle: usize) -> Result<&mut T, Missing> {
        let missing = self.missing(handle);
        self.place(handle)
            .filter(|&place| self.handle(place) == handle)
            .and_then(|place| self.places[place].value.as_mut())
            .ok_or(missing)
    }

    fn missing(&self, handle: usize) -> Missing {
        match self.place(handle) {
            Some(place) if handle >> 28 & (GENERATIONS - 1) <= self.places[place].generation => {
                Missing::Destroyed
            }
            _ => Missing::Unknown,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().enumerate().filter_map(|(place, slot)| {
            slot.value.as_ref().map(|value| (self.handle(place), value))
        })
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places
            .iter_mut()
            .filter_map(|slot| slot.value.as_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Missing, Table};

    #[test]
    fn a_stale_handle_is_told_from_a_made_up_one() {
        let mut table = Table::new(0x11, 0);
        let first = table.insert('a');
        assert_eq!(table.get(first), Ok(&'a'));
        assert_eq!(table.remove(first, false), Ok('a'));
        assert_eq!(table.get(first), Err(Missing::Destroyed));
        let second = table.insert('b');
        assert_ne!(first, second);
        assert_eq!(table.get(first), Err(Missing::Destroyed));
        assert_eq!(table.remove(first, false), Err(Missing::Destroyed));
        for made_up in [
            0,
            1,
            2,
            second + 1,
            second + 16,
            second ^ 1 << 57,
            usize::MAX,
        ] {
            assert_eq!(table.get(made_up), Err(Missing::Unknown), "{made_up:#x}");
        }
    }

    #[test]
    fn a_recycled_handle_names_the_new_object() {
        let mut table = Table::new(0x11, 0);
        let first = table.insert('a');
        assert_eq!(table.remove(first, true), Ok('a'));
        assert_eq!(table.get(first), Err(Missing::Destroyed));
        assert_eq!(table.insert('b'), first);
        assert_eq!(table.get(first), Ok(&'b'));
    }
}
