//! The one simulated machine of this process, and its tables.

use crate::capture::{Capture, GraphExec, Node};
use crate::codes::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_OPERATING_SYSTEM, CUresult,
    Done,
};
use crate::context::{Context, Gpu};
use crate::event::Event;
use crate::memory::Memory;
use crate::module::{Function, Module};
use crate::stream::Stream;
use crate::table::{Missing, Table, next_epoch};
use crate::work::HostFunctions;
use crate::{control, entry};
use fencepost_sim::{Config, Queue, SimDevice, Stepper, Sticky, seed_or};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

pub(crate) static FACE: Mutex<Option<Face>> = Mutex::new(None);

#[derive(Debug)]
pub(crate) struct Face {
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
    /// The default streams, by context and thread; no thread is the legacy one.
    pub(crate) defaults: BTreeMap<(u64, Option<u64>), usize>,
    pub(crate) captures: BTreeMap<u64, Capture>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) host_functions: HostFunctions,
    /// Whether handles are given out again, as real drivers do.
    pub(crate) recycle: bool,
    /// How many pieces of work a stream takes before calls block; 0 for any number.
    pub(crate) depth: usize,
    /// What this call has filled up.
    pub(crate) filled: Option<(Arc<Context>, Queue)>,
    /// Whether an event's handle may be opened in the process that exported it, in place of a
    /// second process.
    pub(crate) ipc_in_one_process: bool,
    next_id: u64,
    _stepper: Stepper,
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

impl Face {
    pub(crate) fn new(seed: Option<u64>, devices: Option<usize>) -> Done<Face> {
        // a hasher's keys are the one source of chance in the standard library
        let seed = seed.unwrap_or_else(|| seed_or(RandomState::new().hash_one(0) >> 32));
        let devices = devices
            .or_else(|| number("FENCEPOST_SIM_CUDA_DEVICES"))
            .unwrap_or(2);
        let config = Config {
            sticky: Sticky::Device,
            channels: number("FENCEPOST_SIM_CUDA_CHANNELS").filter(|&n| n > 0),
            // tests hold streams from the host, and look at how long by the device's clock
            follows_real_time: true,
            trace_capacity: 4096,
            ..Config::seeded(seed)
        };
        let root = SimDevice::new(config.clone()).map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        let stepper = root
            .spawn_stepper()
            .map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        let host_functions = HostFunctions::spawn()?;
        let epoch = next_epoch();
        control::use_seed(seed);
        entry::owned_here();
        Ok(Face {
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
            depth: number("FENCEPOST_SIM_CUDA_QUEUE_DEPTH").unwrap_or(0),
            filled: None,
            ipc_in_one_process: false,
            // a stream's or context's number is never small on hardware either
            next_id: 16,
            _stepper: stepper,
        })
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A call that fills a stream's queue blocks, but not with the lock: what has to be waited for
    /// once it is released.
    pub(crate) fn room(&mut self) -> impl FnOnce() + use<> {
        let (filled, depth) = (self.filled.take(), self.depth);
        move || {
            if let Some((context, queue)) = filled {
                let room = || queue.pending() < depth || context.trouble.check().is_err();
                let _ = context.device.wait_until(None, room);
            }
        }
    }

    /// A handle that names nothing: an error for the caller, and a mistake of his.
    pub(crate) fn misused(&self, what: &str, handle: usize, missing: Missing) -> CUresult {
        let how = match missing {
            Missing::Destroyed => "was destroyed",
            Missing::Unknown => "was never made",
        };
        control::violation(&format!("{}: {what} {handle:#x} {how}", self.calling));
        if what == "context" {
            CUDA_ERROR_INVALID_CONTEXT
        } else {
            CUDA_ERROR_INVALID_HANDLE
        }
    }
}
