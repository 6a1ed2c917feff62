//! What a thread has looked up last.

use std::cell::Cell;

/// A few found values by their keys, each at a place that its handle says.
#[derive(Debug)]
pub(crate) struct Cache<K: Copy, V: Copy, const PLACES: usize>([Cell<Option<(K, V)>>; PLACES]);

/// Spreads handles, which are addresses in steps, over all bits. The highest are the best.
#[inline]
pub(crate) fn spread(handle: usize) -> u64 {
    (handle as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<K: Copy + Eq, V: Copy, const PLACES: usize> Cache<K, V, PLACES> {
    pub(crate) const fn new() -> Self {
        Cache([const { Cell::new(None) }; PLACES])
    }

    #[inline]
    fn place(&self, handle: usize) -> &Cell<Option<(K, V)>> {
        &self.0[(spread(handle) >> 32) as usize % PLACES]
    }

    #[inline]
    pub(crate) fn get(&self, handle: usize, key: K) -> Option<V> {
        match self.place(handle).get() {
            Some((of, value)) if of == key => Some(value),
            _ => None,
        }
    }

    pub(crate) fn set(&self, handle: usize, key: K, value: V) {
        self.place(handle).set(Some((key, value)));
    }
}
