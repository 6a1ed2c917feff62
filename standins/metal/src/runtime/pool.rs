//! Autorelease pools: one stack for each thread.

use super::object::{Kind, kind};
use super::references::{objc_release, objc_retain};
use super::types::{Id, fail};
use crate::report;
use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::null_mut;

/// The objects to release, with null where a pool begins.
struct Pools(Vec<Id>);

impl Drop for Pools {
    /// Objects that were autoreleased without a pool are released when the thread ends.
    fn drop(&mut self) {
        for object in self.0.drain(..).rev() {
            objc_release(object);
        }
    }
}

thread_local! {
    static POOLS: RefCell<Pools> = const { RefCell::new(Pools(Vec::new())) };
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPush() -> *mut c_void {
    let depth = POOLS.try_with(|pools| {
        let pools = &mut pools.borrow_mut().0;
        pools.push(null_mut());
        pools.len()
    });
    std::ptr::without_provenance_mut(depth.unwrap_or(usize::MAX))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPop(pool: *mut c_void) {
    loop {
        // one at a time: a destructor may autorelease more
        let object = POOLS.try_with(|pools| {
            let pools = &mut pools.borrow_mut().0;
            (pools.len() >= pool.addr()).then(|| pools.pop()).flatten()
        });
        match object {
            Ok(Some(object)) => objc_release(object),
            _ => return,
        }
    }
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn objc_autorelease(id: Id) -> Id {
    let name = match kind(id) {
        Kind::Nil | Kind::Class(_) => return id,
        Kind::Block(class) => class.shown(),
        Kind::Object(object) => {
            object.check_alive("autorelease");
            object.class.shown()
        }
    };
    // the stack may be gone while the thread's variables are destroyed; the object then leaks
    let pooled = POOLS.try_with(|pools| {
        let pools = &mut pools.borrow_mut().0;
        let pooled = pools.iter().any(|object| object.is_null());
        pools.push(id);
        pooled
    });
    if pooled != Ok(true) {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        report::violation(&format!(
            "a {name} was autoreleased with no autorelease pool in place, on the thread {thread}"
        ));
    }
    id
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleaseReturnValue(id: Id) -> Id {
    objc_autorelease(id)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_retainAutoreleasedReturnValue(id: Id) -> Id {
    objc_retain(id)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_retainAutorelease(id: Id) -> Id {
    objc_autorelease(objc_retain(id))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_unsafeClaimAutoreleasedReturnValue(_: Id) -> Id {
    fail(format_args!(
        "objc_unsafeClaimAutoreleasedReturnValue is not simulated"
    ))
}
