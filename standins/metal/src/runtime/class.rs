//! Classes, their methods and their variables.

use super::types::{Id, Imp, Sel, fail, text};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

/// A class or a metaclass. Callers know only its address.
pub(crate) struct Class {
    pub(super) name: &'static CStr,
    /// Empty until the class is made. A program may name classes that this crate does not make.
    body: OnceLock<Body>,
}

struct Body {
    superclass: Option<&'static Class>,
    /// None in a metaclass.
    metaclass: Option<&'static Class>,
    size: AtomicUsize,
    methods: RwLock<BTreeMap<usize, &'static Method>>,
    variables: RwLock<Vec<&'static Variable>>,
    registered: AtomicBool,
}

pub(crate) struct Method {
    /// The selector's address.
    pub(super) selector: usize,
    pub(super) imp: Imp,
    pub(super) types: CString,
}

pub(crate) struct Variable {
    pub(super) name: CString,
    pub(super) types: CString,
    pub(super) offset: usize,
}

static BY_ADDRESS: RwLock<BTreeMap<usize, &'static Class>> = RwLock::new(BTreeMap::new());
static BY_NAME: RwLock<BTreeMap<&'static CStr, &'static Class>> = RwLock::new(BTreeMap::new());

/// The size of the first word of an object's memory. It stays unused; other runtimes store the
/// class there.
pub(super) const FIRST_WORD: usize = size_of::<usize>();

macro_rules! named_classes {
    ($($symbol:literal $class:ident $name:literal,)*) => {
        $(
            // the name by which code compiled for GNUstep, or a block, refers to the class
            #[unsafe(export_name = $symbol)]
            static $class: Class = Class::empty($name);
        )*
        static NAMED: &[&Class] = &[$(&$class),*];
    };
}

named_classes! {
    "_OBJC_CLASS_NSObject" OBJECT c"NSObject",
    "_OBJC_CLASS_NSString" STRING c"NSString",
    "_OBJC_CLASS_NSError" ERROR c"NSError",
    "_OBJC_CLASS_NSArray" ARRAY c"NSArray",
    "_OBJC_CLASS_MTLSharedEventListener" LISTENER c"MTLSharedEventListener",
    "_OBJC_CLASS_MTLCompileOptions" COMPILE_OPTIONS c"MTLCompileOptions",
    "_OBJC_CLASS_MTLCommandBufferDescriptor" BUFFER_DESCRIPTOR c"MTLCommandBufferDescriptor",
    "_NSConcreteStackBlock" STACK_BLOCK c"__NSStackBlock__",
    "_NSConcreteGlobalBlock" GLOBAL_BLOCK c"__NSGlobalBlock__",
    "_NSConcreteMallocBlock" MALLOC_BLOCK c"__NSMallocBlock__",
}

const BLOCKS: [&Class; 3] = [&STACK_BLOCK, &GLOBAL_BLOCK, &MALLOC_BLOCK];

impl Class {
    const fn empty(name: &'static CStr) -> Class {
        Class {
            name,
            body: OnceLock::new(),
        }
    }

    pub(super) fn address(&self) -> Id {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    fn body(&self) -> &Body {
        self.body
            .get()
            .unwrap_or_else(|| fail(format_args!("class {} is not simulated", self.shown())))
    }

    pub(super) fn shown(&self) -> &'static str {
        self.name.to_str().unwrap_or("?")
    }

    pub(super) fn is_meta(&self) -> bool {
        self.body().metaclass.is_none()
    }

    pub(super) fn size(&self) -> usize {
        self.body().size.load(Ordering::SeqCst)
    }

    /// The class's method for the selector, or that of the nearest class above.
    pub(super) fn method(&self, selector: Sel) -> Option<&'static Method> {
        let mut class = self;
        loop {
            let body = class.body();
            let methods = body.methods.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(method) = methods.get(&selector.addr()) {
                return Some(method);
            }
            drop(methods);
            class = body.superclass?;
        }
    }
}

/// The class at this address, if one is there.
pub(super) fn find(class: *const c_void) -> Option<&'static Class> {
    let all = BY_ADDRESS.read().unwrap_or_else(PoisonError::into_inner);
    all.get(&class.addr()).copied()
}

/// The class at this address, if a program may name it and it is not made.
pub(super) fn find_unmade(class: *const c_void) -> Option<&'static Class> {
    NAMED
        .iter()
        .copied()
        .find(|named| std::ptr::eq(named.address(), class) && named.body.get().is_none())
}

pub(super) fn expect(class: *const c_void) -> &'static Class {
    find(class).unwrap_or_else(|| match find_unmade(class) {
        Some(class) => fail(format_args!("class {} is not simulated", class.shown())),
        None => fail(format_args!("{class:?} is no class")),
    })
}

pub(super) fn is_block(class: *const c_void) -> bool {
    BLOCKS
        .iter()
        .any(|block| std::ptr::eq(block.address().cast_const(), class))
}

pub(super) fn malloc_block() -> *const c_void {
    MALLOC_BLOCK.address()
}

pub(crate) fn register_blocks() {
    for block in BLOCKS {
        let made = objc_allocateClassPair(OBJECT.address(), block.name.as_ptr(), 0);
        objc_registerClassPair(made);
    }
}

fn lasting(name: &CStr) -> &'static CStr {
    Box::leak(name.to_owned().into_boxed_c_str())
}

fn fill(
    class: &'static Class,
    superclass: Option<&'static Class>,
    metaclass: Option<&'static Class>,
    size: usize,
) {
    let body = Body {
        superclass,
        metaclass,
        size: AtomicUsize::new(size),
        methods: RwLock::default(),
        variables: RwLock::default(),
        // a metaclass is never registered by itself
        registered: AtomicBool::new(metaclass.is_none()),
    };
    if class.body.set(body).is_err() {
        fail(format_args!("class {} is made twice", class.shown()));
    }
    let mut all = BY_ADDRESS.write().unwrap_or_else(PoisonError::into_inner);
    all.insert(class.address().addr(), class);
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_allocateClassPair(
    superclass: *const c_void,
    name: *const c_char,
    _extra: usize,
) -> *mut c_void {
    // SAFETY: objc2 passes a C string
    let name = unsafe { text(name) };
    let mut by_name = BY_NAME.write().unwrap_or_else(PoisonError::into_inner);
    if by_name.contains_key(name) {
        return null_mut();
    }
    let class = match NAMED.iter().copied().find(|class| class.name == name) {
        Some(class) => class,
        None => Box::leak(Box::new(Class::empty(lasting(name)))),
    };
    let superclass = (!superclass.is_null()).then(|| expect(superclass));
    let metaclass: &'static Class = Box::leak(Box::new(Class::empty(class.name)));
    // the root's metaclass inherits from the root, so that classes have the methods of all objects
    let above_meta = superclass.map_or(Some(class), |above| above.body().metaclass);
    let size = superclass.map_or(FIRST_WORD, Class::size);
    fill(class, superclass, Some(metaclass), size);
    fill(metaclass, above_meta, None, FIRST_WORD);
    by_name.insert(class.name, class);
    class.address()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_registerClassPair(class: *mut c_void) {
    expect(class)
        .body()
        .registered
        .store(true, Ordering::SeqCst);
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_disposeClassPair(class: *mut c_void) {
    let class = expect(class);
    let mut by_name = BY_NAME.write().unwrap_or_else(PoisonError::into_inner);
    by_name.remove(class.name);
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_getClass(name: *const c_char) -> *const c_void {
    // SAFETY: objc2 passes a C string
    let name = unsafe { text(name) };
    let by_name = BY_NAME.read().unwrap_or_else(PoisonError::into_inner);
    match by_name.get(name) {
        Some(class) if class.body().registered.load(Ordering::SeqCst) => class.address(),
        _ => null(),
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addMethod(
    class: *mut c_void,
    selector: Sel,
    imp: Imp,
    types: *const c_char,
) -> u8 {
    // SAFETY: objc2 passes a C string
    let types = unsafe { text(types) }.to_owned();
    let body = expect(class).body();
    let mut methods = body.methods.write().unwrap_or_else(PoisonError::into_inner);
    if methods.contains_key(&selector.addr()) {
        return 0;
    }
    let method = Method {
        selector: selector.expose_provenance(),
        imp,
        types,
    };
    methods.insert(selector.addr(), Box::leak(Box::new(method)));
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addIvar(
    class: *mut c_void,
    name: *const c_char,
    size: usize,
    log2_align: u8,
    types: *const c_char,
) -> u8 {
    // SAFETY: objc2 passes C strings
    let (name, types) = unsafe { (text(name).to_owned(), text(types).to_owned()) };
    let body = expect(class).body();
    let offset = body
        .size
        .load(Ordering::SeqCst)
        .next_multiple_of(1 << log2_align);
    body.size.store(offset + size, Ordering::SeqCst);
    let variable = Variable {
        name,
        types,
        offset,
    };
    let mut variables = body
        .variables
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    variables.push(Box::leak(Box::new(variable)));
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceVariable(
    class: *const c_void,
    name: *const c_char,
) -> *const Variable {
    // SAFETY: objc2 passes a C string
    let name = unsafe { text(name) };
    let mut class = Some(expect(class));
    while let Some(here) = class {
        let variables = here
            .body()
            .variables
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(variable) = variables
            .iter()
            .find(|variable| variable.name.as_c_str() == name)
        {
            return *variable;
        }
        class = here.body().superclass;
    }
    null()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceMethod(class: *const c_void, selector: Sel) -> *const Method {
    expect(class)
        .method(selector)
        .map_or(null(), |method| method)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getClassMethod(class: *const c_void, selector: Sel) -> *const Method {
    let class = expect(class);
    let metaclass = class.body().metaclass.unwrap_or(class);
    metaclass.method(selector).map_or(null(), |method| method)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_respondsToSelector(class: *const c_void, selector: Sel) -> u8 {
    expect(class).method(selector).is_some().into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getName(class: *const c_void) -> *const c_char {
    expect(class).name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getSuperclass(class: *const c_void) -> *const c_void {
    expect(class)
        .body()
        .superclass
        .map_or(null(), |class| class.address().cast_const())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceSize(class: *const c_void) -> usize {
    expect(class).size()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_isMetaClass(class: *const c_void) -> u8 {
    expect(class).is_meta().into()
}

/// The class's metaclass. A metaclass returns itself, which no caller asks for.
pub(super) fn metaclass_of(class: &'static Class) -> &'static Class {
    class.body().metaclass.unwrap_or(class)
}
