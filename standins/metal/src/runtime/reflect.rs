//! Functions about methods, variables and protocols, and those that are not simulated.

use super::class::{Method, Variable};
use super::types::{Id, Imp, Sel, fail};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

// Methods and variables: objc2 passes pointers that it got from this runtime, which frees neither.

#[unsafe(no_mangle)]
extern "C-unwind" fn method_getName(method: &'static Method) -> Sel {
    std::ptr::with_exposed_provenance(method.selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn method_getImplementation(method: &'static Method) -> Imp {
    method.imp
}

#[unsafe(no_mangle)]
extern "C-unwind" fn method_getTypeEncoding(method: &'static Method) -> *const c_char {
    method.types.as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn ivar_getOffset(variable: &'static Variable) -> isize {
    variable.offset.cast_signed()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn ivar_getName(variable: &'static Variable) -> *const c_char {
    variable.name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn ivar_getTypeEncoding(variable: &'static Variable) -> *const c_char {
    variable.types.as_ptr()
}

// There are no protocol objects. objc2 then skips its check that a class has all methods that the
// protocol requires, of which the classes here have only some.

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_getProtocol(_: *const c_char) -> *const c_void {
    null()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addProtocol(_: *mut c_void, _: *const c_void) -> u8 {
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_conformsToProtocol(_: *const c_void, _: *const c_void) -> u8 {
    0
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_getName(_: *const c_void) -> *const c_char {
    c"?".as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_isEqual(one: *const c_void, other: *const c_void) -> u8 {
    std::ptr::eq(one, other).into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_conformsToProtocol(one: *const c_void, other: *const c_void) -> u8 {
    std::ptr::eq(one, other).into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_copyMethodDescriptionList(
    _: *const c_void,
    _: u8,
    _: u8,
    count: Option<&mut c_uint>,
) -> *mut c_void {
    if let Some(count) = count {
        *count = 0;
    }
    null_mut()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_exception_throw(_: Id) -> ! {
    fail(format_args!(
        "an Objective-C exception was thrown, and there are none here"
    ))
}

/// The helpers of blocks that a C compiler makes call this for captured objects. The helpers of
/// block2's blocks do not.
#[unsafe(no_mangle)]
extern "C-unwind" fn _Block_object_assign(_: *mut c_void, _: *const c_void, _: c_int) {
    fail(format_args!(
        "a block captures an object in a way that is not simulated"
    ))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn _Block_object_dispose(_: *const c_void, _: c_int) {
    fail(format_args!(
        "a block captures an object in a way that is not simulated"
    ))
}
