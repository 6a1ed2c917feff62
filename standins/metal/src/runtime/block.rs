//! Blocks, as <https://clang.llvm.org/docs/Block-ABI-Apple.html> lays them out.

use super::class;
use super::types::fail;
use fencepost_sim::lock;
use std::alloc::{Layout, alloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard};

#[repr(C)]
struct Block {
    class: *const c_void,
    flags: c_int,
    reserved: c_int,
    invoke: *const c_void,
    descriptor: *const Descriptor,
}

#[repr(C)]
struct Descriptor {
    reserved: usize,
    size: usize,
    /// Present only with `HAS_HELPERS`, as is `dispose`.
    copy: Option<unsafe extern "C-unwind" fn(*mut c_void, *const c_void)>,
    dispose: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
}

const NEEDS_FREE: c_int = 1 << 24;
const HAS_HELPERS: c_int = 1 << 25;
const IS_GLOBAL: c_int = 1 << 28;

/// The reference counts of the blocks on the heap. A block with a count of 0 is freed; its memory
/// is never reused.
static BLOCKS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn counts() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    lock(&BLOCKS)
}

pub(super) fn live() -> usize {
    counts().values().filter(|count| **count > 0).count()
}

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn _Block_copy(block: *const c_void) -> *mut c_void {
    if block.is_null() {
        return std::ptr::null_mut();
    }
    let from = block.cast::<Block>();
    // SAFETY: callers pass a block, and one that was freed keeps its memory
    let flags = unsafe { (*from).flags };
    if flags & IS_GLOBAL != 0 {
        return block.cast_mut();
    }
    if flags & NEEDS_FREE != 0 {
        let mut counts = counts();
        match counts.get_mut(&block.addr()) {
            Some(count) if *count > 0 => *count += 1,
            _ => {
                drop(counts);
                fail(format_args!("copy of a freed block"));
            }
        }
        return block.cast_mut();
    }
    // SAFETY: as above; every block has a descriptor
    let descriptor = unsafe { (*from).descriptor };
    // SAFETY: descriptors are constants of the program
    let size = unsafe { (*descriptor).size };
    let layout = Layout::from_size_align(size.max(size_of::<Block>()), 16);
    let Ok(layout) = layout else {
        fail(format_args!("a block of {size} bytes"));
    };
    // SAFETY: the layout is at least as large as a block
    let to = unsafe { alloc(layout) };
    if to.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the block has as many bytes as its descriptor says, and the new memory has room for
    // them
    unsafe { to.copy_from_nonoverlapping(block.cast(), size) };
    let copy = to.cast::<Block>();
    // SAFETY: new memory of this function, filled above
    unsafe {
        (*copy).class = class::malloc_block();
        (*copy).flags |= NEEDS_FREE;
    }
    if flags & HAS_HELPERS != 0 {
        // SAFETY: the flag says that the descriptor has it
        let helper = unsafe { (*descriptor).copy };
        if let Some(helper) = helper {
            // SAFETY: it is called once for each copy, with the copy and the original
            unsafe { helper(copy.cast(), block) };
        }
    }
    counts().insert(to.expose_provenance(), 1);
    to.cast()
}

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn _Block_release(block: *const c_void) {
    if block.is_null() {
        return;
    }
    let from = block.cast::<Block>();
    // SAFETY: callers pass a block, and one that was freed keeps its memory
    let (flags, descriptor) = unsafe { ((*from).flags, (*from).descriptor) };
    if flags & NEEDS_FREE == 0 {
        return;
    }
    let mut counts = counts();
    let left = match counts.get_mut(&block.addr()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            *count
        }
        _ => {
            drop(counts);
            fail(format_args!("release of a freed block"));
        }
    };
    drop(counts);
    if left == 0 && flags & HAS_HELPERS != 0 {
        // SAFETY: the flag says that the descriptor has it
        let helper = unsafe { (*descriptor).dispose };
        if let Some(helper) = helper {
            // SAFETY: the count has just fallen to 0, so this is the one call for this copy
            unsafe { helper(block.cast_mut()) };
        }
    }
}
