//! Timestamp query pools: <https://docs.vulkan.org/spec/latest/chapters/queries.html>.

use crate::entry::{call, call_then, call_void};
use crate::external_sync::using;
use crate::ffi::{Allocator, In, Out};
use crate::query::{Queries, Query, QueryPool, query_key};
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};
use std::ffi::c_void;

pub(crate) extern "system" fn vkCreateQueryPool(
    device: vk::Device,
    info: In<'_, vk::QueryPoolCreateInfo<'_>>,
    _: Allocator<'_>,
    pool: Out<'_, vk::QueryPool>,
) -> vk::Result {
    call("vkCreateQueryPool", device, &[], |driver| {
        let (info, out) = (info.required()?, pool.required()?);
        driver.device(device)?;
        if info.query_type != vk::QueryType::TIMESTAMP {
            return Err(invalid_usage("the stand-in has timestamp queries only"));
        }
        if info.query_count == 0 {
            return Err(invalid_usage("a pool must have queries"));
        }
        out.put(driver.query_pools.insert(QueryPool {
            device,
            count: info.query_count,
            queries: Queries::new(info.query_count),
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyQueryPool(
    device: vk::Device,
    pool: vk::QueryPool,
    _: Allocator<'_>,
) {
    if pool.is_null() {
        return;
    }
    call_void("vkDestroyQueryPool", device, &[pool.as_raw()], |driver| {
        driver.query_pools.get(device, pool)?;
        driver.check_unused(pool);
        let removed = driver.query_pools.remove(device, pool)?;
        (0..removed.count as usize).for_each(|index| driver.forget_uses(query_key(pool, index)));
        Ok(())
    });
}

fn reset(name: &'static str, device: vk::Device, pool: vk::QueryPool, first: u32, count: u32) {
    call_void(name, device, &[], |driver| {
        let owner = driver.device(device)?;
        owner.need(owner.features.host_reset, "hostQueryReset")?;
        let it = driver.query_pools.get(device, pool)?;
        let range = it.range(first, count)?;
        let queries = it.queries.clone();
        for index in range.clone() {
            if driver.in_use(query_key(pool, index)) {
                return Err(invalid_usage(&format!(
                    "query {index} is reset while pending work uses it"
                )));
            }
        }
        queries.reset(range);
        Ok(())
    });
}

pub(crate) extern "system" fn vkResetQueryPool(
    device: vk::Device,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
) {
    reset("vkResetQueryPool", device, pool, first, count);
}

pub(crate) extern "system" fn vkResetQueryPoolEXT(
    device: vk::Device,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
) {
    reset("vkResetQueryPoolEXT", device, pool, first, count);
}

pub(crate) extern "system" fn vkGetQueryPoolResults(
    device: vk::Device,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
    size: usize,
    data: *mut c_void,
    stride: vk::DeviceSize,
    flags: vk::QueryResultFlags,
) -> vk::Result {
    call_then(
        "vkGetQueryPoolResults",
        device,
        &[],
        |driver| {
            let shared = driver.device(device)?.shared.clone();
            let it = driver.query_pools.get(device, pool)?;
            let range = it.range(first, count)?;
            if flags.contains(vk::QueryResultFlags::PARTIAL) {
                return Err(invalid_usage("timestamps have no partial results"));
            }
            let queries = it.queries.clone();
            // as the validation layers do, this accepts a query that pending work resets
            let never = queries.with(|all| {
                let mut all = range
                    .clone()
                    .filter(|index| all[*index] == Query::Undefined);
                all.find(|index| !driver.in_use(query_key(pool, *index)))
            });
            if let Some(index) = never {
                return Err(invalid_usage(&format!("query {index} was never reset")));
            }
            shared.check()?;
            Ok((shared, queries, range, using([pool.as_raw()])))
        },
        |(shared, queries, range, _using)| {
            let available = |all: &mut [Query]| {
                let mut all = all[range.clone()].iter();
                all.all(|query| matches!(query, Query::Available(_)))
            };
            if flags.contains(vk::QueryResultFlags::WAIT) {
                let over = || queries.with(available) || shared.lost();
                let _ = shared.sim.wait_until(None, over);
                if !queries.with(available) {
                    return Err(vk::Result::ERROR_DEVICE_LOST);
                }
            }
            let values = queries.with(|all| all[range.clone()].to_vec());
            ResultArray::new(values.len(), size, data, stride, flags)?.write(&values)
        },
    )
}

/// The caller's array for the results of queries.
struct ResultArray {
    data: *mut c_void,
    /// The bytes between the results of two queries.
    stride: usize,
    /// The bytes of one number: 4 or 8.
    width: usize,
    with_availability: bool,
}

impl ResultArray {
    /// Checks that the results of `count` queries fit.
    fn new(
        count: usize,
        size: usize,
        data: *mut c_void,
        stride: u64,
        flags: vk::QueryResultFlags,
    ) -> VkResult<ResultArray> {
        let width = if flags.contains(vk::QueryResultFlags::TYPE_64) {
            8
        } else {
            4
        };
        let with_availability = flags.contains(vk::QueryResultFlags::WITH_AVAILABILITY);
        let each = width * (1 + usize::from(with_availability));
        let stride = usize::try_from(stride).unwrap_or(usize::MAX);
        let last = stride
            .checked_mul(count - 1)
            .and_then(|last| last.checked_add(each));
        if data.is_null() || last.is_none_or(|end| end > size) {
            return Err(invalid_usage("the results do not fit into the data"));
        }
        if count > 1 && stride < each
            || !stride.is_multiple_of(width)
            || !data.addr().is_multiple_of(width)
        {
            return Err(invalid_usage("the data or the stride is not aligned"));
        }
        Ok(ResultArray {
            data,
            stride,
            width,
            with_availability,
        })
    }

    /// Writes one number of a query: 0 is its result, 1 its availability.
    fn put(&self, query: usize, number: usize, value: u64) {
        let to = self
            .data
            .wrapping_byte_add(query * self.stride + number * self.width);
        // SAFETY: `pData` must be a valid pointer to `dataSize` bytes, in which this lies; it is
        // aligned
        unsafe {
            match self.width {
                8 => to.cast::<u64>().write(value),
                _ => to.cast::<u32>().write(value as u32),
            }
        }
    }

    /// Writes the results. The result of an unavailable query is not written.
    fn write(&self, values: &[Query]) -> VkResult {
        let mut ready = true;
        for (index, query) in values.iter().enumerate() {
            let available = match query {
                Query::Available(tick) => {
                    self.put(index, 0, *tick);
                    true
                }
                _ => false,
            };
            ready &= available;
            if self.with_availability {
                self.put(index, 1, available.into());
            }
        }
        if ready {
            Ok(())
        } else {
            Err(vk::Result::NOT_READY)
        }
    }
}
