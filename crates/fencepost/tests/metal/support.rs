//! Shared by the tests of the Metal backend on the stand-in.
//!
//! Tests run outside of any autorelease pool, to detect calls of the library that lack one of their
//! own.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fencepost::{Device, Error, Marker, metal, testing};
use fencepost_sim_metal::{Control, Session, Setup};
use objc2::{
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
    MTLDevice, MTLResourceOptions,
};

/// A wait that takes this long hangs.
pub(crate) const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

pub(crate) type Obj<T> = Retained<ProtocolObject<T>>;

/// The first device of the current machine. `Device::open` may keep one of an earlier machine.
pub(crate) fn gpu() -> Device {
    testing::metal::fresh(0).unwrap()
}

/// Runs a test with some seeds, each on a machine of its own. Afterwards no object of Metal may be
/// left, none may be released too often, and nothing may be done that Metal forbids.
pub(crate) fn with_gpu(test: impl Fn(&Device, &Session)) {
    with_gpu_of(|_| (), test);
}

/// As [`with_gpu`], on machines that `set_up` has changed.
pub(crate) fn with_gpu_of(set_up: impl Fn(&mut Setup), test: impl Fn(&Device, &Session)) {
    fencepost_sim::with_seeds(8, |seed| {
        let mut setup = Setup::seeded(seed);
        set_up(&mut setup);
        with_setup(setup, |session| {
            let device = gpu();
            test(&device, session);
        });
    });
}

pub(crate) fn with_setup(setup: Setup, test: impl FnOnce(&Session)) {
    let session = Control.session(setup);
    test(&session);
    assert!(session.wait_idle(PATIENCE), "{:?}", session.pending_work());
    // Threads of a host device or of callbacks may drop a marker a little later.
    let start = Instant::now();
    while !session.live().is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(session.live(), BTreeMap::new());
    assert_eq!(session.violations(), Vec::<String>::new());
}

pub(crate) fn is_pending(marker: &Marker) {
    let early = marker.synchronize_timeout(Duration::from_millis(10));
    assert!(matches!(early, Err(Error::Timeout(_))), "{early:?}");
}

pub(crate) fn done(marker: &Marker) {
    marker.synchronize_timeout(PATIENCE).unwrap();
}

/// The marker fails with `text` in its first cause, which is `hops` waits away.
pub(crate) fn fails(marker: &Marker, text: &str, hops: usize) {
    let error = marker.synchronize_timeout(PATIENCE).unwrap_err();
    let cause = error.cause().unwrap_or_else(|| panic!("{error:?}"));
    assert!(cause.root().contains(text), "{error}");
    assert_eq!(cause.hops(), hops, "{error}");
}

/// A queue of the caller's, with memory.
pub(crate) struct Theirs {
    pub(crate) queue: Obj<dyn MTLCommandQueue>,
    pub(crate) memory: Obj<dyn MTLBuffer>,
}

impl Theirs {
    pub(crate) fn new(device: &Device) -> Theirs {
        autoreleasepool(|_| {
            let raw = metal::device_as_raw(device).unwrap();
            let shared = MTLResourceOptions::StorageModeShared;
            Theirs {
                queue: raw.newCommandQueue().unwrap(),
                memory: raw.newBufferWithLength_options(4, shared).unwrap(),
            }
        })
    }

    pub(crate) fn buffer(&self) -> Obj<dyn MTLCommandBuffer> {
        autoreleasepool(|_| self.queue.commandBuffer().unwrap())
    }

    /// Encodes work that fills the memory.
    pub(crate) fn fill(&self, buffer: &ProtocolObject<dyn MTLCommandBuffer>, value: u8) {
        autoreleasepool(|_| {
            let encoder = buffer.blitCommandEncoder().unwrap();
            encoder.fillBuffer_range_value(&self.memory, (0..4).into(), value);
            encoder.endEncoding();
        });
    }

    pub(crate) fn value(&self) -> u8 {
        // SAFETY: four bytes of shared memory, on which no work is pending when this is called.
        unsafe { self.memory.contents().cast::<u8>().as_ptr().read_volatile() }
    }
}
