//! Sizes and times in the units that people use.

pub(crate) const LARGEST_CHUNK: usize = 1 << 30;

/// A chunk's size: bytes, or with a suffix K, M or G for KiB, MiB or GiB.
pub(crate) fn parse_chunk(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    // `parse` would also take a sign.
    let number = match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse::<usize>().ok(),
        false => None,
    };
    match number.and_then(|n| n.checked_mul(unit)) {
        Some(size @ 1..=LARGEST_CHUNK) => Ok(size),
        _ => Err("expected a size from 1 to 1G, in bytes or with K, M or G, as in 64K".into()),
    }
}

/// A time to three digits, in the unit that fits it.
pub(crate) fn time(nanos: f64) -> String {
    let (scale, unit) = match nanos.abs() {
        // Half a digit below the limit, so that rounding never gives 1000 of a unit.
        n if n >= 0.9995e9 => (1e9, "s"),
        n if n >= 0.9995e6 => (1e6, "ms"),
        n if n >= 0.9995e3 => (1e3, "µs"),
        _ => (1.0, "ns"),
    };
    let value = nanos / scale;
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// A size in the unit that fits it.
pub(crate) fn size(bytes: f64) -> String {
    match bytes {
        b if b >= 1024.0 * 1024.0 * 1024.0 => format!("{:.2} GiB", b / (1024.0 * 1024.0 * 1024.0)),
        b if b >= 1024.0 * 1024.0 => format!("{:.2} MiB", b / (1024.0 * 1024.0)),
        b if b >= 1024.0 => format!("{:.2} KiB", b / 1024.0),
        b => format!("{b:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_bytes_or_has_a_suffix() {
        for (text, size) in [
            ("1", 1),
            ("4096", 4096),
            ("3k", 3 << 10),
            ("64K", 64 << 10),
            ("1M", 1 << 20),
            ("1g", 1 << 30),
            ("1024M", 1 << 30),
            ("007", 7),
        ] {
            assert_eq!(parse_chunk(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn a_chunk_of_any_other_form_is_refused() {
        for text in [
            "",
            "0",
            "0K",
            "K",
            "-1",
            "+1",
            "1.5M",
            "1 M",
            "1T",
            "1KB",
            "2G",
            "1025M",
            "µ",
            "1µ",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            assert!(parse_chunk(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_has_three_digits_and_its_unit() {
        for (nanos, text) in [
            (0.0, "0.00 ns"),
            (1.234, "1.23 ns"),
            (56.78, "56.8 ns"),
            (987.6, "988 ns"),
            (99.97, "100 ns"),
            (999.7, "1.00 µs"),
            (1_500.0, "1.50 µs"),
            (-2_500_000.0, "-2.50 ms"),
            (3e9, "3.00 s"),
        ] {
            assert_eq!(time(nanos), text);
        }
    }

    #[test]
    fn a_size_has_its_unit() {
        assert_eq!(size(0.0), "0 B");
        assert_eq!(size(1536.0), "1.50 KiB");
        assert_eq!(size(1048576.0), "1.00 MiB");
        assert_eq!(size(5e9), "4.66 GiB");
    }
}
