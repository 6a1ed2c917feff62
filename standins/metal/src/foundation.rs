//! The classes of Foundation that Metal's methods take and return: `NSObject`, `NSString`,
//! `NSError`, `NSArray`.
//!
//! <https://developer.apple.com/documentation/foundation>,
//! <https://developer.apple.com/documentation/objectivec/nsobject>

use crate::runtime;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyClass, AnyObject, Bool, ClassBuilder, NSObject, Sel};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send, sel};
use objc2_foundation::{NSError, NSFastEnumerationState, NSRange, NSString};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

type Any = *mut AnyObject;

extern "C-unwind" fn initialize(_: &AnyClass, _: Sel) {}

extern "C-unwind" fn alloc(class: &AnyClass, _: Sel) -> Any {
    runtime::create(std::ptr::from_ref(class).cast()).cast()
}

extern "C-unwind" fn new(class: &AnyClass, _: Sel) -> Any {
    // SAFETY: every class has this method
    let object: Any = unsafe { msg_send![class, alloc] };
    // SAFETY: the object is new and not initialised
    unsafe { msg_send![object, init] }
}

extern "C-unwind" fn class_of_class(class: &AnyClass, _: Sel) -> *const AnyClass {
    class
}

extern "C-unwind" fn init(object: Any, _: Sel) -> Any {
    object
}

extern "C-unwind" fn dealloc(object: Any, _: Sel) {
    runtime::dispose(object.cast());
}

extern "C-unwind" fn retain(object: Any, _: Sel) -> Any {
    runtime::objc_retain(object.cast()).cast()
}

extern "C-unwind" fn release(object: Any, _: Sel) {
    runtime::objc_release(object.cast());
}

extern "C-unwind" fn autorelease(object: Any, _: Sel) -> Any {
    runtime::objc_autorelease(object.cast()).cast()
}

extern "C-unwind" fn retain_count(object: Any, _: Sel) -> usize {
    runtime::count(object.cast())
}

extern "C-unwind" fn class(object: &AnyObject, _: Sel) -> *const AnyClass {
    object.class()
}

extern "C-unwind" fn hash(object: Any, _: Sel) -> usize {
    object.addr()
}

extern "C-unwind" fn is_equal(object: Any, _: Sel, other: Any) -> Bool {
    Bool::new(std::ptr::eq(object, other))
}

extern "C-unwind" fn is_kind_of(object: &AnyObject, _: Sel, class: &AnyClass) -> Bool {
    let mut above = Some(object.class());
    while let Some(here) = above {
        if here == class {
            return Bool::YES;
        }
        above = here.superclass();
    }
    Bool::NO
}

extern "C-unwind" fn responds(object: &AnyObject, _: Sel, selector: Sel) -> Bool {
    Bool::new(object.class().responds_to(selector))
}

extern "C-unwind" fn description(object: &AnyObject, _: Sel) -> *mut NSString {
    let name = object.class().name().to_string_lossy();
    Retained::autorelease_return(NSString::from_str(&format!("<{name}: {object:p}>")))
}

/// Makes `NSObject`. It is called once, before any other class is made.
pub(crate) fn register_root() {
    let first: extern "C-unwind" fn(_, _) = initialize;
    let Some(mut root) = ClassBuilder::root(c"NSObject", first) else {
        return;
    };
    // SAFETY: each function has the type that the reference above gives for its selector
    unsafe {
        root.add_class_method(sel!(alloc), alloc as extern "C-unwind" fn(_, _) -> _);
        root.add_class_method(sel!(new), new as extern "C-unwind" fn(_, _) -> _);
        root.add_class_method(
            sel!(class),
            class_of_class as extern "C-unwind" fn(_, _) -> _,
        );
        root.add_method(sel!(init), init as extern "C-unwind" fn(_, _) -> _);
        root.add_method(sel!(dealloc), dealloc as extern "C-unwind" fn(_, _));
        root.add_method(sel!(retain), retain as extern "C-unwind" fn(_, _) -> _);
        root.add_method(sel!(release), release as extern "C-unwind" fn(_, _));
        root.add_method(
            sel!(autorelease),
            autorelease as extern "C-unwind" fn(_, _) -> _,
        );
        root.add_method(
            sel!(retainCount),
            retain_count as extern "C-unwind" fn(_, _) -> _,
        );
        root.add_method(sel!(class), class as extern "C-unwind" fn(_, _) -> _);
        root.add_method(sel!(hash), hash as extern "C-unwind" fn(_, _) -> _);
        root.add_method(
            sel!(isEqual:),
            is_equal as extern "C-unwind" fn(_, _, _) -> _,
        );
        root.add_method(
            sel!(isKindOfClass:),
            is_kind_of as extern "C-unwind" fn(_, _, _) -> _,
        );
        root.add_method(
            sel!(respondsToSelector:),
            responds as extern "C-unwind" fn(_, _, _) -> _,
        );
        root.add_method(
            sel!(description),
            description as extern "C-unwind" fn(_, _) -> _,
        );
        root.add_method(
            sel!(debugDescription),
            description as extern "C-unwind" fn(_, _) -> _,
        );
    }
    root.register();
}

define_class!(
    /// An immutable string in UTF-8.
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "NSString"]
    #[ivars = CString]
    struct Text;

    impl Text {
        #[unsafe(method_id(init))]
        fn init_empty(this: Allocated<Self>) -> Retained<Self> {
            Text::fill(this, b"")
        }

        #[unsafe(method_id(initWithBytes:length:encoding:))]
        fn init_with_bytes(
            this: Allocated<Self>,
            bytes: *const c_void,
            length: usize,
            _encoding: i32,
        ) -> Retained<Self> {
            let bytes = if length == 0 {
                &[]
            } else {
                // SAFETY: the caller vouches for as many bytes
                unsafe { std::slice::from_raw_parts(bytes.cast(), length) }
            };
            Text::fill(this, bytes)
        }

        #[unsafe(method(UTF8String))]
        fn utf8(&self) -> *const c_char {
            self.ivars().as_ptr()
        }

        #[unsafe(method(lengthOfBytesUsingEncoding:))]
        fn length_in_bytes(&self, _encoding: i32) -> usize {
            self.ivars().as_bytes().len()
        }

        #[unsafe(method(length))]
        fn length_in_utf16(&self) -> usize {
            self.ivars().to_string_lossy().encode_utf16().count()
        }

        #[unsafe(method(hash))]
        fn hash_of_text(&self) -> usize {
            let bytes = self.ivars().as_bytes();
            bytes.iter().fold(5381, |hash: usize, byte| hash.wrapping_mul(33) ^ usize::from(*byte))
        }

        #[unsafe(method(isEqual:))]
        fn is_equal_text(&self, other: &AnyObject) -> bool {
            other.downcast_ref::<Text>().is_some_and(|other| other.ivars() == self.ivars())
        }

        #[unsafe(method(isEqualToString:))]
        fn is_equal_to(&self, other: &Text) -> bool {
            other.ivars() == self.ivars()
        }

        #[unsafe(method_id(copy))]
        fn same(&self) -> Retained<Text> {
            self.retain()
        }

        #[unsafe(method_id(description))]
        fn description(&self) -> Retained<Text> {
            self.retain()
        }
    }
);

impl Text {
    /// The text ends at its first zero byte. No string that Metal takes has one.
    fn fill(this: Allocated<Text>, bytes: &[u8]) -> Retained<Text> {
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        let text = CString::new(&bytes[..end]).unwrap_or_default();
        let this = this.set_ivars(text);
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }
}

struct ErrorVariables {
    domain: Retained<NSString>,
    code: isize,
    text: Retained<NSString>,
}

define_class!(
    /// A domain, a code and a text.
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "NSError"]
    #[ivars = ErrorVariables]
    struct Failure;

    impl Failure {
        #[unsafe(method_id(initWithDomain:code:userInfo:))]
        fn init_with(
            this: Allocated<Self>,
            domain: &NSString,
            code: isize,
            _info: *mut AnyObject,
        ) -> Retained<Self> {
            let text = NSString::from_str(&format!("{domain} error {code}"));
            let domain = domain.retain();
            let this = this.set_ivars(ErrorVariables { domain, code, text });
            // SAFETY: NSObject's init
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(domain))]
        fn domain(&self) -> Retained<NSString> {
            self.ivars().domain.clone()
        }

        #[unsafe(method(code))]
        fn code(&self) -> isize {
            self.ivars().code
        }

        #[unsafe(method_id(localizedDescription))]
        fn localized_description(&self) -> Retained<NSString> {
            self.ivars().text.clone()
        }

        #[unsafe(method_id(description))]
        fn description(&self) -> Retained<NSString> {
            let ErrorVariables { domain, code, text } = self.ivars();
            NSString::from_str(&format!("Error Domain={domain} Code={code} \"{text}\""))
        }
    }
);

pub(crate) fn error(domain: &str, code: isize, text: &str) -> Retained<NSError> {
    let this = Failure::alloc().set_ivars(ErrorVariables {
        domain: NSString::from_str(domain),
        code,
        text: NSString::from_str(text),
    });
    // SAFETY: NSObject's init
    let error: Retained<Failure> = unsafe { msg_send![super(this), init] };
    // SAFETY: this class has the name NSError
    unsafe { Retained::cast_unchecked(error) }
}

define_class!(
    /// An immutable array.
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "NSArray"]
    #[ivars = Vec<Retained<AnyObject>>]
    struct List;

    impl List {
        #[unsafe(method_id(init))]
        fn init_empty(this: Allocated<Self>) -> Retained<Self> {
            List::fill(this, Vec::new())
        }

        #[unsafe(method_id(initWithObjects:count:))]
        fn init_with_objects(
            this: Allocated<Self>,
            objects: *mut NonNull<AnyObject>,
            count: usize,
        ) -> Retained<Self> {
            let objects = (0..count).map(|place| {
                // SAFETY: the caller vouches for as many objects
                let object = unsafe { *objects.add(place) };
                // SAFETY: and that they are alive
                unsafe { object.as_ref() }.retain()
            });
            List::fill(this, objects.collect())
        }

        #[unsafe(method(count))]
        fn count(&self) -> usize {
            self.ivars().len()
        }

        #[unsafe(method_id(objectAtIndex:))]
        fn object_at(&self, place: usize) -> Retained<AnyObject> {
            self.ivars()[place].clone()
        }

        #[unsafe(method_id(firstObject))]
        fn first(&self) -> Option<Retained<AnyObject>> {
            self.ivars().first().cloned()
        }

        #[unsafe(method(getObjects:range:))]
        fn get_objects(&self, to: NonNull<NonNull<AnyObject>>, range: NSRange) {
            let chosen = &self.ivars()[range.location..range.location + range.length];
            // SAFETY: the caller has room for as many objects as the range has
            unsafe { List::copy_to(chosen, to) };
        }

        #[unsafe(method(getObjects:))]
        fn get_all_objects(&self, to: NonNull<NonNull<AnyObject>>) {
            // SAFETY: the caller has room for all objects
            unsafe { List::copy_to(self.ivars(), to) };
        }

        /// Returns all objects at once, where they are: a `Retained` is a pointer, and the array
        /// never changes.
        #[unsafe(method(countByEnumeratingWithState:objects:count:))]
        fn enumerate(
            &self,
            state: NonNull<NSFastEnumerationState>,
            _room: NonNull<Any>,
            _count: usize,
        ) -> usize {
            // SAFETY: it is the caller's, and nobody else uses it during this call
            let state = unsafe { &mut *state.as_ptr() };
            let all = self.ivars();
            if state.state != 0 {
                return 0;
            }
            state.state = 1;
            state.itemsPtr = all.as_ptr().cast::<Any>().cast_mut();
            state.mutationsPtr = state.extra.as_mut_ptr();
            all.len()
        }
    }
);

impl List {
    fn fill(this: Allocated<List>, objects: Vec<Retained<AnyObject>>) -> Retained<List> {
        let this = this.set_ivars(objects);
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    /// # Safety
    /// `to` has room for as many objects.
    unsafe fn copy_to(objects: &[Retained<AnyObject>], to: NonNull<NonNull<AnyObject>>) {
        for (place, object) in objects.iter().enumerate() {
            // SAFETY: the caller vouches for it
            unsafe { to.add(place).write(NonNull::from(&**object)) };
        }
    }
}

/// A new `NSArray` of these objects, which the caller owns.
pub(crate) fn list(objects: Vec<Retained<AnyObject>>) -> *mut AnyObject {
    Retained::into_raw(List::fill(List::alloc(), objects)).cast()
}

/// The text of an `NSString`.
pub(crate) fn text(string: &NSString) -> String {
    // SAFETY: a string of the stand-in is a C string for as long as it lives
    unsafe { CStr::from_ptr(string.UTF8String()) }
        .to_string_lossy()
        .into_owned()
}

pub(crate) fn register() {
    Text::class();
    Failure::class();
    List::class();
}
