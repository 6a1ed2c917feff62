//! Selectors, and the function that a message calls.

use super::class::{self, Class};
use super::object::{Kind, kind};
use super::types::{Id, Imp, Sel, fail, text};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{PoisonError, RwLock};

/// The registered names. The address of a name is its selector, so each is stored once and never
/// freed.
static SELECTORS: RwLock<BTreeMap<CString, &'static CStr>> = RwLock::new(BTreeMap::new());

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn sel_registerName(name: *const c_char) -> Sel {
    // SAFETY: objc2 passes a C string
    let name = unsafe { text(name) };
    let known = SELECTORS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(selector) = known.get(name) {
        return selector.as_ptr();
    }
    drop(known);
    let mut all = SELECTORS.write().unwrap_or_else(PoisonError::into_inner);
    let new = || -> &'static CStr { Box::leak(name.to_owned().into_boxed_c_str()) };
    all.entry(name.to_owned()).or_insert_with(new).as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn sel_getName(selector: Sel) -> *const c_char {
    selector
}

#[unsafe(no_mangle)]
extern "C-unwind" fn sel_isEqual(one: Sel, other: Sel) -> u8 {
    std::ptr::eq(one, other).into()
}

fn shown(selector: Sel) -> String {
    // SAFETY: selectors come from `sel_registerName` and are never freed
    unsafe { text(selector) }.to_string_lossy().into_owned()
}

fn function(class: &'static Class, selector: Sel) -> Imp {
    match class.method(selector) {
        Some(method) => method.imp,
        None => fail(format_args!(
            "unrecognized selector {}[{} {}]",
            if class.is_meta() { '+' } else { '-' },
            class.shown(),
            shown(selector),
        )),
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn objc_msg_lookup(receiver: Id, selector: Sel) -> Imp {
    let class = match kind(receiver) {
        Kind::Nil => fail(format_args!("{} was sent to nil", shown(selector))),
        Kind::Class(class) => class::metaclass_of(class),
        Kind::Block(class) => class,
        Kind::Object(object) => {
            object.check_alive(&shown(selector));
            object.class
        }
    };
    function(class, selector)
}

/// The receiver of a message to `super`, in clang's layout for GNUstep.
#[repr(C)]
struct Super {
    receiver: Id,
    superclass: *const c_void,
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_msg_lookup_super(to: &Super, selector: Sel) -> Imp {
    function(class::expect(to.superclass), selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn object_getClass(object: Id) -> *const c_void {
    match kind(object) {
        Kind::Nil => std::ptr::null(),
        Kind::Class(class) => class::metaclass_of(class).address(),
        Kind::Block(class) => class.address(),
        Kind::Object(object) => object.class.address(),
    }
}
