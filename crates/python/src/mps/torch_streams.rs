//! Which of PyTorch's MPS streams a call means.
//!
//! | state | a call without a stream |
//! |---|---|
//! | PyTorch is not loaded, or has no MPS | uses the current stream of `fencepost.mps` |
//! | it has MPS | uses PyTorch's stream that is current on the calling thread |
//! | it has MPS, and a function is missing or returns null | raises an error that names it |
//!
//! A call never measures another queue silently.
//!
//! PyTorch 2.15 has the default stream, number 0, and a pool of 32. They live as long as the
//! process, so each is looked up once. Older versions have the default stream alone, and lack
//! `getStreamByID`. Versions in between may have a current stream that no function reaches; a call
//! then raises an error, unless the default stream is current.

use std::sync::OnceLock;

use fencepost::{Backend, Device};
use pyo3::{exceptions::PyRuntimeError, intern, prelude::*, sync::PyOnceLock};

pub(crate) use super::torch_stream::TorchStream;
use super::{
    pool::{POOL, unknown_stream},
    torch_stream::Torch,
    torch_symbols::{Address, StreamSymbols, find},
};
use crate::torch::loaded;

/// The streams by number, each made when it is first used.
struct Streams {
    torch: Torch,
    made: [OnceLock<TorchStream>; POOL + 1],
}

/// PyTorch's current stream, if a call without a stream has to use it.
pub(crate) fn in_use(py: Python<'_>) -> PyResult<Option<&'static TorchStream>> {
    match streams(py)? {
        Some(streams) => streams.current(py).map(Some),
        None => Ok(None),
    }
}

/// As [`in_use`], if PyTorch's device is `device`.
pub(crate) fn in_use_on(py: Python<'_>, device: &Device) -> PyResult<Option<&'static TorchStream>> {
    if device.backend() != Backend::Metal {
        return Ok(None);
    }
    let Some(stream) = in_use(py)? else {
        return Ok(None);
    };
    let its = py.detach(|| stream.device())?;
    Ok((its == *device).then_some(stream))
}

/// PyTorch's stream of a number; `None` where PyTorch has no streams to choose from.
pub(crate) fn numbered(py: Python<'_>, number: usize) -> PyResult<Option<&'static TorchStream>> {
    match streams(py)? {
        Some(streams) if streams.torch.symbols.streams.is_ok() => {
            streams.reach(py, number).map(Some)
        }
        _ => Ok(None),
    }
}

/// The stream that an object of PyTorch's own class stands for; `None` for other objects.
pub(crate) fn given(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<&'static TorchStream>> {
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(None);
    };
    let class = torch.getattr("mps").and_then(|mps| mps.getattr("Stream"));
    if !class.is_ok_and(|class| object.is_instance(&class).unwrap_or(false)) {
        return Ok(None);
    }
    let Some(streams) = streams(py)? else {
        return Ok(None);
    };
    let number = object.getattr(intern!(py, "stream_id"))?.extract()?;
    streams.reach(py, number).map(Some)
}

/// As [`given`], for a call on `device`.
pub(crate) fn given_on(
    py: Python<'_>,
    device: &Device,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<&'static TorchStream>> {
    match device.backend() {
        Backend::Metal => given(py, object),
        _ => Ok(None),
    }
}

/// All of PyTorch's streams; none where PyTorch does not use MPS. Makes PyTorch's pool, if nobody
/// has.
pub(crate) fn all(py: Python<'_>) -> PyResult<Vec<&'static TorchStream>> {
    match streams(py)? {
        None => Ok(Vec::new()),
        Some(streams) if streams.torch.symbols.streams.is_err() => Ok(vec![streams.current(py)?]),
        Some(streams) => (0..=POOL).map(|number| streams.reach(py, number)).collect(),
    }
}

/// The streams, if PyTorch uses MPS.
fn streams(py: Python<'_>) -> PyResult<Option<&'static Streams>> {
    static STREAMS: PyOnceLock<Streams> = PyOnceLock::new();
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(None);
    };
    if !uses_mps(&torch) {
        return Ok(None);
    }
    if let Some(streams) = STREAMS.get(py) {
        return Ok(Some(streams));
    }
    let symbols = find(&torch)?;
    Ok(Some(STREAMS.get_or_init(py, || Streams {
        torch: Torch::new(symbols),
        made: [const { OnceLock::new() }; POOL + 1],
    })))
}

/// Whether PyTorch has MPS. It makes its stream on first use, and does not tell whether it has.
fn uses_mps(torch: &Bound<'_, PyAny>) -> bool {
    let ask = || -> PyResult<bool> {
        let mps = torch.getattr("backends")?.getattr("mps")?;
        mps.call_method0("is_available")?.is_truthy()
    };
    ask().unwrap_or(false)
}

/// The number of PyTorch's current stream, as PyTorch's Python side tells it: 0 in versions that
/// have one stream.
fn current_number(py: Python<'_>) -> PyResult<usize> {
    let Some(torch) = loaded(py, "torch")? else {
        return Ok(0);
    };
    let mps = torch.getattr("mps");
    match mps.and_then(|mps| mps.getattr("current_stream")) {
        Ok(current) => current.call0()?.getattr("stream_id")?.extract(),
        Err(_) => Ok(0),
    }
}

impl Streams {
    /// The stream of a number; an error where no stream has it, or the stream cannot be reached.
    fn reach(&'static self, py: Python<'_>, number: usize) -> PyResult<&'static TorchStream> {
        match (self.torch.stream_symbols(), number) {
            (Ok(functions), ..=POOL) => Ok(py.detach(|| self.numbered(functions, number))),
            (Ok(_), _) => Err(unknown_stream(number)),
            (Err(_), 0) => {
                let only = || TorchStream::new(&self.torch, 0, Address::NULL);
                Ok(self.made[0].get_or_init(only))
            }
            (Err(missing), _) => Err(missing),
        }
    }

    /// The stream of a number from 0 to [`POOL`].
    fn numbered(&'static self, functions: StreamSymbols, number: usize) -> &'static TorchStream {
        self.made[number].get_or_init(|| {
            // SAFETY: any thread may ask for a stream, and a stream has this number.
            let address = unsafe { (functions.by_id)(number as i64) };
            TorchStream::new(&self.torch, number, address)
        })
    }

    /// The calling thread's current stream.
    fn current(&'static self, py: Python<'_>) -> PyResult<&'static TorchStream> {
        let Ok(functions) = self.torch.symbols.streams else {
            return self.reach(py, current_number(py)?);
        };
        // SAFETY: any thread may ask for its current stream.
        let address = unsafe { (functions.current)() };
        let mut known = self.made.iter().filter_map(OnceLock::get);
        if let Some(stream) = known.find(|stream| stream.is_at(address)) {
            return Ok(stream);
        }
        // The default stream first: PyTorch makes its pool when a stream of it is asked for.
        let found = py.detach(|| {
            let mut all = (0..=POOL).map(|number| self.numbered(functions, number));
            all.find(|stream| stream.is_at(address))
        });
        found.ok_or_else(|| {
            PyRuntimeError::new_err(
                "PyTorch's current MPS stream has no number: make a torch.mps.Stream current",
            )
        })
    }
}
