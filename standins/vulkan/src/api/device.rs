//! Devices and their queues: <https://docs.vulkan.org/spec/latest/chapters/devsandqueues.html>.

use crate::device::{Device, Features, Queue, Shared};
use crate::driver::{Driver, with_driver};
use crate::entry::{call, call_then, call_void};
use crate::ffi::{Allocator, In, Out, find, names, pointed, slice};
use crate::physical::{Family, PORTABILITY_SUBSET, device_extensions, families, period};
use crate::table::{Child, name_of};
use crate::usage::{VkResult, invalid_usage, report_invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::{Config, Error, Order, drift_of, offset_of};
use std::sync::{Arc, atomic::AtomicBool};

/// The features that a device creation requests.
fn requested_features(info: &vk::DeviceCreateInfo<'_>) -> Features {
    let (mut timeline, mut host_reset, mut sync2) = (0, 0, 0);
    if let Some(it) = find::<vk::PhysicalDeviceVulkan12Features<'_>>(info.p_next) {
        (timeline, host_reset) = (it.timeline_semaphore, it.host_query_reset);
    }
    if let Some(it) = find::<vk::PhysicalDeviceVulkan13Features<'_>>(info.p_next) {
        sync2 = it.synchronization2;
    }
    if let Some(it) = find::<vk::PhysicalDeviceTimelineSemaphoreFeatures<'_>>(info.p_next) {
        timeline |= it.timeline_semaphore;
    }
    if let Some(it) = find::<vk::PhysicalDeviceHostQueryResetFeatures<'_>>(info.p_next) {
        host_reset |= it.host_query_reset;
    }
    if let Some(it) = find::<vk::PhysicalDeviceSynchronization2Features<'_>>(info.p_next) {
        sync2 |= it.synchronization2;
    }
    Features {
        timeline: timeline != 0,
        host_reset: host_reset != 0,
        sync2: sync2 != 0,
    }
}

/// The queues that a device creation requests: for each family, their number.
fn requested_queues(
    info: &vk::DeviceCreateInfo<'_>,
    families: &[Family],
) -> VkResult<Vec<(u32, u32)>> {
    // SAFETY: valid usage of VkDeviceCreateInfo
    let infos = unsafe { slice(info.p_queue_create_infos, info.queue_create_info_count) };
    if infos.is_empty() {
        return Err(invalid_usage("no queues are requested"));
    }
    let mut requested: Vec<(u32, u32)> = Vec::new();
    for info in infos {
        let (family, count) = (info.queue_family_index, info.queue_count);
        let has = families.get(family as usize).map_or(0, |f| f.count);
        if count == 0 || count > has {
            return Err(invalid_usage(&format!(
                "queue family {family} has {has} queues, not {count}"
            )));
        }
        if requested.iter().any(|(other, _)| *other == family) {
            return Err(invalid_usage(&format!(
                "queue family {family} is named twice"
            )));
        }
        // SAFETY: as above
        let priorities = unsafe { slice(info.p_queue_priorities, count) };
        if priorities.len() != count as usize || priorities.iter().any(|p| !(0.0..=1.0).contains(p))
        {
            return Err(invalid_usage(
                "priorities must be between 0 and 1, one for each queue",
            ));
        }
        requested.push((family, count));
    }
    Ok(requested)
}

fn initialization_failed(_: Error) -> vk::Result {
    vk::Result::ERROR_INITIALIZATION_FAILED
}

impl Driver {
    fn create_device(
        &mut self,
        physical: vk::PhysicalDevice,
        info: &vk::DeviceCreateInfo<'_>,
    ) -> VkResult<vk::Device> {
        let (instance, index, lost) = {
            let it = self.physicals.find(physical)?;
            (it.instance, it.index, it.lost)
        };
        if lost {
            return Err(vk::Result::ERROR_DEVICE_LOST);
        }
        let families = families(&self.options);
        let requested = requested_queues(info, &families)?;
        let extensions = self.enabled_extensions(info)?;
        let features = self.enabled_features(info)?;
        let supported = self.options.api as u32;
        let version = self.instances.find(instance)?.version.min(supported);
        let has_sync2 = version >= 13
            || extensions
                .iter()
                .any(|name| name == "VK_KHR_synchronization2");
        if features.sync2 && !has_sync2 {
            return Err(invalid_usage(
                "synchronization2 needs Vulkan 1.3 or its extension, and neither is enabled",
            ));
        }
        let shared = self.new_simulated_device(index)?;
        let device = self.devices.insert(Device {
            physical,
            version,
            extensions,
            features,
            shared: shared.clone(),
        });
        for (family, count) in requested {
            let valid_bits = families.get(family as usize).map_or(0, |f| f.valid_bits);
            for index in 0..count {
                let sim = shared.sim.new_queue().map_err(initialization_failed)?;
                self.queues.insert(Queue {
                    device,
                    shared: shared.clone(),
                    sim,
                    family,
                    index,
                    valid_bits,
                });
            }
        }
        Ok(device)
    }

    /// The extensions that a device creation enables, checked.
    fn enabled_extensions(&self, info: &vk::DeviceCreateInfo<'_>) -> VkResult<Vec<String>> {
        // SAFETY: valid usage of VkDeviceCreateInfo
        let extensions = unsafe {
            names(
                info.pp_enabled_extension_names,
                info.enabled_extension_count,
            )
        };
        let have = device_extensions(&self.options);
        if extensions.iter().any(|name| !have.contains(&&**name)) {
            return Err(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
        }
        if have.contains(&PORTABILITY_SUBSET)
            && !extensions.iter().any(|name| name == PORTABILITY_SUBSET)
        {
            return Err(invalid_usage(
                "VK_KHR_portability_subset is supported and not enabled",
            ));
        }
        Ok(extensions)
    }

    /// The features that a device creation enables, if the device has them.
    fn enabled_features(&self, info: &vk::DeviceCreateInfo<'_>) -> VkResult<Features> {
        // the stand-in has no feature of 1.0
        let old = find::<vk::PhysicalDeviceFeatures2<'_>>(info.p_next).map(|it| &it.features);
        // SAFETY: valid usage of VkDeviceCreateInfo
        let old = old.or(unsafe { pointed(info.p_enabled_features) });
        if old.is_some_and(|f| f.robust_buffer_access != 0 || f.shader_int64 != 0) {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        let features = requested_features(info);
        let options = &self.options;
        if features.timeline && !options.timeline
            || features.host_reset && !options.host_reset
            || features.sync2 && !options.sync2
        {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        Ok(features)
    }

    fn new_simulated_device(&self, physical: usize) -> VkResult<Arc<Shared>> {
        let config = Config {
            period_ns: period(physical).into(),
            drift_ppm: drift_of(self.options.drift as f64, physical),
            initial_tick: self.options.clock.wrapping_add(offset_of(physical)),
            // a timestamp is masked by the bits of its queue family when it is written
            valid_bits: 64,
            order: Order::OrderedSignals,
            ..self.config.clone()
        };
        let sim = self.root.another(config).map_err(initialization_failed)?;
        Ok(Arc::new(Shared {
            sim,
            physical,
            hides_loss: self.options.lost_counters == 3,
            told: AtomicBool::new(false),
        }))
    }

    /// The handles of a device's queues.
    fn queues_of(&self, device: vk::Device) -> Vec<u64> {
        let own = self.queues.iter().filter(|(_, q)| q.device == device);
        own.map(|(handle, _)| handle.as_raw()).collect()
    }

    fn destroy_device(&mut self, device: vk::Device) -> VkResult {
        let shared = self.device(device)?.shared.clone();
        if !shared.lost()
            && self
                .queues
                .iter()
                .any(|(_, q)| q.device == device && q.sim.pending() > 0)
        {
            report_invalid_usage("its queues are not idle");
        }
        self.queues.remove_all(device);
        let mut left = Vec::new();
        // pools are destroyed with what was allocated from them
        for pool in self
            .command_pools
            .iter()
            .filter(|(_, p)| p.parent() == device.as_raw())
            .map(|(h, _)| h)
            .collect::<Vec<_>>()
        {
            self.command_buffers.remove_all(pool);
        }
        for pool in self
            .descriptor_pools
            .iter()
            .filter(|(_, p)| p.parent() == device.as_raw())
            .map(|(h, _)| h)
            .collect::<Vec<_>>()
        {
            self.descriptor_sets.remove_all(pool);
        }
        left.extend(self.semaphores.remove_all(device));
        left.extend(self.fences.remove_all(device));
        left.extend(self.query_pools.remove_all(device));
        left.extend(self.command_pools.remove_all(device));
        left.extend(self.buffers.remove_all(device));
        left.extend(self.memories.remove_all(device));
        left.extend(self.set_layouts.remove_all(device));
        left.extend(self.descriptor_pools.remove_all(device));
        left.extend(self.pipeline_layouts.remove_all(device));
        left.extend(self.modules.remove_all(device));
        left.extend(self.caches.remove_all(device));
        left.extend(self.pipelines.remove_all(device));
        if !left.is_empty() {
            let left: Vec<String> = left.into_iter().map(name_of).collect();
            report_invalid_usage(&format!("objects are left: {}", left.join(", ")));
        }
        let physical = self.device(device)?.physical;
        self.devices.remove(physical, device)?;
        // ends the waits in progress
        shared.sim.lose("the device is destroyed");
        Ok(())
    }
}

pub(crate) extern "system" fn vkCreateDevice(
    physical: vk::PhysicalDevice,
    info: In<'_, vk::DeviceCreateInfo<'_>>,
    _: Allocator<'_>,
    device: Out<'_, vk::Device>,
) -> vk::Result {
    call("vkCreateDevice", physical, &[], |driver| {
        let (info, out) = (info.required()?, device.required()?);
        out.put(driver.create_device(physical, info)?);
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyDevice(device: vk::Device, _: Allocator<'_>) {
    if device.is_null() {
        return;
    }
    let mut exclusive = with_driver(|driver| driver.queues_of(device)).unwrap_or_default();
    exclusive.push(device.as_raw());
    call_void("vkDestroyDevice", device, &exclusive, |driver| {
        driver.destroy_device(device)
    });
}

fn get_queue(driver: &Driver, device: vk::Device, family: u32, index: u32) -> VkResult<vk::Queue> {
    driver.device(device)?;
    let mut all = driver.queues.iter();
    let found = all.find(|(_, q)| (q.device, q.family, q.index) == (device, family, index));
    let found = found.map(|(handle, _)| handle);
    found.ok_or_else(|| {
        invalid_usage(&format!(
            "queue {index} of family {family} was not requested"
        ))
    })
}

pub(crate) extern "system" fn vkGetDeviceQueue(
    device: vk::Device,
    family: u32,
    index: u32,
    queue: Out<'_, vk::Queue>,
) {
    call_void("vkGetDeviceQueue", device, &[], |driver| {
        let out = queue.required()?;
        out.put(get_queue(driver, device, family, index).unwrap_or(vk::Queue::null()));
        Ok(())
    });
}

pub(crate) extern "system" fn vkGetDeviceQueue2(
    device: vk::Device,
    info: In<'_, vk::DeviceQueueInfo2<'_>>,
    queue: Out<'_, vk::Queue>,
) {
    call_void("vkGetDeviceQueue2", device, &[], |driver| {
        let (info, out) = (info.required()?, queue.required()?);
        // the stand-in has no queues with flags
        let found = if info.flags.is_empty() {
            get_queue(driver, device, info.queue_family_index, info.queue_index).ok()
        } else {
            None
        };
        out.put(found.unwrap_or(vk::Queue::null()));
        Ok(())
    });
}

/// The result of a wait for work.
fn waited(result: Result<fencepost_sim::Waited, Error>) -> VkResult {
    match result {
        Ok(_) => Ok(()),
        Err(_) => Err(vk::Result::ERROR_DEVICE_LOST),
    }
}

pub(crate) extern "system" fn vkQueueWaitIdle(queue: vk::Queue) -> vk::Result {
    call_then(
        "vkQueueWaitIdle",
        queue,
        &[queue.as_raw()],
        |driver| {
            let queue = driver.queues.find(queue)?;
            Ok((queue.shared.clone(), queue.sim.clone()))
        },
        |(shared, queue)| {
            shared.check()?;
            waited(queue.wait_idle(None))
        },
    )
}

pub(crate) extern "system" fn vkDeviceWaitIdle(device: vk::Device) -> vk::Result {
    let queues = with_driver(|driver| driver.queues_of(device)).unwrap_or_default();
    call_then(
        "vkDeviceWaitIdle",
        device,
        &queues,
        |driver| Ok(driver.device(device)?.shared.clone()),
        |shared| {
            shared.check()?;
            waited(shared.sim.wait_idle(None))
        },
    )
}
