//! The Rust side of the objects of this package's classes: what each one holds. Their methods are
//! in [`device`](crate::device), [`stream`](crate::stream), [`event`](crate::event),
//! [`correlation`](crate::correlation), [`cuda`](crate::cuda) and [`mps`](crate::mps).
//!
//! The classes are apart from their methods because methods take objects of the other classes:
//! [`arguments`](crate::arguments) lies between the two.

use std::{cell::UnsafeCell, ops::Deref, sync::OnceLock, time::Duration};

use fencepost::{Correlation, Device, HostTime, Marker, Stream};
use pyo3::prelude::*;

use crate::{core::Core, error::to_py, raw::Flags};

/// An accelerator: ``host``, ``cuda:0``, ``vulkan:0``, ``opencl:0``, ``metal``.
///
/// ``Device()`` is the best one there is, or the one that the environment variable
/// ``FENCEPOST_DEVICE`` names. A device is opened when it is first used. ``str(device)`` is its
/// name. Devices with the same name are equal.
///
/// Raises ValueError for a name that no device here has.
#[pyclass(frozen, name = "Device", module = "fencepost")]
pub(crate) struct PyDevice {
    pub(crate) name: String,
    opened: OnceLock<Device>,
}

impl PyDevice {
    pub(crate) fn of(device: Device) -> PyDevice {
        PyDevice {
            name: device.name().into(),
            opened: OnceLock::from(device),
        }
    }

    pub(crate) fn unopened(name: String) -> PyDevice {
        PyDevice {
            name,
            opened: OnceLock::new(),
        }
    }

    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<&Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        // Making a context on a GPU takes long.
        let device = py.detach(|| Device::open(&self.name)).map_err(to_py)?;
        Ok(self.opened.get_or_init(|| device))
    }
}

/// An in-order queue of a device. ``Stream(device)`` makes a new one; ``Stream()`` makes one on the
/// best device. ``Stream(device, name="load")`` has a name, which errors and its ``repr`` show.
///
/// Work, records and waits take effect in the order in which they are submitted. Streams of GPUs
/// run no Python: submit kernels with the library you use, on the handle ``cuda_stream``. A library
/// that takes an object with ``__cuda_stream__`` takes objects of this class.
#[pyclass(frozen, weakref, dict, name = "Stream", module = "fencepost")]
pub(crate) struct PyStream {
    pub(crate) stream: Stream,
    /// The object that owns the stream, if another library does: kept alive with this one.
    _owner: Option<Py<PyAny>>,
}

impl PyStream {
    pub(crate) fn of(stream: Stream) -> PyStream {
        PyStream {
            stream,
            _owner: None,
        }
    }

    pub(crate) fn owned(stream: Stream, owner: Py<PyAny>) -> PyStream {
        PyStream {
            stream,
            _owner: Some(owner),
        }
    }
}

/// A device event: holds the point of a stream that it was last recorded at.
///
/// ``device`` is a name, a ``fencepost.Device`` or a ``torch.device``; by default the best device
/// there is. ``enable_timing`` lets times be taken between two such events. ``blocking`` makes
/// waiting threads sleep at once; by default they poll a GPU for some milliseconds first.
/// ``interprocess`` (CUDA on Linux) lets other processes share the event. ``name`` is shown by
/// errors and its ``repr``.
///
/// An event that was never recorded counts as complete. Recording again never disturbs earlier
/// waits. Any number of threads may use one event. Dropping it never blocks, pending or not.
#[pyclass(frozen, subclass, weakref, dict, name = "Event", module = "fencepost")]
pub(crate) struct PyEvent {
    pub(crate) device: Device,
    pub(crate) core: Core,
}

impl PyEvent {
    pub(crate) fn on(device: Device, flags: Flags) -> PyEvent {
        PyEvent {
            core: Core::on(&device, flags),
            device,
        }
    }
}

/// One recorded point of a stream: ``Stream.record()`` makes it, and ``Event.marker()`` takes it
/// out of an event.
///
/// It never changes. It is complete once all work submitted before it is. Markers are equal if they
/// are the same recording.
#[pyclass(frozen, weakref, name = "Marker", module = "fencepost")]
pub(crate) struct PyMarker(pub(crate) Marker);

/// A device's clock beside the host's, read at one moment: ``Device.correlate()`` makes it, and
/// ``Marker.host_time()`` uses it.
///
/// It is a value, and tells less of later times, since the two clocks drift apart: by 100 µs a
/// second at most, as long as nobody has measured it.
#[pyclass(frozen, weakref, name = "Correlation", module = "fencepost")]
pub(crate) struct PyCorrelation(pub(crate) Correlation);

/// When something happened on a device, by the host's clock: what ``Marker.host_time()`` returns.
///
/// Times of all devices compare: one is less than another if it is earlier whatever the
/// uncertainties hide. Where they overlap, neither is less.
#[pyclass(frozen, weakref, name = "HostTime", module = "fencepost")]
pub(crate) struct PyHostTime {
    pub(crate) time: HostTime,
    pub(crate) monotonic_ns: i64,
    /// That of the time, and how well its place on the clock of Python is known.
    pub(crate) uncertainty: Duration,
}

/// A CUDA event: a drop-in for ``torch.cuda.Event``, on the streams of any library.
///
/// ``enable_timing`` lets times be taken between two such events. ``blocking`` makes waiting
/// threads sleep at once; by default they poll the GPU for some milliseconds first.
/// ``interprocess`` (Linux, without timing) lets other processes share the event. ``external``
/// makes its records and waits nodes of a captured graph.
///
/// Streams may come from PyTorch, CuPy, cuda.core, Numba or fencepost, be any object with
/// ``__cuda_stream__``, or be integer handles. The default is the current stream: PyTorch's where
/// PyTorch is loaded and uses CUDA, otherwise the default stream. The first record binds the event
/// to the stream's device.
///
/// As in PyTorch, ``elapsed_time`` never waits: it raises RuntimeError while either event is
/// incomplete.
// Users see a class that is derived from this one: see `cuda_class`.
#[pyclass(
    frozen,
    subclass,
    weakref,
    dict,
    name = "Event",
    module = "fencepost.cuda"
)]
pub(crate) struct CudaEvent {
    pub(crate) core: Reusable,
}

/// A [`Core`] that a dead object keeps for the next one: see [`cuda_class`](crate::cuda_class).
pub(crate) struct Reusable(UnsafeCell<Core>);

// SAFETY: whoever shares it gets `&Core`, which is `Sync`, and changes it by `as_ptr` only where
// nobody else uses it.
unsafe impl Sync for Reusable where Core: Sync {}

impl Reusable {
    pub(crate) fn new(core: Core) -> Reusable {
        Reusable(UnsafeCell::new(core))
    }

    /// For who proves that nobody else uses it.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut Core {
        self.0.get()
    }
}

impl Deref for Reusable {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: it is changed only where nobody else uses it.
        unsafe { &*self.0.get() }
    }
}

/// A drop-in for ``torch.mps.Event``: on a Mac on Metal, elsewhere on the best device there is.
///
/// The default stream of a call is the current one (``fencepost.mps.current_stream``). On a Mac
/// where PyTorch is loaded and uses MPS it is PyTorch's own; if that cannot be reached, the call
/// raises RuntimeError.
///
/// It differs from ``fencepost.Event`` where PyTorch does: ``query()`` is False before the first
/// record, and ``elapsed_time`` raises RuntimeError for events in reverse order, without timing, or
/// never recorded.
#[pyclass(
    frozen,
    subclass,
    weakref,
    dict,
    name = "Event",
    module = "fencepost.mps"
)]
pub(crate) struct MpsEvent {
    pub(crate) core: Core,
}

impl MpsEvent {
    pub(crate) fn with_timing(timing: bool) -> MpsEvent {
        MpsEvent {
            core: Core::new(Flags::with_timing(timing)),
        }
    }
}
