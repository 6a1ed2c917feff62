//! A library with the functions that PyTorch exports for custom Metal kernels, for tests of how they are
//! found. They are a stand-in: nothing of PyTorch, and no Metal.

use std::ffi::c_void;

/// The command buffer that is open; here there is none.
#[unsafe(export_name = "_ZN5torch3mps18get_command_bufferEv")]
pub extern "C" fn get_command_buffer() -> *mut c_void {
    std::ptr::null_mut()
}

/// The queue under which that buffer may be touched; here there is none.
#[unsafe(export_name = "_ZN5torch3mps18get_dispatch_queueEv")]
pub extern "C" fn get_dispatch_queue() -> *mut c_void {
    std::ptr::null_mut()
}

/// Commits that buffer.
#[unsafe(export_name = "_ZN5torch3mps6commitEv")]
pub extern "C" fn commit() {}
