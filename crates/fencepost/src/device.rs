//! An accelerator, opened through one backend.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::{
    clock::Clock,
    contract::{Backend, DeviceImpl, DeviceRef, Look, Missing},
    core::DeviceCore,
    correlation::Correlation,
    error::{Error, Result},
    host::{self, HostOptions},
    place::Place,
    registry::{Entry, REGISTRY},
    time_keeper::TimeKeeper,
};

/// An accelerator, opened through one backend: `host`, `metal`, `cuda:0`, `vulkan:0`, `opencl:0`.
/// A device of wgpu's comes with the stream that [`wgpu30::stream`][1] makes.
///
/// Cheap to clone. All clones are the same device, and any thread may use them. Two devices are
/// equal if events of one may be recorded on streams of the other.
///
/// ```
/// use fencepost::Device;
///
/// let device = Device::open_best()?;
/// println!("{device}, clock: {}", device.clock());
/// # Ok::<(), fencepost::Error>(())
/// ```
///
/// [1]: https://docs.rs/fencepost/latest/fencepost/wgpu30/fn.stream.html
#[derive(Clone)]
pub struct Device {
    imp: DeviceRef,
}

/// The devices of one backend, as [`Device::list`] finds them.
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
    /// The names of its devices, as [`Device::open`] takes them.
    pub devices: Vec<String>,
    /// Without any device: why, and what would bring one.
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

    /// Opens the device of this name: that of a backend, and an index behind a colon where there
    /// are several devices. `cuda` is `cuda:0`.
    ///
    /// The same name gives the same device each time, except for a Vulkan device that was lost: it
    /// is opened anew. The first call for a backend loads its driver, which may take a while.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`] for a name that no device has; [`Error::Unavailable`] for a backend
    /// that cannot be used here; [`Error::Backend`] for a device that the driver does not open;
    /// [`Error::Forked`].
    ///
    /// # References
    /// - [`cuDevicePrimaryCtxRetain`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html)
    /// - [`vkCreateDevice`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkCreateDevice.html)
    /// - [`clCreateContext`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clCreateContext)
    /// - [`MTLCreateSystemDefaultDevice`](https://developer.apple.com/documentation/metal/mtlcreatesystemdefaultdevice())
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
            known: FORMS.into(),
        };
        let (backend, index) = match name.split_once(':') {
            None => (name, 0),
            Some((backend, index)) => {
                // As `device_name` writes it: no sign, no blank, no leading zero.
                let number: usize = index.parse().map_err(|_| unknown())?;
                if number.to_string() != index {
                    return Err(unknown());
                }
                (backend, number)
            }
        };
        if backend == Backend::Wgpu30.name() {
            return Err(no_wgpu(name));
        }
        let entry = REGISTRY
            .iter()
            .find(|entry| entry.backend.name() == backend)
            .ok_or_else(unknown)?;
        match (entry.count)() {
            Err(missing) => Err(missing.error(name)),
            Ok(count) if index >= count => Err(Error::UnknownDevice {
                name: name.into(),
                known: format!(
                    "the last one of {backend} is \"{}\"",
                    device_name(entry.backend, count.saturating_sub(1))
                ),
            }),
            Ok(_) => (entry.open)(index).map(Device::new),
        }
    }

    /// Opens the device that the environment variable `FENCEPOST_DEVICE` names. If that is unset or
    /// empty, opens the first device of Metal, CUDA, Vulkan or OpenCL, in this order; where there
    /// is none, the host.
    ///
    /// A driver of Vulkan or OpenCL that computes on the processor is opened only by name.
    ///
    /// # Errors
    /// Those of [`open`](Device::open), for the name in `FENCEPOST_DEVICE` or for the device found.
    /// Neither a wrong name nor a driver that fails makes it fall back to another device.
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
                for entry in &REGISTRY {
                    match (entry.count)() {
                        Ok(1..) if (entry.preferred)() => {
                            return (entry.open)(0).map(Device::new);
                        }
                        Ok(_) | Err(Missing::Absent(_)) => {}
                        Err(Missing::Failed(error)) => return Err(error),
                    }
                }
                Device::open("host")
            }
        }
    }

    /// Every backend with its devices, or why it has none. Opens none of them.
    ///
    /// It initialises the drivers of Metal, Vulkan and OpenCL where they are there, so that
    /// processes forked later cannot use them. That of CUDA it initialises only where NVIDIA's
    /// management library (NVML) cannot tell: where that is missing, where a GPU is split (MIG), or
    /// where `CUDA_VISIBLE_DEVICES` holds more than indices and UUIDs of GPUs. wgpu is not listed:
    /// its devices are the caller's.
    ///
    /// # References
    /// - [`nvmlDeviceGetCount_v2`](https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html),
    ///   or [`cuDeviceGetCount`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    /// - [`vkEnumeratePhysicalDevices`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkEnumeratePhysicalDevices.html)
    /// - [`clGetDeviceIDs`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetDeviceIDs)
    /// - [`MTLCopyAllDevices`](https://developer.apple.com/documentation/metal/mtlcopyalldevices())
    ///
    /// ```
    /// let host = fencepost::Device::list().into_iter().find(|f| f.backend.name() == "host");
    /// assert_eq!(host.unwrap().devices, ["host"]);
    /// ```
    pub fn list() -> Vec<Found> {
        let found = |entry: &Entry| {
            let (count, missing) = match (entry.ask)() {
                Ok(count) => (count, None),
                Err(missing) => (0, Some(missing.to_string())),
            };
            Found {
                backend: entry.backend,
                devices: (0..count).map(|i| device_name(entry.backend, i)).collect(),
                missing,
            }
        };
        REGISTRY.iter().map(found).collect()
    }

    /// Makes a host device with a pool of `workers` threads of its own, at least one. The device
    /// that [`open`](Device::open) gives for `host` shares its pool with the whole process.
    ///
    /// Threads start with the first work. They end some time after the device and its streams have
    /// been dropped. Its name, `host#2`, `host#3` and so on, is for texts only: no other device of
    /// the process has it, and [`open`](Device::open) does not know it.
    ///
    /// # References
    /// - [`std::thread::Builder::spawn`]
    ///
    /// ```
    /// use fencepost::Device;
    /// let device = Device::new_host(2);
    /// assert_ne!(device, Device::open("host")?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_host(workers: usize) -> Device {
        Device::new_host_with(HostOptions::new(workers))
    }

    /// As [`new_host`](Device::new_host), with a limit on the number of threads too.
    ///
    /// # References
    /// - [`std::thread::Builder::spawn`]
    ///
    /// ```
    /// use fencepost::{Device, HostOptions};
    /// let device = Device::new_host_with(HostOptions::new(2).max_threads(64));
    /// # device.default_stream().synchronize()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new_host_with(options: HostOptions) -> Device {
        Device::new(host::new(options))
    }

    /// The name of the device, as [`open`](Device::open) takes it. Devices of
    /// [`new_host`](Device::new_host) and of the caller's own handles have names that it does not
    /// take.
    ///
    /// ```
    /// assert_eq!(fencepost::Device::open("host")?.name(), "host");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.core().name
    }

    /// Gives the device a label, for the texts of errors and [`Debug`](fmt::Debug), behind its
    /// name: `cuda:0 "training"`. Everybody who opened this device has it. It opens nothing, and
    /// two devices are equal or not whatever their labels are. An empty label takes it away. Never
    /// blocks.
    ///
    /// ```
    /// let device = fencepost::Device::new_host(2);
    /// device.set_label("decoders");
    /// assert_eq!(device.label().as_deref(), Some("decoders"));
    /// assert!(device.default_stream().to_string().ends_with("\"decoders\""));
    /// ```
    pub fn set_label(&self, label: &str) {
        self.core().label.set(label);
    }

    /// The label that [`set_label`](Device::set_label) gave it, if it has one. Never blocks.
    ///
    /// ```
    /// assert_eq!(fencepost::Device::new_host(1).label(), None);
    /// ```
    pub fn label(&self) -> Option<String> {
        self.core().label.to_owned()
    }

    /// The backend that the device was opened through.
    ///
    /// ```
    /// # use fencepost::{Backend, Device};
    /// assert_eq!(Device::open("host")?.backend(), Backend::Host);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn backend(&self) -> Backend {
        self.imp().backend()
    }

    /// The clock of the device: the times of its markers are read from it.
    ///
    /// ```
    /// println!("{:?}", fencepost::Device::open("host")?.clock().resolution());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.core().clock
    }

    /// Reads the device's clock beside the host's monotonic clock, for
    /// [`Marker::host_time`](crate::Marker::host_time): what happened on several devices comes onto
    /// one time axis, which is that of [`Instant`](std::time::Instant).
    ///
    /// | on | it reads | known to |
    /// |---|---|---|
    /// | host | the clock itself | exact |
    /// | Vulkan | the device's clock, by calibrated timestamps | half a call: on an H200 2.7 µs |
    /// | CUDA, and Vulkan without calibrated timestamps (SwiftShader) | a stamp on a stream of its own | half a round trip: on an H200 4 µs at best |
    /// | OpenCL | the device's timer (`clGetDeviceAndHostTimer`), where it counts on the clock of profiling | half a call |
    /// | OpenCL without such a timer (PoCL), and wgpu | a stamp on a stream of its own | half a round trip |
    /// | Metal | the host's time base, on which `GPUEndTime` is | half a call |
    ///
    /// It reads eight times, between two reads of the host's clock each, and the closest one
    /// counts. It blocks for that long: some 50 to 100 µs on an H200. On CUDA it waits for its own
    /// stream alone. On Vulkan without calibrated timestamps, and on wgpu, it waits for what was
    /// submitted to its hardware queue before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device without timestamps; [`Error::Timeout`] where no stamp
    /// is made within ten seconds, since its hardware queue is held; [`Error::DeviceLost`];
    /// [`Error::Backend`] where the driver refuses a call; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventRecord`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    /// - [`vkGetCalibratedTimestampsKHR`](https://registry.khronos.org/vulkan/specs/latest/man/html/vkGetCalibratedTimestampsKHR.html)
    /// - [`clGetDeviceAndHostTimer`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_API.html#clGetDeviceAndHostTimer)
    /// - [`MTLDevice.sampleTimestamps`](https://developer.apple.com/documentation/metal/mtldevice/sampletimestamps())
    /// - wgpu: [`CommandEncoder::write_timestamp`](https://docs.rs/wgpu/30.0.2/wgpu/struct.CommandEncoder.html#method.write_timestamp)
    /// - host: [`std::time::Instant`]
    ///
    /// ```
    /// let correlation = fencepost::Device::open("host")?.correlate()?;
    /// println!("{correlation}");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[track_caller]
    pub fn correlate(&self) -> Result<Correlation> {
        self.correlate_at(Place::caller(), &mut || true)
    }

    pub(crate) fn correlate_at(&self, at: Place, look: Look<'_>) -> Result<Correlation> {
        self.core().check_fork()?;
        let sample = self.imp().correlate(at, look).map_err(Error::seen)?;
        Ok(Correlation::new(self.core().clone(), sample))
    }

    /// Keeps long times of this device exact, until what it returns is dropped.
    ///
    /// CUDA gives the time between two events as an `f32` of milliseconds, which is off by up to
    /// 0.5 µs at 16 s and by 0.12 ms at an hour. While a [`TimeKeeper`] lives, a thread records an
    /// event each 200 ms on a stream of its own, and adds up the times between them, which are
    /// exact. A time between two markers that were recorded meanwhile is then known within 1 µs, up
    /// to 18 hours; [`Elapsed::uncertainty`](crate::Elapsed::uncertainty) tells how well. That of a
    /// marker recorded before is as uncertain as the driver makes it, or better. All `TimeKeeper`s
    /// of a device share one thread, and 4,609 events at most (some 600 B each on an H200). The
    /// events stay when the last one is dropped, so that times may be asked for later.
    ///
    /// Dropping the last one does not wait for the thread, which may be in a call of the driver for
    /// a moment longer. So drop it before the context is reset (`cuDevicePrimaryCtxReset`), with
    /// some time in between: the driver does not check a handle whose context goes away meanwhile.
    /// Where the thread finds that the device has failed, it ends, and the device is lost.
    ///
    /// On devices of all other backends times are exact whatever their length: there it does
    /// nothing, and costs nothing. Never waits for the device; any thread may call it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], and [`Error::Backend`] where the driver makes no stream or event or
    /// the system no thread; [`Error::Forked`].
    ///
    /// # References
    /// - [`cuEventElapsedTime`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    ///
    /// ```
    /// let device = fencepost::Device::open("host")?;
    /// let _keeper = device.keep_time()?;
    /// // … an hour of work between two timed events …
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn keep_time(&self) -> Result<TimeKeeper> {
        self.core().check_fork()?;
        let guard = self.imp().keep_time()?;
        Ok(TimeKeeper::new(self.clone(), guard))
    }

    /// The UUID of the GPU, by which its devices of several backends are known as one GPU: `cuda:0`
    /// and `vulkan:0` of one GPU have the same. It stays the same from one process to the next.
    /// `None` for the host; for Metal, which has registry IDs instead, good until the next restart;
    /// for wgpu, which does not tell it; and where the driver has none. Never blocks.
    ///
    /// # References
    /// - [`cuDeviceGetUuid_v2`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html),
    ///   which in MIG mode is that of the part
    /// - [`VkPhysicalDeviceIDProperties::deviceUUID`](https://registry.khronos.org/vulkan/specs/latest/man/html/VkPhysicalDeviceIDProperties.html)
    /// - [`cl_khr_device_uuid`](https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_Ext.html#cl_khr_device_uuid)
    ///
    /// ```
    /// assert_eq!(fencepost::Device::open("host")?.uuid(), None);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn uuid(&self) -> Option<[u8; 16]> {
        self.imp().uuid()
    }

    /// How many callbacks of [`Marker::on_complete`](crate::Marker::on_complete) have panicked on
    /// this device. Each panic was reported by the panic hook and then caught, so it affects no
    /// stream and no other callback.
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

/// What names there can be, for the text of an error. It asks no driver which there are: a process
/// that was only given a wrong name can still be forked.
/// wgpu's devices are those of programs.
fn no_wgpu(name: &str) -> Error {
    let why = match cfg!(all(feature = "wgpu30", not(loom))) {
        true => "the library opens no device of wgpu; pass yours to fencepost::wgpu30::stream",
        false => "this build has no wgpu; build with the cargo feature wgpu30",
    };
    Error::Unavailable {
        device: name.into(),
        why: why.into(),
    }
}

const FORMS: &str = "names are host, metal, cuda:N, vulkan:N and opencl:N, where N counts from 0; \
    the command `fencepost devices` lists those that are here";

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
        write!(f, "Device({})", self.core())
    }
}
