//! Objects, their counts, and weak references to them.

use super::block::{_Block_copy, _Block_release};
use super::class::{self, Class, FIRST_WORD};
use super::message::objc_msg_lookup;
use super::{Id, Sel, fail};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// What is known of an object. Its memory holds the variables only.
pub(super) struct Object {
    pub(super) class: &'static Class,
    count: AtomicUsize,
    dead: AtomicBool,
    /// Held by this crate as long as the process lives, so no leak.
    permanent: AtomicBool,
    serial: u64,
}

/// By address; dead ones stay, as their memory does.
static OBJECTS: RwLock<BTreeMap<usize, &'static Object>> = RwLock::new(BTreeMap::new());
static SERIAL: AtomicU64 = AtomicU64::new(1);
/// The places that weakly refer to an object, by its address. Held while a count falls, so that
/// nobody takes a strong reference from a weak one to an object that is on its way out.
static WEAK: Mutex<BTreeMap<usize, BTreeSet<usize>>> = Mutex::new(BTreeMap::new());

/// What a pointer from outside points to.
pub(super) enum Kind {
    Nil,
    Class(&'static Class),
    Block(&'static Class),
    Object(&'static Object),
}

pub(super) fn kind(id: Id) -> Kind {
    if id.is_null() {
        return Kind::Nil;
    }
    if let Some(object) = find(id) {
        return Kind::Object(object);
    }
    if let Some(class) = class::find(id) {
        return Kind::Class(class);
    }
    if let Some(class) = class::find_unmade(id) {
        fail(format_args!("class {} is not simulated", class.shown()));
    }
    // SAFETY: objc2's callers have a pointer to an object, and of those only blocks, whose first
    // word is their class, are made by others than this runtime
    let first = unsafe { *id.cast::<*const c_void>() };
    match class::find(first) {
        Some(class) if class::is_block(first) => Kind::Block(class),
        _ => fail(format_args!("{id:?} is no Objective-C object")),
    }
}

fn find(id: Id) -> Option<&'static Object> {
    let all = OBJECTS.read().unwrap_or_else(PoisonError::into_inner);
    all.get(&id.addr()).copied()
}

fn weak() -> MutexGuard<'static, BTreeMap<usize, BTreeSet<usize>>> {
    WEAK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Object {
    pub(super) fn check_alive(&self, what: &str) {
        if self.dead.load(Ordering::SeqCst) {
            fail(format_args!(
                "{what} of a deallocated {} (object {})",
                self.class.shown(),
                self.serial
            ));
        }
    }
}

/// A new object of the class with a count of 1 and zeroes in its variables.
pub(crate) fn create(class: *const c_void) -> Id {
    let class = class::expect(class);
    // what is aligned more than this objc2 does not put into variables of its own classes here
    let layout = Layout::from_size_align(class.size().max(FIRST_WORD), 16);
    let Ok(layout) = layout else {
        fail(format_args!("{} is too large", class.shown()));
    };
    // SAFETY: the layout has at least one word
    let memory: Id = unsafe { alloc_zeroed(layout) }.cast();
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    let object = Object {
        class,
        count: AtomicUsize::new(1),
        dead: AtomicBool::new(false),
        permanent: AtomicBool::new(false),
        serial: SERIAL.fetch_add(1, Ordering::SeqCst),
    };
    let mut all = OBJECTS.write().unwrap_or_else(PoisonError::into_inner);
    all.insert(memory.expose_provenance(), Box::leak(Box::new(object)));
    memory
}

/// The end of an object. Its memory is never used again.
pub(crate) fn dispose(id: Id) {
    if let Kind::Object(object) = kind(id) {
        object.check_alive("dispose");
        object.dead.store(true, Ordering::SeqCst);
    }
}

/// Whether an object is there that nobody has begun to free.
pub(crate) fn is_alive(id: *const c_void) -> bool {
    find(id.cast_mut()).is_some_and(|object| object.count.load(Ordering::SeqCst) > 0)
}

pub(crate) fn count(id: Id) -> usize {
    find(id).map_or(usize::MAX, |object| object.count.load(Ordering::SeqCst))
}

/// This crate holds one reference to the object for as long as it likes.
pub(crate) fn make_permanent(id: *const c_void) {
    if let Some(object) = find(id.cast_mut()) {
        object.permanent.store(true, Ordering::SeqCst);
    }
}

pub(super) fn live() -> BTreeMap<String, usize> {
    let mut live = BTreeMap::new();
    let all = OBJECTS.read().unwrap_or_else(PoisonError::into_inner);
    for object in all
        .values()
        .filter(|object| !object.dead.load(Ordering::SeqCst))
    {
        let ours = object.permanent.load(Ordering::SeqCst).into();
        if object.count.load(Ordering::SeqCst) > ours {
            *live.entry(object.class.shown().into()).or_default() += 1;
        }
    }
    live
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_createInstance(class: *const c_void, _extra: usize) -> Id {
    create(class)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn object_dispose(id: Id) -> Id {
    dispose(id);
    null_mut()
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
            // SAFETY: a place stays in the table only between objc_initWeak and objc_destroyWeak,
            // while it is valid, and the lock keeps the latter waiting
            unsafe { *std::ptr::with_exposed_provenance_mut::<Id>(place) = null_mut() };
        }
    }
    before == 1
}

fn deallocate(id: Id, object: &Object) {
    unsafe extern "C-unwind" {
        fn sel_registerName(name: *const c_char) -> Sel;
    }
    // SAFETY: a C string
    let selector = unsafe { sel_registerName(c"dealloc".as_ptr()) };
    let method = objc_msg_lookup(id, selector);
    // SAFETY: every dealloc takes the object and the selector and returns nothing
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
        // not zero: with the lock held, a place whose object has gone to zero is empty
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
