//! Objects: a table of them by address, and how they begin and end.

use super::class::{self, Class, FIRST_WORD};
use super::types::{Id, fail};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// What the runtime knows of an object. The object's own memory has only its variables.
pub(super) struct Object {
    pub(super) class: &'static Class,
    pub(super) count: AtomicUsize,
    pub(super) dead: AtomicBool,
    /// Whether this crate keeps a reference to it until the process ends, which is no leak.
    permanent: AtomicBool,
    serial: u64,
}

/// All objects by address. Deallocated ones stay, since their memory is never reused.
static OBJECTS: RwLock<BTreeMap<usize, &'static Object>> = RwLock::new(BTreeMap::new());
static SERIAL: AtomicU64 = AtomicU64::new(1);

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
    // SAFETY: callers of objc2 pass a pointer to an object. One that this runtime did not make is a
    // block, whose first word is its class
    let first = unsafe { *id.cast::<*const c_void>() };
    match class::find(first) {
        Some(class) if class::is_block(first) => Kind::Block(class),
        _ => fail(format_args!("{id:?} is no Objective-C object")),
    }
}

pub(super) fn find(id: Id) -> Option<&'static Object> {
    let all = OBJECTS.read().unwrap_or_else(PoisonError::into_inner);
    all.get(&id.addr()).copied()
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
    // no class here has variables with a greater alignment
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

/// Marks the object as deallocated. Its memory is never reused.
pub(crate) fn dispose(id: Id) {
    if let Kind::Object(object) = kind(id) {
        object.check_alive("dispose");
        object.dead.store(true, Ordering::SeqCst);
    }
}

/// Whether the address is that of an object with references left.
pub(crate) fn is_alive(id: *const c_void) -> bool {
    find(id.cast_mut()).is_some_and(|object| object.count.load(Ordering::SeqCst) > 0)
}

pub(crate) fn count(id: Id) -> usize {
    find(id).map_or(usize::MAX, |object| object.count.load(Ordering::SeqCst))
}

/// Marks the object as one to which this crate keeps a reference until the process ends.
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
