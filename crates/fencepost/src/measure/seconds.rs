//! Times in words.

use std::fmt;

/// A signed time in the unit that suits it: `1.563 µs`.
pub(super) struct Seconds(pub(super) f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0.abs() {
            size if size < 1e-6 => (1e-9, "ns"),
            size if size < 1e-3 => (1e-6, "µs"),
            size if size < 1.0 => (1e-3, "ms"),
            _ => (1.0, "s"),
        };
        let value = self.0 / unit;
        let digits = match value.abs() {
            size if size >= 100.0 => 1,
            size if size >= 10.0 => 2,
            _ => 3,
        };
        write!(f, "{value:.digits$} {name}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_that_suits_them() {
        for (seconds, text) in [
            (0.0, "0.000 ns"),
            (1.5634e-6, "1.563 µs"),
            (-32e-9, "-32.00 ns"),
            (101.43e-6, "101.4 µs"),
            (2.5, "2.500 s"),
        ] {
            assert_eq!(Seconds(seconds).to_string(), text);
        }
    }
}
