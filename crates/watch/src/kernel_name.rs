//! Kernels' names as people write them.

use std::ffi::{CStr, CString, c_char, c_int};

use crate::driver;

type Demangle =
    unsafe extern "C" fn(*const c_char, *mut c_char, *mut usize, *mut c_int) -> *mut c_char;

/// How much of a name fits into a line of the report.
const LONGEST: usize = 56;

/// A kernel's name without its parameters, and with the arguments of templates left out.
pub(crate) fn readable(symbol: &[u8]) -> String {
    let name = demangled(symbol).unwrap_or_else(|| String::from_utf8_lossy(symbol).into_owned());
    let name = shortened(&name);
    match name.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name,
    }
}

/// By the C++ library of the program, if it has one.
fn demangled(symbol: &[u8]) -> Option<String> {
    if !symbol.starts_with(b"_Z") {
        return None;
    }
    let symbol = CString::new(symbol).ok()?;
    // By the library's name, since an interpreter's extensions bring it without making it global.
    let found = driver::loaded(&["libstdc++.so.6", "libc++abi.so.1"])
        .and_then(|library| driver::symbol(library, "__cxa_demangle"))?;
    // SAFETY: the C++ ABI defines the function of this name
    let demangle: Demangle = unsafe { std::mem::transmute(found) };
    let mut status = -1;
    let (no_buffer, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: without a buffer it allocates one
    let name = unsafe { demangle(symbol.as_ptr(), no_buffer, no_length, &raw mut status) };
    if name.is_null() {
        return None;
    }
    // SAFETY: what it returns is a C string
    let text = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: it was allocated by malloc, as the ABI says
    unsafe { libc::free(name.cast()) };
    (status == 0).then_some(text)
}

fn shortened(name: &str) -> String {
    let name = name.strip_prefix("void ").unwrap_or(name);
    let name = name.replace("(anonymous namespace)::", "");
    let mut short = String::new();
    let mut depth = 0_u32;
    for c in name.chars() {
        match c {
            '<' => {
                if depth == 0 {
                    short.push_str("<…>");
                }
                depth += 1;
            }
            '>' if depth > 0 => depth -= 1,
            '(' if depth == 0 => break,
            c if depth == 0 => short.push(c),
            _ => {}
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_parameters_are_left_out() {
        let name = "void at::native::(anonymous namespace)::fill<float, std::less<int>>(int, long)";
        assert_eq!(shortened(name), "at::native::fill<…>");
        assert_eq!(readable(b"fencepost_append"), "fencepost_append");
        assert_eq!(readable(b"_Z"), "_Z");
        assert_eq!(readable(&[b'k'; 300]).chars().count(), LONGEST + 1);
    }
}
