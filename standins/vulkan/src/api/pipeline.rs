//! Shader modules, pipeline layouts, caches and compute pipelines:
//! <https://docs.vulkan.org/spec/latest/chapters/pipelines.html>. The stand-in reads only the names
//! of a module's entry points:
//! <https://registry.khronos.org/SPIR-V/specs/unified1/SPIRV.html#OpEntryPoint>.

use crate::driver::Driver;
use crate::entry::{call, call_void};
use crate::ffi::{Allocator, Array, In, Out, slice};
use crate::kernel::Kernel;
use crate::pipeline::{Cache, Module, Pipeline, PipelineLayout, entry_points};
use crate::usage::{LOG, VkResult, invalid_usage};
use ash::vk::{self, Handle};
use fencepost_sim::ffi::read_text;
use std::ffi::c_void;

pub(crate) extern "system" fn vkCreateShaderModule(
    device: vk::Device,
    info: In<'_, vk::ShaderModuleCreateInfo<'_>>,
    _: Allocator<'_>,
    module: Out<'_, vk::ShaderModule>,
) -> vk::Result {
    call("vkCreateShaderModule", device, &[], |driver| {
        let (info, out) = (info.required()?, module.required()?);
        driver.device(device)?;
        if !info.code_size.is_multiple_of(4) {
            return Err(invalid_usage(
                "the size of the code is not a multiple of four bytes",
            ));
        }
        // SAFETY: valid usage of VkShaderModuleCreateInfo
        let words = unsafe { slice(info.p_code, (info.code_size / 4) as u32) };
        let Some(entry_points) = entry_points(words) else {
            return Err(invalid_usage("the code is not SPIR-V"));
        };
        out.put(driver.modules.insert(Module {
            device,
            entry_points,
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyShaderModule(
    device: vk::Device,
    module: vk::ShaderModule,
    _: Allocator<'_>,
) {
    if module.is_null() {
        return;
    }
    call_void(
        "vkDestroyShaderModule",
        device,
        &[module.as_raw()],
        |driver| driver.modules.remove(device, module).map(drop),
    );
}

pub(crate) extern "system" fn vkCreatePipelineLayout(
    device: vk::Device,
    info: In<'_, vk::PipelineLayoutCreateInfo<'_>>,
    _: Allocator<'_>,
    layout: Out<'_, vk::PipelineLayout>,
) -> vk::Result {
    call("vkCreatePipelineLayout", device, &[], |driver| {
        let (info, out) = (info.required()?, layout.required()?);
        driver.device(device)?;
        // SAFETY: valid usage of VkPipelineLayoutCreateInfo
        let sets = unsafe { slice(info.p_set_layouts, info.set_layout_count) };
        for set in sets {
            driver.set_layouts.get(device, *set)?;
        }
        // SAFETY: as above
        let ranges = unsafe { slice(info.p_push_constant_ranges, info.push_constant_range_count) };
        let push_bytes = ranges
            .iter()
            .map(|range| range.offset.saturating_add(range.size))
            .max();
        let push_bytes = push_bytes.unwrap_or(0);
        if push_bytes > 128 {
            return Err(invalid_usage(
                "more push constants than maxPushConstantsSize",
            ));
        }
        out.put(driver.pipeline_layouts.insert(PipelineLayout {
            device,
            sets: info.set_layout_count,
            push_bytes,
        }));
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyPipelineLayout(
    device: vk::Device,
    layout: vk::PipelineLayout,
    _: Allocator<'_>,
) {
    if layout.is_null() {
        return;
    }
    call_void(
        "vkDestroyPipelineLayout",
        device,
        &[layout.as_raw()],
        |driver| driver.pipeline_layouts.remove(device, layout).map(drop),
    );
}

pub(crate) extern "system" fn vkCreatePipelineCache(
    device: vk::Device,
    info: In<'_, vk::PipelineCacheCreateInfo<'_>>,
    _: Allocator<'_>,
    cache: Out<'_, vk::PipelineCache>,
) -> vk::Result {
    call("vkCreatePipelineCache", device, &[], |driver| {
        info.required()?;
        let out = cache.required()?;
        driver.device(device)?;
        out.put(driver.caches.insert(Cache(device)));
        Ok(())
    })
}

/// A cache is always empty.
pub(crate) extern "system" fn vkGetPipelineCacheData(
    device: vk::Device,
    cache: vk::PipelineCache,
    size: Out<'_, usize>,
    _: *mut c_void,
) -> vk::Result {
    call("vkGetPipelineCacheData", device, &[], |driver| {
        driver.caches.get(device, cache)?;
        size.required()?.put(0);
        Ok(())
    })
}

pub(crate) extern "system" fn vkDestroyPipelineCache(
    device: vk::Device,
    cache: vk::PipelineCache,
    _: Allocator<'_>,
) {
    if cache.is_null() {
        return;
    }
    call_void(
        "vkDestroyPipelineCache",
        device,
        &[cache.as_raw()],
        |driver| driver.caches.remove(device, cache).map(drop),
    );
}

impl Driver {
    fn new_pipeline(
        &mut self,
        device: vk::Device,
        info: &vk::ComputePipelineCreateInfo<'_>,
    ) -> VkResult<vk::Pipeline> {
        let layout = self.pipeline_layouts.get(device, info.layout)?;
        let module = self.modules.get(device, info.stage.module)?;
        if info.stage.stage != vk::ShaderStageFlags::COMPUTE {
            return Err(invalid_usage(
                "the stage of a compute pipeline must be COMPUTE",
            ));
        }
        // SAFETY: `pName` must be a C string
        let name = unsafe { read_text(info.stage.p_name) }.unwrap_or_default();
        if !module.entry_points.contains(&name) {
            return Err(invalid_usage(&format!(
                "the module has no entry point {name}"
            )));
        }
        let Some(kernel) = Kernel::of(&name) else {
            LOG.note(&format!("the stand-in has no kernel {name}"));
            return Err(vk::Result::ERROR_UNKNOWN);
        };
        if layout.sets == 0 || kernel.reads_push_constant() && layout.push_bytes < 4 {
            return Err(invalid_usage(&format!(
                "the layout lacks a set or push constant that {name} uses"
            )));
        }
        Ok(self.pipelines.insert(Pipeline { device, kernel }))
    }
}

pub(crate) extern "system" fn vkCreateComputePipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: Array<'_, vk::ComputePipelineCreateInfo<'_>>,
    _: Allocator<'_>,
    pipelines: Out<'_, vk::Pipeline>,
) -> vk::Result {
    call("vkCreateComputePipelines", device, &[], |driver| {
        let (infos, out) = (infos.of(count), pipelines.required()?);
        driver.device(device)?;
        if !cache.is_null() {
            driver.caches.get(device, cache)?;
        }
        // a pipeline that fails is null
        let mut result = Ok(());
        let made = infos
            .iter()
            .map(|info| match driver.new_pipeline(device, info) {
                Ok(pipeline) => pipeline,
                Err(code) => {
                    result = Err(code);
                    vk::Pipeline::null()
                }
            });
        out.many(infos.len()).fill(made);
        result
    })
}

pub(crate) extern "system" fn vkDestroyPipeline(
    device: vk::Device,
    pipeline: vk::Pipeline,
    _: Allocator<'_>,
) {
    if pipeline.is_null() {
        return;
    }
    call_void(
        "vkDestroyPipeline",
        device,
        &[pipeline.as_raw()],
        |driver| {
            driver.pipelines.get(device, pipeline)?;
            driver.check_unused(pipeline);
            driver.pipelines.remove(device, pipeline).map(drop)
        },
    );
}
