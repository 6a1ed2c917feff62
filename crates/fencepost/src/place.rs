//! Lines of source code: where a marker was recorded, or work launched.
//!
//! A place is one pointer, because every record stores one. For a line of Rust it points to what
//! the compiler made for that line. For a line of another language it points to a location that is
//! made for that line alone and leaked, and [`lines`] tells the line by that address.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    panic::Location,
    sync::{PoisonError, RwLock},
};

use crate::fork::PerProcess;

/// A line of source code: of Rust, or of the language that called through a binding.
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// let place = stream.record()?.recorded_at();
/// assert_eq!(place.line(), line!() - 1);
/// assert_eq!(place.to_string(), format!("{}:{}", place.file(), place.line()));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Place(&'static Location<'static>);

/// The lines of other languages.
#[derive(Clone, Default)]
struct Lines {
    /// By file, then by line.
    places: HashMap<&'static str, HashMap<u32, Place>>,
    /// By the address in the place.
    lines: HashMap<usize, (&'static str, u32)>,
}

/// A forked child has a copy of its own, since a thread of its parent may have held the lock at the
/// fork. In that case alone it has forgotten the lines, and its texts say so.
fn lines() -> &'static RwLock<Lines> {
    static LINES: PerProcess<RwLock<Lines>> = PerProcess::new();
    LINES.get_or_make(|of_parent| {
        let known = of_parent.and_then(|lines| lines.try_read().ok());
        RwLock::new(known.map(|lines| lines.clone()).unwrap_or_default())
    })
}

/// What stands for a line that nobody looked for. Those of other languages are copies of it.
static UNKNOWN: Location<'static> = *Location::caller();

/// How many lines of other languages are kept. Each is leaked, and a program that generates code
/// may have any number of them.
const MAX_LINES: usize = 1 << 16;

impl Place {
    /// The line that called the caller, in Rust.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn caller() -> Place {
        Place(Location::caller())
    }

    /// For a binding that was not told to look for its caller's line.
    #[inline]
    pub(crate) fn unknown() -> Place {
        Place(&UNKNOWN)
    }

    /// A line of another language. The first call for each line leaks it.
    pub(crate) fn of_line(file: &str, line: u32) -> Place {
        let known = lines().read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.place(file, line) {
            return known;
        }
        drop(known);
        let mut lines = lines().write().unwrap_or_else(PoisonError::into_inner);
        match lines.place(file, line) {
            Some(known) => known,
            None if lines.lines.len() >= MAX_LINES => Place::unknown(),
            None => lines.add(file, line),
        }
    }

    /// One with an address of its own.
    fn new() -> Place {
        Place(Box::leak(Box::new(UNKNOWN)))
    }

    fn address(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }

    /// Whether somebody looked for the line. It always is so for calls from Rust.
    pub(crate) fn is_known(self) -> bool {
        self.address() != Place::unknown().address()
    }

    /// The file and the line; `None` where they are not known.
    fn line_of_file(self) -> Option<(&'static str, u32)> {
        if *self.0 != UNKNOWN {
            return Some((self.0.file(), self.0.line()));
        }
        if !self.is_known() {
            return None;
        }
        let lines = lines().read().unwrap_or_else(PoisonError::into_inner);
        lines.lines.get(&self.address()).copied()
    }

    /// The name of the source file, as the compiler or interpreter gives it.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.file(), file!());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn file(&self) -> &'static str {
        self.line_of_file().map_or("<unknown>", |(file, _)| file)
    }

    /// The number of the line, counted from 1.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.line(), line!() - 1);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn line(&self) -> u32 {
        self.line_of_file().map_or(0, |(_, line)| line)
    }
}

impl Lines {
    fn place(&self, file: &str, line: u32) -> Option<Place> {
        self.places.get(file)?.get(&line).copied()
    }

    /// Adds a line that is not there. Lines of one file share its name.
    fn add(&mut self, file: &str, line: u32) -> Place {
        let known = self.places.get_key_value(file).map(|(file, _)| *file);
        let file = known.unwrap_or_else(|| String::leak(file.into()));
        let place = Place::new();
        self.places.entry(file).or_default().insert(line, place);
        self.lines.insert(place.address(), (file, line));
        place
    }
}

/// Two places are equal when they are the same line.
impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.line_of_file() == other.line_of_file()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.line_of_file().hash(state);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line_of_file() {
            Some((file, line)) => write!(f, "{file}:{line}"),
            None => f.write_str("an unknown line"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_pointer() {
        assert_eq!(size_of::<Place>(), size_of::<usize>());
    }

    #[test]
    fn a_line_of_another_language_is_kept_once() {
        let one = Place::of_line("train.py", 7);
        let two = Place::of_line(&String::from("train.py"), 7);
        assert_eq!(one.address(), two.address());
        let next = Place::of_line("train.py", 8);
        assert_ne!(one, next);
        assert!(std::ptr::eq(one.file(), next.file()));
        assert_eq!(one.to_string(), "train.py:7");
        assert!(one.is_known() && !Place::unknown().is_known());
        assert_eq!(Place::caller().file(), file!());
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn a_child_has_its_own_lines_whoever_held_those_of_its_parent() {
        use crate::fork::tests::in_a_child;

        let known = Place::of_line("fork.py", 1);
        assert!(in_a_child(|| {
            Place::of_line("fork.py", 1) == known && known.to_string() == "fork.py:1"
        }));
        let _held = lines().write().unwrap_or_else(PoisonError::into_inner);
        assert!(in_a_child(|| {
            let new = Place::of_line("fork.py", 2);
            new.to_string() == "fork.py:2" && known.to_string() == "an unknown line"
        }));
    }
}
