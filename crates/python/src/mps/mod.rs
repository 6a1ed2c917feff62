//! `fencepost.mps`, and the functions that PyTorch's own `torch.mps.Event` is written against.
//!
//! - [`pool`] holds the streams, [`calls`] says what each call means.
//! - [`event`], [`stream`] and [`functions`] are the three ways to make these calls from Python.
//! - [`torch_stream`] marks PyTorch's own MPS stream, through the functions that `torch_symbols`
//!   finds, on the dispatch queue that guards it (`dispatch`).

mod calls;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod dispatch;
mod event;
pub(crate) mod functions;
mod pool;
pub(crate) mod stream;
#[cfg(any(target_vendor = "apple", metal_sim))]
pub(crate) mod torch_stream;
#[cfg(not(any(target_vendor = "apple", metal_sim)))]
#[path = "no_torch_stream.rs"]
pub(crate) mod torch_stream;
#[cfg(any(target_vendor = "apple", metal_sim))]
mod torch_symbols;
