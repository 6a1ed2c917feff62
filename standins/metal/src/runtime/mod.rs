//! The part of an Objective-C runtime that objc2, block2 and dispatch2 call: C functions by the
//! names of GNUstep's.
//!
//! It finds mistakes, and is slow. The memory of a deallocated object is never reused, so that a
//! later message, retain or release panics with the object's class. Tables list all classes and
//! objects by address. A pointer from outside is looked up there and never dereferenced, except if
//! it points to a block, which callers put on the stack.
//!
//! The functions are documented at
//! <https://developer.apple.com/documentation/objectivec/objective-c-runtime>, and
//! <https://clang.llvm.org/docs/AutomaticReferenceCounting.html#runtime-support> for those of
//! reference counts. None is `unsafe` here: the `extern` declarations through which callers
//! reach them state what callers have to ensure.

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

/// How many objects of each class, and how many blocks, are alive. Permanent objects count while
/// code outside this crate has a reference to them.
pub(crate) fn live() -> BTreeMap<String, usize> {
    let mut live = object::live();
    let blocks = block::live();
    if blocks > 0 {
        live.insert("block".into(), blocks);
    }
    live
}
