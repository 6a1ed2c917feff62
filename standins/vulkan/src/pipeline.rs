//! Shader modules, pipeline layouts, caches and compute pipelines:
//! <https://docs.vulkan.org/spec/latest/chapters/pipelines.html>. Of a module only the names of its
//! entry points are read:
//! <https://registry.khronos.org/SPIR-V/specs/unified1/SPIRV.html#OpEntryPoint>.

use crate::boundary::{Allocator, Array, Done, In, Out, slice, text};
use crate::calls::{call, misuse, void};
use crate::control;
use crate::face::Face;
use crate::kernel::Kernel;
use crate::table::Child;
use ash::vk::{self, Handle};
use std::ffi::c_void;

#[derive(Debug)]
pub(crate) struct Module {
    device: vk::Device,
    entry_points: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct PipelineLayout {
    device: vk::Device,
    pub(crate) sets: u32,
    pub(crate) push_bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Cache(vk::Device);

#[derive(Debug)]
pub(crate) struct Pipeline {
    device: vk::Device,
    pub(crate) kernel: Kernel,
}

macro_rules! children {
    ($($kind:ident: $field:tt),*) => {
        $(impl Child for $kind {
            fn parent(&self) -> u64 {
                self.$field.as_raw()
            }
        })*
    };
}

children!(Module: device, PipelineLayout: device, Cache: 0, Pipeline: device);

/// The names in a module's `OpEntryPoint`s for compute; `None` if it is no SPIR-V.
fn entry_points(words: &[u32]) -> Option<Vec<String>> {
    const MAGIC: u32 = 0x0723_0203;
    const OP_ENTRY_POINT: u32 = 15;
    const GL_COMPUTE: u32 = 5;
    let mut names = Vec::new();
    let mut rest = words.get(5..).filter(|_| words[0] == MAGIC)?;
    while let Some(&first) = rest.first() {
        let (length, opcode) = ((first >> 16) as usize, first & 0xffff);
        let operands = rest.get(1..length)?;
        if let (OP_ENTRY_POINT, [GL_COMPUTE, _, name @ ..]) = (opcode, operands) {
            let bytes = name.iter().flat_map(|word| word.to_le_bytes());
            let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
            names.push(String::from_utf8(bytes).ok()?);
        }
        rest = rest.get(length..)?;
    }
    Some(names)
}

pub(crate) extern "system" fn vkCreateShaderModule(
    device: vk::Device,
    info: In<'_, vk::ShaderModuleCreateInfo<'_>>,
    _: Allocator<'_>,
    module: Out<'_, vk::ShaderModule>,
) -> vk::Result {
    call("vkCreateShaderModule", device, &[], |face| {
        let (info, out) = (info.needed()?, module.needed()?);
        face.device(device)?;
        if !info.code_size.is_multiple_of(4) {
            return Err(misuse("the code is no whole number of words"));
        }
        // SAFETY: valid usage of VkShaderModuleCreateInfo
        let words = unsafe { slice(info.p_code, (info.code_size / 4) as u32) };
        let Some(entry_points) = entry_points(words) else {
            return Err(misuse("the code is not SPIR-V"));
        };
        out.put(face.modules.insert(Module {
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
    void(
        "vkDestroyShaderModule",
        device,
        &[module.as_raw()],
        |face| face.modules.remove(device, module).map(drop),
    );
}

pub(crate) extern "system" fn vkCreatePipelineLayout(
    device: vk::Device,
    info: In<'_, vk::PipelineLayoutCreateInfo<'_>>,
    _: Allocator<'_>,
    layout: Out<'_, vk::PipelineLayout>,
) -> vk::Result {
    call("vkCreatePipelineLayout", device, &[], |face| {
        let (info, out) = (info.needed()?, layout.needed()?);
        face.device(device)?;
        // SAFETY: valid usage of VkPipelineLayoutCreateInfo
        let sets = unsafe { slice(info.p_set_layouts, info.set_layout_count) };
        for set in sets {
            face.set_layouts.get(device, *set)?;
        }
        // SAFETY: as above
        let ranges = unsafe { slice(info.p_push_constant_ranges, info.push_constant_range_count) };
        let push_bytes = ranges
            .iter()
            .map(|range| range.offset.saturating_add(range.size))
            .max();
        let push_bytes = push_bytes.unwrap_or(0);
        if push_bytes > 128 {
            return Err(misuse("more push constants than maxPushConstantsSize"));
        }
        out.put(face.pipeline_layouts.insert(PipelineLayout {
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
    void(
        "vkDestroyPipelineLayout",
        device,
        &[layout.as_raw()],
        |face| face.pipeline_layouts.remove(device, layout).map(drop),
    );
}

pub(crate) extern "system" fn vkCreatePipelineCache(
    device: vk::Device,
    info: In<'_, vk::PipelineCacheCreateInfo<'_>>,
    _: Allocator<'_>,
    cache: Out<'_, vk::PipelineCache>,
) -> vk::Result {
    call("vkCreatePipelineCache", device, &[], |face| {
        info.needed()?;
        let out = cache.needed()?;
        face.device(device)?;
        out.put(face.caches.insert(Cache(device)));
        Ok(())
    })
}

/// There is never anything in a cache.
pub(crate) extern "system" fn vkGetPipelineCacheData(
    device: vk::Device,
    cache: vk::PipelineCache,
    size: Out<'_, usize>,
    _: *mut c_void,
) -> vk::Result {
    call("vkGetPipelineCacheData", device, &[], |face| {
        face.caches.get(device, cache)?;
        size.needed()?.put(0);
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
    void(
        "vkDestroyPipelineCache",
        device,
        &[cache.as_raw()],
        |face| face.caches.remove(device, cache).map(drop),
    );
}

impl Face {
    fn new_pipeline(
        &mut self,
        device: vk::Device,
        info: &vk::ComputePipelineCreateInfo<'_>,
    ) -> Done<vk::Pipeline> {
        let layout = self.pipeline_layouts.get(device, info.layout)?;
        let module = self.modules.get(device, info.stage.module)?;
        if info.stage.stage != vk::ShaderStageFlags::COMPUTE {
            return Err(misuse("the stage of a compute pipeline must be COMPUTE"));
        }
        // SAFETY: `pName` must be a C string
        let name = unsafe { text(info.stage.p_name) }.unwrap_or_default();
        if !module.entry_points.contains(&name) {
            return Err(misuse(&format!("the module has no entry point {name}")));
        }
        let Some(kernel) = Kernel::of(&name) else {
            control::note(&format!("the stand-in does not know what {name} does"));
            return Err(vk::Result::ERROR_UNKNOWN);
        };
        if layout.sets == 0 || kernel.reads_push_constant() && layout.push_bytes < 4 {
            return Err(misuse(&format!("the layout has not all that {name} uses")));
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
    call("vkCreateComputePipelines", device, &[], |face| {
        let (infos, out) = (infos.of(count), pipelines.needed()?);
        face.device(device)?;
        if !cache.is_null() {
            face.caches.get(device, cache)?;
        }
        // those that fail are null
        let mut result = Ok(());
        let made = infos
            .iter()
            .map(|info| match face.new_pipeline(device, info) {
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
    void("vkDestroyPipeline", device, &[pipeline.as_raw()], |face| {
        face.pipelines.get(device, pipeline)?;
        face.retire(pipeline);
        face.pipelines.remove(device, pipeline).map(drop)
    });
}
