//! References to objects: their counts, and weak ones.

use super::block::{_Block_copy, _Block_release};
use super::message::{objc_msg_lookup, sel_registerName};
use super::object::{Kind, Object, find, kind};
use super::types::{Id, Sel, fail};
use fencepost_sim::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

/// The places of the weak references to an object, by its address. The lock is held while a count
/// falls, so that no weak reference gives a strong one to an object that is being deallocated.
static WEAK: Mutex<BTreeMap<usize, BTreeSet<usize>>> = Mutex::new(BTreeMap::new());

fn weak() -> MutexGuard<'static, BTreeMap<usize, BTreeSet<usize>>> {
    lock(&WEAK)
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn objc_retain(id: Id) -> Id {
    match kind(id) {
        Kind::Nil | Kind::Class(_) => id,
        Kind::Block(_) => _Block_copy(id),
        Kind::Object(object) => {
            object.check_alive("retain");
            if object.count.fetch_add(1, Ordering::SeqCst) == 0 {
                fail(format_args!(
                    "retain of a {} in its dealloc",
                    object.class.shown()
                ));
            }
            id
        }
    }
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn objc_release(id: Id) {
    match kind(id) {
        Kind::Nil | Kind::Class(_) => {}
        Kind::Block(_) => _Block_release(id),
        Kind::Object(object) => {
            object.check_alive("release");
            if is_last(id, object) {
                deallocate(id, object);
            }
        }
    }
}

fn is_last(id: Id, object: &Object) -> bool {
    let mut weak = weak();
    let before = object.count.load(Ordering::SeqCst);
    if before == 0 {
        drop(weak);
        fail(format_args!(
            "release of a {} in its dealloc",
            object.class.shown()
        ));
    }
    let before = object.count.fetch_sub(1, Ordering::SeqCst);
    if before == 1 {
        for place in weak.remove(&id.addr()).into_iter().flatten() {
            // SAFETY: a place is in the table only from objc_initWeak to objc_destroyWeak, while it
            // is valid, and objc_destroyWeak needs the lock
            unsafe { *std::ptr::with_exposed_provenance_mut::<Id>(place) = null_mut() };
        }
    }
    before == 1
}

fn deallocate(id: Id, object: &Object) {
    let selector = sel_registerName(c"dealloc".as_ptr());
    let method = objc_msg_lookup(id, selector);
    // SAFETY: every dealloc takes the object and the selector, and returns nothing
    let method: unsafe extern "C-unwind" fn(Id, Sel) = unsafe { std::mem::transmute(method) };
    // SAFETY: the object is alive, and this is its one dealloc
    unsafe { method(id, selector) };
    if !object.dead.load(Ordering::SeqCst) {
        fail(format_args!(
            "the dealloc of {} did not call super",
            object.class.shown()
        ));
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_initWeak(place: &mut Id, id: Id) -> Id {
    let mut weak = weak();
    *place = id;
    if !id.is_null() {
        let address = std::ptr::from_mut(place).expose_provenance();
        weak.entry(id.addr()).or_default().insert(address);
    }
    id
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_loadWeakRetained(place: &Id) -> Id {
    let _weak = weak();
    let id = *place;
    if let Some(object) = find(id) {
        // the count is not 0: under the lock, the place of an object without references is null
        object.count.fetch_add(1, Ordering::SeqCst);
    }
    id
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_destroyWeak(place: &mut Id) {
    let mut weak = weak();
    if let Some(places) = weak.get_mut(&place.addr()) {
        places.remove(&std::ptr::from_mut(place).addr());
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_copyWeak(to: &mut Id, from: &Id) {
    let id = objc_loadWeakRetained(from);
    objc_initWeak(to, id);
    objc_release(id);
}
