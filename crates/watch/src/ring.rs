//! The last entries of a list, in their order.

#[derive(Clone, Debug)]
pub(crate) struct Ring<T> {
    /// Once it is full, the oldest entry is at `first`, and those in front of it are newer.
    list: Vec<T>,
    first: usize,
    /// Whether an older entry was overwritten.
    pub(crate) lacks_older: bool,
}

impl<T> Ring<T> {
    pub(crate) const fn new() -> Ring<T> {
        Ring {
            list: Vec::new(),
            first: 0,
            lacks_older: false,
        }
    }

    /// Keeps `most` entries, always as many. Returns what is overwritten.
    #[inline]
    pub(crate) fn push(&mut self, most: usize, entry: T) -> Option<T> {
        if self.list.len() < most {
            self.list.push(entry);
            return None;
        }
        let oldest = self.list.get_mut(self.first)?;
        self.first = if self.first + 1 == most {
            0
        } else {
            self.first + 1
        };
        self.lacks_older = true;
        Some(std::mem::replace(oldest, entry))
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.first = 0;
        self.lacks_older = false;
    }

    /// The entry at a place in the order.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        let behind = self.list.len() - self.first;
        match at.checked_sub(behind) {
            None => self.list.get(self.first + at),
            Some(at) => self.list[..self.first].get(at),
        }
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        match self.first.checked_sub(1) {
            Some(last) => self.list.get(last),
            None => self.list.last(),
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        (0..self.list.len()).map(|at| self.get(at).expect("there is one at each place"))
    }

    /// How many entries come before the first for which `is_before` does not hold. It holds for
    /// all that come before one for which it does.
    pub(crate) fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let (newer, older) = self.list.split_at(self.first);
        match older.last().is_some_and(&is_before) {
            true => older.len() + newer.partition_point(is_before),
            false => older.partition_point(is_before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_kept_in_their_order() {
        let mut ring = Ring::new();
        for number in 0..20_usize {
            let lost = ring.push(6, number);
            assert_eq!(lost, number.checked_sub(6));
            assert_eq!(ring.lacks_older, number >= 6);
            let kept: Vec<usize> = ring.iter().copied().collect();
            let first = number.saturating_sub(5);
            assert_eq!(kept, (first..=number).collect::<Vec<_>>());
            assert_eq!(ring.iter().next_back(), Some(&number));
            assert_eq!((ring.last(), ring.get(kept.len())), (Some(&number), None));
            for than in 0..=21 {
                let count = ring.partition_point(|&entry| entry < than);
                assert_eq!(count, kept.iter().filter(|&&entry| entry < than).count());
            }
        }
        ring.clear();
        assert_eq!((ring.last(), ring.lacks_older), (None, false));
        assert_eq!((ring.push(6, 7), ring.get(0)), (None, Some(&7)));
    }
}
