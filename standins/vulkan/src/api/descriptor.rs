//! Descriptor sets of storage buffers:
//! <https://docs.vulkan.org/spec/latest/chapters/descriptorsets.html>.

use crate::descriptor::{DescriptorPool, DescriptorSet, SetLayout};
use crate::driver::Driver;
use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out, slice};
use crate::usage::{VkResult, invalid_usage};
use ash::vk::{self, Handle};
use std::collections::BTreeMap;
use std::ffi::c_void;

pub(crate) extern "system" fn vkCreateDescriptorSetLayout(
    device: vk::Device,
    info: In<'_, vk::DescriptorSetLayoutCreateInfo<'_>>,
    _: Allocator<'_>,
    layout: Out<'_, vk::DescriptorSetLayout>,
) -> vk::Result {
    call("vkCreateDescriptorSetLayout", device, &[], |driver| {
        let (info, out) = (info.required()?, layout.required()?);
        driver.device(device)?;
        // SAFETY: valid usage of VkDescriptorSetLayoutCreateInfo
        let all = unsafe { slice(info.p_bindings, info.binding_count) };
        let other = all.iter().any(|binding| {
            binding.descriptor_type != vk::DescriptorType::STORAGE_BUFFER
                || binding.descriptor_count != 1
        });
        if other {
            return Err(invalid_usage(
                "the stand-in has single storage buffers only",
            ));
        }
        let bindings = all.iter().map(|binding| binding.binding).collect();
        out.put(driver.set_layouts.insert(SetLayout { device, bindings }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyDescriptorSetLayout(
    device: vk::Device,
    layout: vk::DescriptorSetLayout,
    _: Allocator<'_>,
) {
    if layout.is_null() {
        return;
    }
    call_void(
        "vkDestroyDescriptorSetLayout",
        device,
        &[layout.as_raw()],
        |driver| driver.set_layouts.remove(device, layout).map(drop),
    );
}

pub(crate) extern "system" fn vkCreateDescriptorPool(
    device: vk::Device,
    info: In<'_, vk::DescriptorPoolCreateInfo<'_>>,
    _: Allocator<'_>,
    pool: Out<'_, vk::DescriptorPool>,
) -> vk::Result {
    call("vkCreateDescriptorPool", device, &[], |driver| {
        let (info, out) = (info.required()?, pool.required()?);
        driver.device(device)?;
        // SAFETY: valid usage of VkDescriptorPoolCreateInfo
        let sizes = unsafe { slice(info.p_pool_sizes, info.pool_size_count) };
        let buffers = sizes
            .iter()
            .filter(|size| size.ty == vk::DescriptorType::STORAGE_BUFFER);
        if info.max_sets == 0 {
            return Err(invalid_usage("a pool must have space for a set"));
        }
        out.put(driver.descriptor_pools.insert(DescriptorPool {
            device,
            frees: (info.flags).contains(vk::DescriptorPoolCreateFlags::FREE_DESCRIPTOR_SET),
            max_sets: info.max_sets,
            max_buffers: buffers.map(|size| size.descriptor_count).sum(),
        }));
        Ok(())
    })
}

impl Driver {
    fn sets_of(&self, pool: vk::DescriptorPool) -> Vec<vk::DescriptorSet> {
        let own = self
            .descriptor_sets
            .iter()
            .filter(|(_, set)| set.pool == pool);
        own.map(|(handle, _)| handle).collect()
    }

    fn empty_descriptor_pool(&mut self, pool: vk::DescriptorPool) {
        for set in self.sets_of(pool) {
            self.check_unused(set);
        }
        self.descriptor_sets.remove_all(pool);
    }

    fn write_set(&mut self, device: vk::Device, write: &vk::WriteDescriptorSet<'_>) -> VkResult {
        let pool = self.descriptor_sets.find(write.dst_set)?.pool;
        self.descriptor_pools.get(device, pool)?;
        if self.in_use(write.dst_set.as_raw()) {
            return Err(invalid_usage(
                "a descriptor set is updated while pending work uses it",
            ));
        }
        if write.descriptor_type != vk::DescriptorType::STORAGE_BUFFER
            || write.descriptor_count != 1
            || write.dst_array_element != 0
        {
            return Err(invalid_usage(
                "the stand-in has single storage buffers only",
            ));
        }
        // SAFETY: valid usage of VkWriteDescriptorSet for a storage buffer
        let infos = unsafe { slice(write.p_buffer_info, write.descriptor_count) };
        for info in infos {
            let buffer = self.buffers.get(device, info.buffer)?;
            buffer.check_usage(vk::BufferUsageFlags::STORAGE_BUFFER)?;
            if !info.offset.is_multiple_of(64) {
                return Err(invalid_usage(
                    "the offset is not a multiple of minStorageBufferOffsetAlignment",
                ));
            }
            let range = buffer.range(info.offset, info.range)?;
            let set = self.descriptor_sets.find_mut(write.dst_set)?;
            if !set.bindings.contains(&write.dst_binding) {
                return Err(invalid_usage("the set's layout has no such binding"));
            }
            set.buffers.insert(write.dst_binding, (info.buffer, range));
            set.version += 1;
        }
        Ok(())
    }
}

pub(crate) extern "system" fn vkDestroyDescriptorPool(
    device: vk::Device,
    pool: vk::DescriptorPool,
    _: Allocator<'_>,
) {
    if pool.is_null() {
        return;
    }
    call_void(
        "vkDestroyDescriptorPool",
        device,
        &[pool.as_raw()],
        |driver| {
            driver.descriptor_pools.get(device, pool)?;
            driver.empty_descriptor_pool(pool);
            driver.descriptor_pools.remove(device, pool).map(drop)
        },
    );
}

pub(crate) extern "system" fn vkResetDescriptorPool(
    device: vk::Device,
    pool: vk::DescriptorPool,
    _: vk::DescriptorPoolResetFlags,
) -> vk::Result {
    call(
        "vkResetDescriptorPool",
        device,
        &[pool.as_raw()],
        |driver| {
            driver.descriptor_pools.get(device, pool)?;
            driver.empty_descriptor_pool(pool);
            Ok(())
        },
    )
}

pub(crate) extern "system" fn vkAllocateDescriptorSets(
    device: vk::Device,
    info: In<'_, vk::DescriptorSetAllocateInfo<'_>>,
    sets: Out<'_, vk::DescriptorSet>,
) -> vk::Result {
    let pool = info.pool();
    call("vkAllocateDescriptorSets", device, &[pool], |driver| {
        let (info, out) = (info.required()?, sets.required()?);
        let pool = driver.descriptor_pools.get(device, info.descriptor_pool)?;
        // SAFETY: valid usage of VkDescriptorSetAllocateInfo
        let layouts = unsafe { slice(info.p_set_layouts, info.descriptor_set_count) };
        let mut requested = Vec::new();
        for layout in layouts {
            requested.push(driver.set_layouts.get(device, *layout)?.bindings.clone());
        }
        let have = driver.sets_of(info.descriptor_pool);
        let used = have
            .iter()
            .filter_map(|set| driver.descriptor_sets.peek(*set));
        let buffers: usize = used.map(|set| set.bindings.len()).sum();
        let buffers = buffers + requested.iter().map(Vec::len).sum::<usize>();
        if have.len() + requested.len() > pool.max_sets as usize
            || buffers > pool.max_buffers as usize
        {
            return Err(vk::Result::ERROR_OUT_OF_POOL_MEMORY);
        }
        let made = requested.into_iter().map(|bindings| {
            driver.descriptor_sets.insert(DescriptorSet {
                pool: info.descriptor_pool,
                bindings,
                buffers: BTreeMap::new(),
                version: 0,
            })
        });
        out.many(layouts.len()).fill(made);
        Ok(())
    })
}

impl In<'_, vk::DescriptorSetAllocateInfo<'_>> {
    /// The handle of its pool, unchecked.
    fn pool(&self) -> u64 {
        self.peek().map_or(0, |info| info.descriptor_pool.as_raw())
    }
}

pub(crate) extern "system" fn vkFreeDescriptorSets(
    device: vk::Device,
    pool: vk::DescriptorPool,
    count: u32,
    sets: Array<'_, vk::DescriptorSet>,
) -> vk::Result {
    call("vkFreeDescriptorSets", device, &[pool.as_raw()], |driver| {
        if !driver.descriptor_pools.get(device, pool)?.frees {
            return Err(invalid_usage(
                "the pool was created without FREE_DESCRIPTOR_SET",
            ));
        }
        for set in sets.of(count).iter().filter(|set| !set.is_null()) {
            driver.descriptor_sets.get(pool, *set)?;
            driver.check_unused(*set);
            driver.descriptor_sets.remove(pool, *set)?;
        }
        Ok(())
    })
}

pub(crate) extern "system" fn vkUpdateDescriptorSets(
    device: vk::Device,
    write_count: u32,
    writes: Array<'_, vk::WriteDescriptorSet<'_>>,
    copy_count: u32,
    _: *const c_void,
) {
    let writes = writes.of(write_count);
    let exclusive: Vec<u64> = writes.iter().map(|write| write.dst_set.as_raw()).collect();
    call_void("vkUpdateDescriptorSets", device, &exclusive, |driver| {
        if copy_count > 0 {
            return Err(invalid_usage("the stand-in copies no descriptors"));
        }
        writes
            .iter()
            .try_for_each(|write| driver.write_set(device, write))
    });
}
