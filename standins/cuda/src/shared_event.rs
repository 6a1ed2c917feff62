//! The part of an event that several processes share:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>, `cuIpc…EventHandle`.
//!
//! Each process has a simulated machine of its own. They share a small file with the number of
//! records and the number of the latest complete record. If a process ends while records are
//! pending, they stay pending.

use crate::codes::{CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_OPERATING_SYSTEM, CudaResult};
use crate::types::CUipcEventHandle;
use fencepost_sim::lock;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The first bytes of every handle.
const MAGIC: [u8; 16] = *b"fencepost-sim-ev";

/// The contents of a [`CUipcEventHandle`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) process: u32,
    number: u64,
}

impl Name {
    pub(crate) fn handle(self) -> CUipcEventHandle {
        let mut reserved = [0; 64];
        reserved[..16].copy_from_slice(&MAGIC);
        reserved[16..20].copy_from_slice(&self.process.to_le_bytes());
        reserved[20..28].copy_from_slice(&self.number.to_le_bytes());
        CUipcEventHandle { reserved }
    }

    pub(crate) fn of(handle: &CUipcEventHandle) -> Option<Name> {
        let bytes = &handle.reserved;
        bytes.starts_with(&MAGIC).then_some(())?;
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

/// The file of an event.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    name: Name,
    file: Mutex<File>,
    /// Whether dropping this removes the file.
    owner: bool,
}

/// Offset of the number of records.
const RECORDED: u64 = 0;
/// Offset of the number of the latest complete record.
const COMPLETE: u64 = 8;

impl SharedEvent {
    pub(crate) fn new(number: u64) -> CudaResult<Arc<SharedEvent>> {
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
        let shared = SharedEvent {
            name,
            file: Mutex::new(file),
            owner: true,
        };
        shared.put(RECORDED, 0);
        shared.put(COMPLETE, 0);
        Ok(Arc::new(shared))
    }

    pub(crate) fn open(name: Name) -> CudaResult<Arc<SharedEvent>> {
        let file = OpenOptions::new().read(true).write(true).open(name.path());
        Ok(Arc::new(SharedEvent {
            name,
            file: Mutex::new(file.map_err(|_| CUDA_ERROR_INVALID_HANDLE)?),
            owner: false,
        }))
    }

    fn get(&self, place: u64) -> u64 {
        let mut file = lock(&self.file);
        let mut bytes = [0; 8];
        let read = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.read_exact(&mut bytes));
        read.map_or(0, |()| u64::from_le_bytes(bytes))
    }

    fn put(&self, place: u64, value: u64) {
        let mut file = lock(&self.file);
        // if the file can no longer be written, the record stays pending
        let _ = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.write_all(&value.to_le_bytes()));
    }

    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// The number of records so far.
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

impl Drop for SharedEvent {
    fn drop(&mut self) {
        if self.owner {
            // fails if the file was removed already
            let _ = std::fs::remove_file(self.name.path());
        }
    }
}
