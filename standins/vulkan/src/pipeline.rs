//! Shader modules, pipeline layouts, caches and compute pipelines.

use crate::kernel::Kernel;
use crate::table::Child;
use ash::vk::{self, Handle};

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) device: vk::Device,
    pub(crate) entry_points: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct PipelineLayout {
    pub(crate) device: vk::Device,
    pub(crate) sets: u32,
    pub(crate) push_bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Cache(pub(crate) vk::Device);

#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) device: vk::Device,
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

/// The names of a module's compute entry points; `None` if it is not SPIR-V.
pub(crate) fn entry_points(words: &[u32]) -> Option<Vec<String>> {
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
