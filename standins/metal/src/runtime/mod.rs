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
mod references;
mod reflect;
mod types;

pub(crate) use class::register_blocks;
pub(crate) use object::{count, create, dispose, is_alive, make_permanent};
pub(crate) use pool::objc_autorelease;
pub(crate) use references::{objc_release, objc_retain};

use std::collections::BTreeMap;

/// Live objects by class, and blocks. Permanent objects count while somebody else holds them.
pub(crate) fn live() -> BTreeMap<String, usize> {
    let mut live = object::live();
    let blocks = block::live();
    if blocks > 0 {
        live.insert("block".into(), blocks);
    }
    live
}
