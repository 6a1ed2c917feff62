//! A table by the addresses of timelines.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// What there is of each timeline, by its address.
pub(super) type ByTimeline<T> = HashMap<usize, T, BuildHasherDefault<OfAddress>>;

/// The hash of an address. Nobody chooses addresses so that they collide, so what the default hash
/// costs more would buy nothing.
#[derive(Default)]
pub(super) struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_usize((*byte).into()));
    }

    fn write_usize(&mut self, address: usize) {
        // 2^64 divided by the golden ratio. A table looks at the lowest bits, which are always zero
        // in an address, and at the highest.
        let product = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product.rotate_left(32);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    #[test]
    fn addresses_that_lie_beside_each_other_are_apart_in_a_table() {
        let hash = BuildHasherDefault::<OfAddress>::default();
        for step in [16, 64, 128, 4096] {
            let hashes = (0..1000).map(|at| hash.hash_one(0x7f00_0000_0000_usize + at * step));
            let (mut low, mut high) = (HashSet::new(), HashSet::new());
            for hash in hashes {
                low.insert(hash & 0x3ff);
                high.insert(hash >> 57);
            }
            assert!(low.len() > 400, "{} of 1,024 for {step}", low.len());
            assert!(high.len() > 60, "{} of 128 for {step}", high.len());
        }
    }
}
