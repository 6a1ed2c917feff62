//! An OpenCL driver (ICD) in front of a real one, for tests only. It makes chosen calls fail and
//! chosen events end with an error; everything else is the real driver's.
//!
//! A program meets it through the loader that it has anyway: `OCL_ICD_VENDORS` names
//! `libfencepost_sim_opencl.so` ([`library_path`]). The library loads the driver behind it, and
//! puts functions of its own into that driver's table ([`cl_khr_icd`]), for the calls listed in
//! [`FUNCTIONS`]. So the work, the times and the order are those of the driver behind. Calls that
//! the driver makes to itself do not pass here.
//!
//! Tests plan faults through a [`Control`] loaded from the same path:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = fencepost_sim_opencl::library_path().ok_or("not built")?;
//! let control = fencepost_sim_opencl::Control::load(&path)?;
//! // The second marker from now on is refused with CL_OUT_OF_RESOURCES.
//! control.fail_call("clEnqueueMarkerWithWaitList", 2, -5);
//! # Ok(())
//! # }
//! ```
//!
//! A planned code of 0 (`CL_SUCCESS`) makes a call succeed without effect: a callback is never
//! called, a flush flushes nothing.
//!
//! # Environment variables
//!
//! * `FENCEPOST_SIM_OPENCL_BEHIND`: the library of the driver behind. By default the one that
//!   `/etc/OpenCL/vendors/pocl.icd` names.
//! * `FENCEPOST_SIM_OPENCL_FAULTS`: faults from the start, for programs that plan none themselves:
//!   `CALL:NTH:CODE`, separated by commas. `NTH+` means that call and all later ones. So
//!   `clGetDeviceIDs:1+:-1` is a platform without devices.
//! * `FENCEPOST_SIM_OPENCL_VERSION`: the version that devices say they have, such as `1.2`.
//!
//! [`cl_khr_icd`]: https://registry.khronos.org/OpenCL/specs/unified/html/OpenCL_Ext.html#cl_khr_icd

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(non_snake_case)]
#![allow(clippy::too_many_arguments)] // the API's functions have that many

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod quirks;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
pub use calls::FUNCTIONS;
#[cfg(target_os = "linux")]
pub use control::*;
#[cfg(target_os = "linux")]
pub use table::{clGetExtensionFunctionAddress, clGetPlatformInfo, clIcdGetPlatformIDsKHR};
