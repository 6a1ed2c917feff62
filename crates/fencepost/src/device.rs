//! An accelerator, opened through one backend.

use std::{fmt, sync::Arc, time::Duration, time::Instant};

use crate::{
    clock::Clock,
    contract::{Backend, DeviceImpl},
    error::{Error, Result},
    host,
    marker::Marker,
    registry::{Entry, REGISTRY},
    stream::Stream,
    timeline::DeviceCore,
};

/// An accelerator opened through one backend: `host`, `metal`, `cuda:0`, `vulkan:0`. Cheap to
/// clone.
///
/// ```
/// use fencepost::Device;
///
/// let device = Device::open_best()?;
/// println!("{device}, clock: {}", device.clock());
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    imp: Imp,
}

#[derive(Clone)]
enum Imp {
    Counted(Arc<dyn DeviceImpl>),
    /// One that stays until the process ends: events of it are made and dropped without counting.
    Static(&'static dyn DeviceImpl),
}

/// What was found of one backend; made by [`Device::list`].
///
/// ```
/// for found in fencepost::Device::list() {
///     match &found.missing {
///         None => println!("{}: {:?}", found.backend, found.devices),
///         Some(why) => println!("{}: {why}", found.backend),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// The backend.
    pub backend: Backend,
    /// The names of its devices, ready for [`Device::open`].
    pub devices: Vec<String>,
    /// Why there is no device, and what would bring one.
    pub missing: Option<String>,
}

impl Device {
    pub(crate) fn new(imp: Arc<dyn DeviceImpl>) -> Device {
        Device {
            imp: Imp::Counted(imp),
        }
    }

    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) fn new_static(imp: &'static dyn DeviceImpl) -> Device {
        Device {
            imp: Imp::Static(imp),
        }
    }

    pub(crate) fn core(&self) -> &Arc<DeviceCore> {
        self.imp().core()
    }

    pub(crate) fn imp(&self) -> &dyn DeviceImpl {
        match &self.imp {
            Imp::Counted(imp) => &**imp,
            Imp::Static(imp) => *imp,
        }
    }

    /// Opens the device of this name: a backend, and an index behind a colon where it has several.
    /// `cuda` means `cuda:0`. The same name gives the same device each time, but for
    /// a Vulkan device that was lost: then a new one.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`] for a name that no backend has; [`Error::Unavailable`] when the
    /// backend is not usable here.
    ///
    /// ```
    /// use fencepost::{Device, Error};
    /// assert_eq!(Device::open("host")?.name(), "host");
    /// assert!(matches!(Device::open("toaster"), Err(Error::UnknownDevice { .. })));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn open(name: &str) -> Result<Device> {
        let unknown = || Error::UnknownDevice {
            name: name.into(),
            known: known_names(),
        };
        let (backend, index) = match name.split_once(':') {
            None => (name, 0),
            Some((backend, index)) => {
                // Only what we print ourselves: no sign, no blank, no leading zero.
                let number: usize = index.parse().map_err(|_| unknown())?;
                if number.to_string() != index {
                    return Err(unknown());
                }
                (backend, number)
            }
        };
        let entry = REGISTRY
            .iter()
            .find(|entry| entry.backend.name() == backend)
            .ok_or_else(unknown)?;
        match (entry.count)() {
            Err(why) => Err(Error::Unavailable {
                device: name.into(),
                why: format!("{why}; {}", known_names()),
            }),
            Ok(count) if index >= count => Err(unknown()),
            Ok(_) => (entry.open)(index),
        }
    }

    /// Opens the device that the environment variable `FENCEPOST_DEVICE` names; where it is unset
    /// or empty, the first of Metal, CUDA and Vulkan that works here, and else the host, which
    /// always does. A Vulkan driver that computes on the processor is taken only when it is named.
    ///
    /// # Errors
    /// A bad `FENCEPOST_DEVICE` is an error, as in [`open`](Device::open): it never falls back.
    ///
    /// ```
    /// let device = fencepost::Device::open_best()?;
    /// println!("{device}");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn open_best() -> Result<Device> {
        match std::env::var_os("FENCEPOST_DEVICE") {
            Some(name) if !name.is_empty() => Device::open(&name.to_string_lossy()),
            _ => {
                let mut last = Device::open("host");
                for entry in &REGISTRY {
                    if let Ok(1..) = (entry.count)()
                        && (entry.preferred)()
                    {
                        last = (entry.open)(0);
                        if last.is_ok() {
                            break;
                        }
                    }
                }
                last
            }
        }
    }

    /// Every backend with its devices, or why it has none.
    ///
    /// ```
    /// let host = fencepost::Device::list().into_iter().find(|f| f.backend.name() == "host");
    /// assert_eq!(host.unwrap().devices, ["host"]);
    /// ```
    pub fn list() -> Vec<Found> {
        let found = |entry: &Entry| {
            let (count, missing) = match (entry.count)() {
                Ok(count) => (count, None),
                Err(why) => (0, Some(why)),
            };
            Found {
                backend: entry.backend,
                devices: (0..count).map(|i| device_name(entry.backend, i)).collect(),
                missing,
            }
        };
        REGISTRY.iter().map(found).collect()
    }

    /// A host device with a worker pool of its own, apart from the one that [`open`](Device::open)
    /// shares: for work that must not meet that of others. `workers` is raised to at least one.
    ///
    /// Threads start with the first work and end some time after the device and its last stream.
    ///
    /// ```
    /// use fencepost::Device;
    /// let device = Device::new_host(2);
    /// assert_ne!(device, Device::open("host")?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_host(workers: usize) -> Device {
        host::new(workers)
    }

    /// The name that [`open`](Device::open) takes.
    ///
    /// ```
    /// assert_eq!(fencepost::Device::open("host")?.name(), "host");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.core().name
    }

    /// The API it is reached through.
    ///
    /// ```
    /// # use fencepost::{Backend, Device};
    /// assert_eq!(Device::open("host")?.backend(), Backend::Host);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn backend(&self) -> Backend {
        self.imp().backend()
    }

    /// The clock that stamps its markers.
    ///
    /// ```
    /// println!("{:?}", fencepost::Device::open("host")?.clock().resolution());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.core().clock
    }

    /// The stream that exists from the start; the same one each time.
    ///
    /// # Panics
    /// Never: a backend that cannot give its default stream fails in [`open`](Device::open).
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// assert_eq!(device.default_stream(), device.default_stream());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn default_stream(&self) -> Stream {
        Stream::new(self.imp().default_stream(), self.clone())
    }

    /// A new stream, in order within itself and unordered against all others.
    ///
    /// # Errors
    /// What the driver says when it makes no more.
    ///
    /// # References
    /// - [`cuStreamCreate`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    ///   with `CU_STREAM_NON_BLOCKING`,
    ///   [`makeCommandQueue`](https://developer.apple.com/documentation/metal/mtldevice/makecommandqueue())
    /// - host: memory, no thread
    ///
    /// ```
    /// let stream = fencepost::Device::open("host")?.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// stream.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_stream(&self) -> Result<Stream> {
        Ok(Stream::new(self.imp().new_stream()?, self.clone()))
    }

    /// Blocks until everything submitted so far to any of its streams is done.
    ///
    /// Records a marker on each live stream. Streams of other threads may go on meanwhile.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] from host work of one of its own streams; else the first failure
    /// met. Either after all streams were waited for.
    ///
    /// # References
    /// - [`cuCtxSynchronize`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html),
    ///   [`vkDeviceWaitIdle`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkDeviceWaitIdle.html)
    ///
    /// ```
    /// let device = fencepost::Device::new_host(1);
    /// let stream = device.new_stream()?;
    /// stream.launch(|| println!("work"))?;
    /// device.synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize(&self) -> Result<()> {
        self.synchronize_until(None, Duration::MAX)
    }

    /// As [`synchronize`](Device::synchronize), for at most `limit` in all.
    ///
    /// # Errors
    /// [`Error::Timeout`] for the first stream that was not done in time, and those of
    /// [`synchronize`](Device::synchronize).
    ///
    /// ```
    /// use std::time::Duration;
    /// let device = fencepost::Device::new_host(1);
    /// device.synchronize_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn synchronize_timeout(&self, limit: Duration) -> Result<()> {
        self.synchronize_until(Instant::now().checked_add(limit), limit)
    }

    #[track_caller]
    fn synchronize_until(&self, deadline: Option<Instant>, limit: Duration) -> Result<()> {
        let mut first = Ok(());
        let mut markers = Vec::new();
        for marker in self.record_all() {
            match marker {
                Ok(marker) => markers.push(marker),
                Err(error) => first = first.and(Err(error)),
            }
        }
        for marker in markers {
            match marker.wait_until(deadline) {
                Ok(true) => {}
                Ok(false) => first = first.and(Err(marker.timeout(limit))),
                // The caller's own mistake, which must not depend on what else has failed.
                Err(error @ Error::WouldDeadlock { .. }) => first = Err(error),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// See [`crate::bindings::record_all`].
    #[track_caller]
    pub(crate) fn record_all(&self) -> Vec<Result<Marker>> {
        let streams = self.imp().streams().into_iter();
        let record = |stream| Stream::new(stream, self.clone()).record();
        streams.map(record).collect()
    }

    /// How many user callbacks of this device have panicked. Each panic was caught and printed by
    /// the panic hook; it harmed no stream and no other callback.
    ///
    /// ```
    /// # let device = fencepost::Device::new_host(1);
    /// assert_eq!(device.callback_panics(), 0);
    /// ```
    pub fn callback_panics(&self) -> u64 {
        self.core().callbacks.panics()
    }
}

fn device_name(backend: Backend, index: usize) -> String {
    match backend {
        Backend::Host | Backend::Metal if index == 0 => backend.name().into(),
        _ => format!("{backend}:{index}"),
    }
}

/// What would work, for an error's text.
fn known_names() -> String {
    let names: Vec<_> = Device::list()
        .into_iter()
        .flat_map(|found| found.devices)
        .collect();
    format!("devices that work here: {}", names.join(", "))
}

/// Two devices are equal when events of one may be recorded on streams of the other.
impl PartialEq for Device {
    #[inline]
    fn eq(&self, other: &Device) -> bool {
        match (&self.imp, &other.imp) {
            // Clones of one: nearly always so.
            (Imp::Static(one), Imp::Static(two)) if std::ptr::addr_eq(*one, *two) => true,
            (Imp::Counted(one), Imp::Counted(two)) if Arc::ptr_eq(one, two) => true,
            _ => self.core().id == other.core().id,
        }
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}
