//! Calibrated timestamps:
//! <https://docs.vulkan.org/spec/latest/chapters/synchronization.html#timestamps-calibrated>.
//!
//! The host's clock is the value of `CLOCK_MONOTONIC` when the machine was created, plus the
//! simulated time since then: the real clock, but for what kernels that take no real time have
//! advanced it.

use crate::entry::call;
use crate::ffi::{Out, enumerate, slice};
use crate::usage::invalid_usage;
use ash::vk;
use std::ffi::c_void;

const DOMAINS: [vk::TimeDomainKHR; 2] = [
    vk::TimeDomainKHR::DEVICE,
    vk::TimeDomainKHR::CLOCK_MONOTONIC,
];

fn time_domains(
    name: &'static str,
    physical: vk::PhysicalDevice,
    count: *mut u32,
    domains: Out<'_, vk::TimeDomainKHR>,
) -> vk::Result {
    call(name, physical, &[], |driver| {
        driver.physicals.find(physical)?;
        enumerate(count, domains, DOMAINS.into_iter())
    })
}

pub(crate) extern "system" fn vkGetPhysicalDeviceCalibrateableTimeDomainsEXT(
    physical: vk::PhysicalDevice,
    count: *mut u32,
    domains: Out<'_, vk::TimeDomainKHR>,
) -> vk::Result {
    let name = "vkGetPhysicalDeviceCalibrateableTimeDomainsEXT";
    time_domains(name, physical, count, domains)
}

pub(crate) extern "system" fn vkGetPhysicalDeviceCalibrateableTimeDomainsKHR(
    physical: vk::PhysicalDevice,
    count: *mut u32,
    domains: Out<'_, vk::TimeDomainKHR>,
) -> vk::Result {
    let name = "vkGetPhysicalDeviceCalibrateableTimeDomainsKHR";
    time_domains(name, physical, count, domains)
}

fn calibrated(
    name: &'static str,
    device: vk::Device,
    count: u32,
    infos: *const c_void,
    timestamps: Out<'_, u64>,
    deviation: Out<'_, u64>,
) -> vk::Result {
    call(name, device, &[], |driver| {
        let (sim, began) = (&driver.device(device)?.shared.sim, driver.began);
        // SAFETY: a valid pointer to an array of `count` infos
        let infos = unsafe { slice(infos.cast::<vk::CalibratedTimestampInfoKHR<'_>>(), count) };
        let (timestamps, deviation) = (timestamps.required()?, deviation.required()?);
        if infos
            .iter()
            .any(|info| !DOMAINS.contains(&info.time_domain))
        {
            return Err(invalid_usage("the device does not have the time domain"));
        }
        let now = sim.calibrate();
        let values = infos.iter().map(|info| match info.time_domain {
            vk::TimeDomainKHR::DEVICE => now.device_tick,
            _ => began + now.host_ns,
        });
        timestamps.many(infos.len()).fill(values);
        deviation.put(now.uncertainty_ns);
        Ok(())
    })
}

pub(crate) extern "system" fn vkGetCalibratedTimestampsEXT(
    device: vk::Device,
    count: u32,
    infos: *const c_void,
    timestamps: Out<'_, u64>,
    deviation: Out<'_, u64>,
) -> vk::Result {
    let name = "vkGetCalibratedTimestampsEXT";
    calibrated(name, device, count, infos, timestamps, deviation)
}

pub(crate) extern "system" fn vkGetCalibratedTimestampsKHR(
    device: vk::Device,
    count: u32,
    infos: *const c_void,
    timestamps: Out<'_, u64>,
    deviation: Out<'_, u64>,
) -> vk::Result {
    let name = "vkGetCalibratedTimestampsKHR";
    calibrated(name, device, count, infos, timestamps, deviation)
}
