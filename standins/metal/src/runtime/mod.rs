//! The part of an Objective-C runtime that objc2, block2 and dispatch2 call: C functions by the
//! names of GNUstep's.
//!
//! It checks rather than hurries. No memory of a dead object is used again, so that a message to
//! it, a retain or a release names its class instead of doing something. What it knows of classes
//! and objects is in tables by address; a pointer from outside is looked up there and never
//! followed, but for blocks, which their callers put on the stack.
//!
//! The functions' meaning:
//! <https://developer.apple.com/documentation/objectivec/objective-c-runtime>, and
//! <https://clang.llvm.org/docs/AutomaticReferenceCounting.html#runtime-support> for those of
//! reference counts. None of them is `unsafe` here: the `extern` declarations through which they
//! are called say what callers must keep to.

mod block;
mod class;
mod message;
mod object;
mod pool;
mod reflect;

pub(crate) use object::{count, create, dispose, is_alive, make_permanent};
pub(crate) use object::{objc_release, objc_retain};
pub(crate) use pool::objc_autorelease;

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;

/// A pointer to an object, a block or a class.
pub(crate) type Id = *mut c_void;
/// A pointer to a registered name.
pub(crate) type Sel = *const c_char;
/// A method's function, of whatever type its encoding says.
pub(crate) type Imp = unsafe extern "C-unwind" fn();

/// A mistake that cannot be carried on from: written down, and a panic in the thread that makes it.
#[track_caller]
fn fail(what: fmt::Arguments<'_>) -> ! {
    let text = what.to_string();
    crate::report::violation(&text);
    panic!("{text}")
}

/// The text at `name`, for as long as the caller says.
///
/// # Safety
/// `name` is a C string that stays as it is for that long.
unsafe fn text<'a>(name: *const c_char) -> &'a CStr {
    // SAFETY: the caller's word
    unsafe { CStr::from_ptr(name) }
}

/// Live objects by class, and blocks. Permanent objects count while somebody else holds them.
pub(crate) fn live() -> BTreeMap<String, usize> {
    let mut live = object::live();
    let blocks = block::live();
    if blocks > 0 {
        live.insert("block".into(), blocks);
    }
    live
}

// The classes have to be there before anybody names one, and a class that a program names is a
// symbol, not a call. So they are made before main, when there is one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    crate::foundation::register_root();
    class::register_blocks();
    crate::register();
}
