//! `MTLLibrary`, `MTLFunction`, `MTLComputePipelineState`. A library has the names of the kernels
//! in its source, which is never compiled.
//!
//! <https://developer.apple.com/documentation/metal/mtllibrary>

use crate::foundation::{error, text};
use crate::gpu::DeviceRef;
use crate::kernels::Kernel;
use crate::report;
use fencepost_sim::lock;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{AnyThread, ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSArray, NSError, NSString};
use objc2_metal::{
    MTLAllocation, MTLComputePipelineState, MTLDevice, MTLFunction, MTLLibrary, MTLLibraryError,
};
use std::cell::Cell;
use std::sync::Mutex;

const COMPILE_FAILURE: isize = MTLLibraryError::CompileFailure.0.cast_signed();
const INTERNAL: isize = MTLLibraryError::Internal.0.cast_signed();
const LIBRARY_ERRORS: &str = "MTLLibraryErrorDomain";
const PIPELINE_ERRORS: &str = "AGXMetal13_3";

type Label = Mutex<Option<Retained<NSString>>>;

pub(crate) struct LibraryVariables {
    device: DeviceRef,
    kernels: Vec<String>,
    label: Label,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimLibrary"]
    #[ivars = LibraryVariables]
    pub(crate) struct Library;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for Library {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLLibrary for Library {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().device.object.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }

        #[unsafe(method_id(functionNames))]
        fn function_names(&self) -> Retained<NSArray<NSString>> {
            let names: Vec<_> = self
                .ivars()
                .kernels
                .iter()
                .map(|name| NSString::from_str(name))
                .collect();
            NSArray::from_retained_slice(&names)
        }

        #[unsafe(method_id(newFunctionWithName:))]
        fn new_function(
            &self,
            name: &NSString,
        ) -> Option<Retained<ProtocolObject<dyn MTLFunction>>> {
            let name = text(name);
            let LibraryVariables {
                device, kernels, ..
            } = self.ivars();
            let known = !report::is_refused("newFunctionWithName:") && kernels.contains(&name);
            known.then(|| ProtocolObject::from_retained(Function::make(device.clone(), name)))
        }
    }
);

// SAFETY: everything in it is thread-safe, behind a lock or never changes
unsafe impl Send for Library {}
// SAFETY: as above
unsafe impl Sync for Library {}

impl Library {
    pub(crate) fn compile(
        device: DeviceRef,
        source: &NSString,
    ) -> Result<Retained<Library>, Retained<NSError>> {
        let kernels = entry_points(&text(source));
        if kernels.is_empty() {
            let why = "the stand-in found no \"kernel void NAME(\" in the source";
            return Err(error(LIBRARY_ERRORS, COMPILE_FAILURE, why));
        }
        let this = Library::alloc().set_ivars(LibraryVariables {
            device,
            kernels,
            label: Mutex::new(None),
        });
        // SAFETY: NSObject's init
        Ok(unsafe { msg_send![super(this), init] })
    }

    /// The error of a planned failure.
    pub(crate) fn refused() -> Retained<NSError> {
        error(
            LIBRARY_ERRORS,
            INTERNAL,
            "a planned failure of the stand-in",
        )
    }
}

/// The names after `kernel void` and `[[kernel]] void`.
fn entry_points(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| [line, "\n"])
        .collect();
    let words: Vec<&str> = code
        .split(|c: char| c.is_whitespace() || "()[]".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(3)
        .filter(|three| three[0] == "kernel" && three[1] == "void")
        .map(|three| three[2].to_owned())
        .collect()
}

pub(crate) struct FunctionVariables {
    device: DeviceRef,
    name: String,
    label: Label,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimFunction"]
    #[ivars = FunctionVariables]
    pub(crate) struct Function;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for Function {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLFunction for Function {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().device.object.clone()
        }

        #[unsafe(method_id(name))]
        fn name(&self) -> Retained<NSString> {
            NSString::from_str(&self.ivars().name)
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            lock(&self.ivars().label).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(Message::retain);
        }
    }
);

// SAFETY: everything in it is thread-safe, behind a lock or never changes
unsafe impl Send for Function {}
// SAFETY: as above
unsafe impl Sync for Function {}

impl Function {
    fn make(device: DeviceRef, name: String) -> Retained<Function> {
        let label = Mutex::new(None);
        let this = Function::alloc().set_ivars(FunctionVariables {
            device,
            name,
            label,
        });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }
}

pub(crate) struct PipelineVariables {
    device: DeviceRef,
    kernel: Kernel,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "SimComputePipelineState"]
    #[ivars = PipelineVariables]
    pub(crate) struct Pipeline;

    // SAFETY: as every subclass of NSObject
    unsafe impl NSObjectProtocol for Pipeline {}

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLAllocation for Pipeline {
        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> usize {
            0
        }
    }

    // SAFETY: the methods have the types that the protocol gives them
    unsafe impl MTLComputePipelineState for Pipeline {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.ivars().device.object.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            None
        }

        #[unsafe(method(maxTotalThreadsPerThreadgroup))]
        fn max_threads(&self) -> usize {
            1024
        }

        #[unsafe(method(threadExecutionWidth))]
        fn execution_width(&self) -> usize {
            32
        }

        #[unsafe(method(staticThreadgroupMemoryLength))]
        fn static_memory(&self) -> usize {
            0
        }
    }
);

// SAFETY: nothing in it changes, and the device is thread-safe
unsafe impl Send for Pipeline {}
// SAFETY: as above
unsafe impl Sync for Pipeline {}

impl Pipeline {
    pub(crate) fn build(
        device: DeviceRef,
        function: &ProtocolObject<dyn MTLFunction>,
    ) -> Result<Retained<Pipeline>, Retained<NSError>> {
        let object: &AnyObject = function.as_ref();
        let name = object
            .downcast_ref::<Function>()
            .map_or("", |function| &function.ivars().name);
        let Some(kernel) = Kernel::named(name) else {
            let why = format!("the stand-in does not know what the kernel {name:?} does");
            return Err(error(PIPELINE_ERRORS, INTERNAL, &why));
        };
        let this = Pipeline::alloc().set_ivars(PipelineVariables { device, kernel });
        // SAFETY: NSObject's init
        Ok(unsafe { msg_send![super(this), init] })
    }

    /// The error of a planned failure.
    pub(crate) fn refused() -> Retained<NSError> {
        error(
            PIPELINE_ERRORS,
            INTERNAL,
            "a planned failure of the stand-in",
        )
    }

    pub(crate) fn kernel(&self) -> Kernel {
        self.ivars().kernel
    }
}

define_class!(
    /// `MTLCompileOptions`, which have no effect, since nothing is compiled.
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "MTLCompileOptions"]
    #[ivars = OptionsVariables]
    struct CompileOptions;

    impl CompileOptions {
        #[unsafe(method_id(init))]
        fn init_default(this: objc2::rc::Allocated<Self>) -> Retained<Self> {
            let this = this.set_ivars(OptionsVariables::default());
            // SAFETY: NSObject's init
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(languageVersion))]
        fn language_version(&self) -> usize {
            self.ivars().language.get()
        }

        #[unsafe(method(setLanguageVersion:))]
        fn set_language_version(&self, version: usize) {
            self.ivars().language.set(version);
        }

        #[unsafe(method(fastMathEnabled))]
        fn fast_math(&self) -> bool {
            self.ivars().fast_math.get()
        }

        #[unsafe(method(setFastMathEnabled:))]
        fn set_fast_math(&self, on: bool) {
            self.ivars().fast_math.set(on);
        }
    }
);

#[derive(Default)]
struct OptionsVariables {
    language: Cell<usize>,
    fast_math: Cell<bool>,
}

/// The object, or nil with the error in the caller's place: the result of a method with an `error:`
/// argument.
pub(crate) fn nil_with_error<T>(
    result: Result<Retained<T>, Retained<NSError>>,
    to: *mut *mut NSError,
) -> Option<Retained<T>> {
    match result {
        Ok(made) => Some(made),
        Err(error) => {
            if !to.is_null() {
                // SAFETY: the caller's place for an error; the caller does not own the error
                unsafe { *to = Retained::autorelease_ptr(error) };
            }
            None
        }
    }
}

pub(crate) fn register() {
    Library::class();
    Function::class();
    Pipeline::class();
    CompileOptions::class();
}
