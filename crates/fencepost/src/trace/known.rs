//! Names of the spans of threads, each with a number that lasts as long as the trace. A span that
//! is noted by its number is moved into the store as it is.
//!
//! Only short names have one, and only the first few thousand, so that memory is bounded whatever
//! names a program makes up. A span with another name keeps it, and the store's block gets it.

use std::{collections::HashMap, sync::Arc};

use crate::sync::{Mutex, lock};

/// So many names are known at most.
const MOST: usize = 4096;
/// So many bytes a known name has at most.
const LONGEST: usize = 64;

#[derive(Default)]
pub(super) struct KnownNames(Mutex<Names>);

#[derive(Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl KnownNames {
    /// The number of a name, which becomes known where there is room.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let mut names = lock(&self.0);
        if let Some(known) = names.numbers.get(name) {
            return Some(*known);
        }
        if names.texts.len() >= MOST || name.len() > LONGEST {
            return None;
        }
        let (number, text) = (names.texts.len() as u32, Arc::<str>::from(name));
        names.texts.push(text.clone());
        names.numbers.insert(text, number);
        Some(number)
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<str>> {
        lock(&self.0).texts.get(number as usize).cloned()
    }

    /// All of them, by their numbers. Those in a record that was seen before are there.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        lock(&self.0).texts.clone()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "seconds for 4,096 names")]
    fn names_are_known_up_to_a_bound() {
        let names = KnownNames::default();
        assert_eq!(names.number("load"), Some(0));
        assert_eq!(names.number(&"x".repeat(LONGEST)), Some(1));
        assert_eq!(names.number(&"x".repeat(LONGEST + 1)), None);
        assert_eq!(names.number("load"), Some(0));
        for number in 2..MOST as u32 {
            assert_eq!(names.number(&number.to_string()), Some(number));
        }
        assert_eq!(names.number("one more"), None);
        assert_eq!(names.number("7"), Some(7));
        let all = names.all();
        assert_eq!((all.len(), &*all[0], &*all[7]), (MOST, "load", "7"));
    }
}
