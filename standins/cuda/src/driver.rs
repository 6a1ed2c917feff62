//! The state of the simulated driver.

use crate::codes::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_OPERATING_SYSTEM,
    CUDA_ERROR_UNKNOWN, CUresult, CudaResult,
};
use crate::context::{Context, Gpu};
use crate::event::Event;
use crate::graph::{Capture, GraphExec, Node};
use crate::log::LOG;
use crate::memory::Memory;
use crate::module::{Function, Module};
use crate::stream::Stream;
use crate::table::{InvalidHandle, Table, next_epoch};
use crate::work::HostFunctionThread;
use fencepost_sim::lock;
use fencepost_sim::{Config, Queue, SimDevice, Stepper, Sticky, random_seed};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// The process that created the simulated machine. The child of a fork has none of its threads, and
/// a lock that was held during the fork is never released there.
static OWNER: AtomicU32 = AtomicU32::new(0);

pub(crate) fn in_forked_child() -> bool {
    let owner = OWNER.load(Ordering::SeqCst);
    owner != 0 && owner != std::process::id()
}

/// The simulated machine of this process, and all its objects.
#[derive(Debug)]
pub(crate) struct Driver {
    /// The function being called, for violations.
    pub(crate) calling: &'static str,
    pub(crate) root: SimDevice,
    pub(crate) config: Config,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) contexts: Table<Arc<Context>>,
    pub(crate) streams: Table<Stream>,
    pub(crate) events: Table<Event>,
    pub(crate) modules: Table<Module>,
    pub(crate) functions: Table<Function>,
    pub(crate) graphs: Table<Vec<Node>>,
    pub(crate) execs: Table<GraphExec>,
    /// The default streams, by context and thread. The legacy stream has no thread.
    pub(crate) defaults: BTreeMap<(u64, Option<u64>), usize>,
    pub(crate) captures: BTreeMap<u64, Capture>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) host_functions: HostFunctionThread,
    /// Whether handles of destroyed objects are used again, as by real drivers.
    pub(crate) recycle: bool,
    /// By how many parts per million the clock of the first device runs fast.
    pub(crate) drift: f64,
    /// How much work may be pending on a stream before a call that submits more blocks; 0: any.
    pub(crate) queue_depth: usize,
    /// Whether loading a module waits for all work of the context, as a real driver does while a
    /// stream is held.
    pub(crate) module_waits: bool,
    /// The queue that the current call has filled.
    pub(crate) full_queue: Option<(Arc<Context>, Queue)>,
    /// Whether the process that exported an event may open its handle, so that it can act as a
    /// second process.
    pub(crate) ipc_in_one_process: bool,
    /// Whether processes can share events: not with `FENCEPOST_SIM_CUDA_IPC=0`.
    pub(crate) ipc_events: bool,
    next_id: u64,
    _stepper: Stepper,
}

/// Runs `body` with the driver locked. The first call creates the machine.
pub(crate) fn with_driver<R>(body: impl FnOnce(&mut Driver) -> R) -> CudaResult<R> {
    let mut driver = lock(&DRIVER);
    if driver.is_none() {
        *driver = Some(Driver::new(None, None)?);
    }
    driver.as_mut().map(body).ok_or(CUDA_ERROR_UNKNOWN)
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

/// How many devices the environment asks for.
pub(crate) fn configured_devices() -> usize {
    number("FENCEPOST_SIM_CUDA_DEVICES").unwrap_or(2)
}

impl Driver {
    pub(crate) fn new(seed: Option<u64>, devices: Option<usize>) -> CudaResult<Driver> {
        let seed = seed.unwrap_or_else(random_seed);
        let devices = devices.unwrap_or_else(configured_devices);
        let config = Config {
            sticky: Sticky::Device,
            channels: number("FENCEPOST_SIM_CUDA_CHANNELS").filter(|&n| n > 0),
            // tests block streams from the host and measure that time with the device's clock
            follows_real_time: true,
            trace_capacity: 4096,
            ..Config::seeded(seed)
        };
        let root = SimDevice::new(config.clone()).map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        let stepper = root
            .spawn_stepper()
            .map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        let host_functions = HostFunctionThread::spawn()?;
        let epoch = next_epoch();
        LOG.set_seed(seed);
        OWNER.store(std::process::id(), Ordering::SeqCst);
        Ok(Driver {
            calling: "",
            root,
            config,
            gpus: (0..devices).map(|_| Gpu::default()).collect(),
            contexts: Table::new(0x11, epoch),
            streams: Table::new(0x12, epoch),
            events: Table::new(0x13, epoch),
            modules: Table::new(0x14, epoch),
            functions: Table::new(0x15, epoch),
            graphs: Table::new(0x16, epoch),
            execs: Table::new(0x17, epoch),
            defaults: BTreeMap::new(),
            captures: BTreeMap::new(),
            memory: Arc::default(),
            host_functions,
            recycle: std::env::var_os("FENCEPOST_SIM_CUDA_RECYCLE").is_some_and(|v| v == "1"),
            drift: number("FENCEPOST_SIM_CUDA_DRIFT").unwrap_or(20) as f64,
            queue_depth: number("FENCEPOST_SIM_CUDA_QUEUE_DEPTH").unwrap_or(0),
            module_waits: number("FENCEPOST_SIM_CUDA_MODULE_WAITS") == Some(1),
            full_queue: None,
            ipc_in_one_process: false,
            ipc_events: number("FENCEPOST_SIM_CUDA_IPC") != Some(0),
            // as on hardware, the ids of streams and contexts are never small
            next_id: 16,
            _stepper: stepper,
        })
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Returns the wait of a call that has filled a stream's queue. The caller runs it without the
    /// lock.
    pub(crate) fn wait_for_space(&mut self) -> impl FnOnce() + use<> {
        let (full_queue, depth) = (self.full_queue.take(), self.queue_depth);
        move || {
            if let Some((context, queue)) = full_queue {
                let space = || queue.pending() < depth || context.sticky_error.check().is_err();
                let _ = context.device.wait_until(None, space);
            }
        }
    }

    /// Reports a handle that names no object. Returns the error code for the caller.
    pub(crate) fn bad_handle(&self, what: &str, handle: usize, why: InvalidHandle) -> CUresult {
        let how = match why {
            InvalidHandle::Destroyed => "was destroyed",
            InvalidHandle::Unknown => "was never created",
        };
        LOG.violation(&format!("{}: {what} {handle:#x} {how}", self.calling));
        if what == "context" {
            CUDA_ERROR_INVALID_CONTEXT
        } else {
            CUDA_ERROR_INVALID_HANDLE
        }
    }
}
