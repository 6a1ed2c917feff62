//! How large the processor's last cache is.

/// What stands in where the system does not tell.
const USUAL: usize = 64 << 20;

/// The bytes of the largest cache of the first core.
///
/// # References
/// - [`/sys/devices/system/cpu/cpu*/cache`](https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu)
pub(super) fn bytes() -> usize {
    let size = |index| {
        let file = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        parsed(&std::fs::read_to_string(file).ok()?)
    };
    (0..8).filter_map(size).max().unwrap_or(USUAL)
}

/// A size as in `48K`.
fn parsed(size: &str) -> Option<usize> {
    let size = size.trim();
    let (digits, unit) = match size.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => match size.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (size, 1),
        },
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::host::cache::{bytes, parsed};

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, size) in [
            ("48K\n", Some(48 << 10)),
            ("2M", Some(2 << 20)),
            ("512", Some(512)),
            ("", None),
            ("much", None),
        ] {
            assert_eq!(parsed(text), size);
        }
        assert!(bytes() > 0);
    }
}
