//! Lines of source code: where a marker was recorded, or work launched.
//!
//! A place is one pointer, because every record stores one. For a line of Rust it points to what
//! the compiler made for that line. For a line of another language it points to a location that is
//! made for that line alone and leaked, and [`LINES`] tells the line by that address.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    panic::Location,
    sync::{LazyLock, PoisonError, RwLock},
};

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
#[derive(Default)]
struct Lines {
    places: HashMap<(&'static str, u32), Place>,
    /// By the address in the place.
    lines: HashMap<usize, (&'static str, u32)>,
}

static LINES: LazyLock<RwLock<Lines>> = LazyLock::new(RwLock::default);

/// What stands for a line that nobody looked for.
static UNKNOWN: LazyLock<Place> = LazyLock::new(Place::new);

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
        *UNKNOWN
    }

    /// A line of another language. The first call for each line leaks it.
    pub(crate) fn of_line(file: &str, line: u32) -> Place {
        let known = LINES.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.places.get(&(file, line)) {
            return *known;
        }
        drop(known);
        let mut lines = LINES.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lines.places.get(&(file, line)) {
            return *known;
        }
        if lines.places.len() >= MAX_LINES {
            return Place::unknown();
        }
        // Lines of one file share its name.
        let known = lines.places.keys().find(|(known, _)| *known == file);
        let file = known.map_or_else(|| &*String::leak(file.into()), |(known, _)| known);
        let place = Place::new();
        lines.places.insert((file, line), place);
        lines.lines.insert(place.address(), (file, line));
        place
    }

    /// One with an address of its own.
    fn new() -> Place {
        Place(Box::leak(Box::new(*Location::caller())))
    }

    fn address(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }

    /// Whether the line is known. It always is for calls from Rust.
    pub(crate) fn is_known(self) -> bool {
        self.address() != UNKNOWN.address()
    }

    /// The file and the line.
    fn line_of_file(self) -> (&'static str, u32) {
        if !self.is_known() {
            return ("<unknown>", 0);
        }
        let lines = LINES.read().unwrap_or_else(PoisonError::into_inner);
        let known = lines.lines.get(&self.address()).copied();
        known.unwrap_or_else(|| (self.0.file(), self.0.line()))
    }

    /// The name of the source file, as the compiler or interpreter gives it.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.file(), file!());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn file(&self) -> &'static str {
        self.line_of_file().0
    }

    /// The number of the line, counted from 1.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.line(), line!() - 1);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn line(&self) -> u32 {
        self.line_of_file().1
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
        match (self.is_known(), self.line_of_file()) {
            (true, (file, line)) => write!(f, "{file}:{line}"),
            (false, _) => f.write_str("an unknown line"),
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
}
