//! A short guide: a page for each thing that people get wrong with device events.
//!
//! - [`timing`]: what a time between two events is, and what it is not.
//! - `seeing`, with the feature `trace`: what ran when, on several streams and devices.
//! - [`ordering`]: how streams wait for each other, and what a wait costs.
//! - [`failures`]: what happens when work fails, and how a wait ends that nobody answers.
//! - `opencl`, with the feature `opencl`: queues, contexts and failures of OpenCL.
//! - [`forks`]: what a forked child may do, and what happens when the process ends.

#[doc = include_str!("timing.md")]
pub mod timing {}

#[cfg(all(feature = "trace", not(loom)))]
#[doc = include_str!("seeing.md")]
pub mod seeing {}

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[cfg(feature = "opencl")]
#[doc = include_str!("opencl.md")]
pub mod opencl {}

#[doc = include_str!("forks.md")]
pub mod forks {}
