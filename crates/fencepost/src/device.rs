//! An accelerator, opened through one backend.

use std::sync::Arc;
use std::{
    fmt,
    hash::{Hash, Hasher},
};

use crate::{
    clock::Clock,
    contract::{Backend, DeviceImpl, DeviceRef},
    core::DeviceCore,
    error::{Error, Result},
    host,
    registry::{Entry, REGISTRY},
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
    imp: DeviceRef,
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
    pub(crate) fn new(imp: DeviceRef) -> Device {
        Device { imp }
    }

    pub(crate) fn core(&self) -> &Arc<DeviceCore> {
        self.imp().core()
    }

    pub(crate) fn imp(&self) -> &dyn DeviceImpl {
        &*self.imp
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
            Ok(_) => (entry.open)(index).map(Device::new),
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
                        last = (entry.open)(0).map(Device::new);
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
        Device::new(host::new(workers))
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
        self.imp == other.imp
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.core().id.hash(state);
    }
}

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
