//! Events across processes: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>,
//! `cuIpc…EventHandle`.
//!
//! Each process has a simulated machine of its own. What they share of an event is a small file:
//! how many records of it there were, and the latest that is complete. A process that ends with
//! records pending leaves them so.

use crate::boundary::Out;
use crate::codes::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_OPERATING_SYSTEM, CUresult, Done,
};
use crate::entry::call;
use crate::event::{CU_EVENT_DISABLE_TIMING, CU_EVENT_INTERPROCESS, CUevent, Event};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// An event's name in other processes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUipcEventHandle {
    /// The bytes.
    pub reserved: [u8; 64],
}

const MARK: [u8; 16] = *b"fencepost-sim-ev";

#[derive(Clone, Copy, Debug)]
struct Name {
    process: u32,
    number: u64,
}

impl Name {
    fn handle(self) -> CUipcEventHandle {
        let mut reserved = [0; 64];
        reserved[..16].copy_from_slice(&MARK);
        reserved[16..20].copy_from_slice(&self.process.to_le_bytes());
        reserved[20..28].copy_from_slice(&self.number.to_le_bytes());
        CUipcEventHandle { reserved }
    }

    fn of(handle: &CUipcEventHandle) -> Option<Name> {
        let bytes = &handle.reserved;
        bytes.starts_with(&MARK).then_some(())?;
        Some(Name {
            process: u32::from_le_bytes(bytes[16..20].try_into().ok()?),
            number: u64::from_le_bytes(bytes[20..28].try_into().ok()?),
        })
    }

    fn path(self) -> PathBuf {
        let Name { process, number } = self;
        std::env::temp_dir().join(format!("fencepost-sim-event-{process}-{number}"))
    }
}

/// What processes share of an event.
#[derive(Debug)]
pub(crate) struct Shared {
    name: Name,
    file: Mutex<File>,
    /// Whether the file goes with it.
    owner: bool,
}

/// Places in the file.
const RECORDED: u64 = 0;
const COMPLETE: u64 = 8;

impl Shared {
    pub(crate) fn new(number: u64) -> Done<Arc<Shared>> {
        let name = Name {
            process: std::process::id(),
            number,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(name.path())
            .map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        let shared = Shared {
            name,
            file: Mutex::new(file),
            owner: true,
        };
        shared.put(RECORDED, 0);
        shared.put(COMPLETE, 0);
        Ok(Arc::new(shared))
    }

    fn open(name: Name) -> Done<Arc<Shared>> {
        let file = OpenOptions::new().read(true).write(true).open(name.path());
        Ok(Arc::new(Shared {
            name,
            file: Mutex::new(file.map_err(|_| CUDA_ERROR_INVALID_HANDLE)?),
            owner: false,
        }))
    }

    fn get(&self, place: u64) -> u64 {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 8];
        let read = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.read_exact(&mut bytes));
        read.map_or(0, |()| u64::from_le_bytes(bytes))
    }

    fn put(&self, place: u64, value: u64) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // a file that cannot be written any more: the record stays pending
        let _ = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.write_all(&value.to_le_bytes()));
    }

    /// How many records there were.
    pub(crate) fn recorded(&self) -> u64 {
        self.get(RECORDED)
    }

    pub(crate) fn record(&self, record: u64) {
        self.put(RECORDED, record);
    }

    pub(crate) fn is_complete(&self, record: u64) -> bool {
        self.get(COMPLETE) >= record
    }

    pub(crate) fn complete(&self, record: u64) {
        if !self.is_complete(record) {
            self.put(COMPLETE, record);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.owner {
            // gone already if somebody cleans up the folder
            let _ = std::fs::remove_file(self.name.path());
        }
    }
}

/// Names an event for other processes. It must have been made for that.
#[unsafe(no_mangle)]
pub extern "C" fn cuIpcGetEventHandle(
    handle: Out<'_, CUipcEventHandle>,
    event: CUevent,
) -> CUresult {
    call("cuIpcGetEventHandle", |face| {
        let handle = handle.needed()?;
        let event = face.event(event)?;
        event.context.trouble.check()?;
        let shared = event.shared.as_ref().ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        handle.put(shared.name.handle());
        Ok(())
    })
}

/// Opens such a name; not in the process that gave it, as with CUDA, unless a test asked for it.
#[unsafe(no_mangle)]
pub extern "C" fn cuIpcOpenEventHandle(
    event: Out<'_, CUevent>,
    handle: CUipcEventHandle,
) -> CUresult {
    call("cuIpcOpenEventHandle", |face| {
        let event = event.needed()?;
        let context = face.current()?;
        let name = Name::of(&handle).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if name.process == std::process::id() && !face.ipc_in_one_process {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
        let opened = Event::new(context, flags, Some(Shared::open(name)?));
        event.put(face.events.insert(opened));
        Ok(())
    })
}
