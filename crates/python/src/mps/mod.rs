//! `fencepost.mps`, and what PyTorch's own `torch.mps.Event` and `torch.mps.Stream` are written
//! against.
//!
//! - [`pool`] holds the streams, [`calls`] says what each call means.
//! - [`event`], [`stream`], [`functions`] and [`stream_base`] are the ways to make these calls from
//!   Python.
//! - [`torch_streams`] knows which of PyTorch's own MPS streams a call means. `torch_stream` marks
//!   one, through the functions that `torch_symbols` finds, on the dispatch queue that guards it
//!   (`dispatch`).

mod calls;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod dispatch;
mod event;
pub(crate) mod functions;
mod pool;
pub(crate) mod stream;
pub(crate) mod stream_base;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod torch_stream;
#[cfg(any(target_vendor = "apple", metal_sim))]
pub(crate) mod torch_streams;
#[cfg(not(any(target_vendor = "apple", metal_sim)))]
#[path = "no_torch_streams.rs"]
pub(crate) mod torch_streams;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod torch_symbols;
