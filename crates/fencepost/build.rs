//! Says where the Metal backend is built, and any backend of a GPU; and translates the kernels of
//! the conformance suite: one source for Vulkan and Metal.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_metal, has_gpu)");
    let is = |name: &str| std::env::var_os(name).is_some();
    let apple = std::env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
    let metal =
        is("CARGO_FEATURE_METAL") && (apple || is("CARGO_CFG_METAL_SIM")) && !is("CARGO_CFG_LOOM");
    if metal {
        println!("cargo::rustc-cfg=has_metal");
    }
    // What every backend but the host uses has one name for when it is used.
    let others = ["CUDA", "OPENCL", "VULKAN", "WGPU30"];
    if metal
        || others
            .iter()
            .any(|name| is(&format!("CARGO_FEATURE_{name}")))
    {
        println!("cargo::rustc-cfg=has_gpu");
    }
    println!("cargo::rerun-if-changed=src/testing/kernels.wgsl");
    #[cfg(feature = "conformance")]
    kernels::translate();
}

#[cfg(feature = "conformance")]
mod kernels {
    use std::{env, fs, path::Path};

    use naga::{
        back::{msl, spv},
        front::wgsl,
        valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
    };

    pub(super) fn translate() {
        let source = fs::read_to_string("src/testing/kernels.wgsl").expect("the kernels are there");
        let module = wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::IMMEDIATES)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
        let out = env::var_os("OUT_DIR").expect("cargo names a folder");
        let write = |name: &str, bytes: &[u8]| {
            fs::write(Path::new(&out).join(name), bytes).expect("the folder is writable");
        };
        let words = spirv(&module, &info);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        write("kernels.spv", &bytes);
        write("kernels.metal", metal(&module, &info).as_bytes());
    }

    /// All entry points in one module.
    fn spirv(module: &naga::Module, info: &ModuleInfo) -> Vec<u32> {
        // SPIR-V 1.3 is what every device with Vulkan 1.1 takes.
        let options = spv::Options {
            lang_version: (1, 3),
            flags: spv::WriterFlags::empty(),
            ..spv::Options::default()
        };
        let words = spv::write_vec(module, info, &options, None).expect("the kernels are valid");
        without_workgroup_strides(&words)
    }

    /// The module without the strides of arrays in workgroup memory. naga 30 gives every array a
    /// stride, which memory without an explicit layout must not have
    /// (VUID-StandaloneSpirv-None-10684).
    fn without_workgroup_strides(words: &[u32]) -> Vec<u32> {
        const HEADER: usize = 5;
        // Numbers of SPIR-V: two opcodes, a decoration and a storage class.
        const TYPE_POINTER: u32 = 32;
        const DECORATE: u32 = 71;
        const ARRAY_STRIDE: u32 = 6;
        const WORKGROUP: u32 = 4;
        let (header, mut rest) = words.split_at(HEADER);
        // The first word of an instruction has its length in words, then its opcode.
        let mut instructions = Vec::new();
        while let Some(first) = rest.first() {
            let (instruction, behind) = rest.split_at((first >> 16) as usize);
            instructions.push(instruction);
            rest = behind;
        }
        let opcode = |instruction: &[u32]| instruction[0] & 0xffff;
        let in_workgroup: Vec<u32> = instructions
            .iter()
            .filter(|i| opcode(i) == TYPE_POINTER && i[2] == WORKGROUP)
            .map(|pointer| pointer[3])
            .collect();
        let kept = instructions.into_iter().filter(|i| {
            !(opcode(i) == DECORATE && i[2] == ARRAY_STRIDE && in_workgroup.contains(&i[1]))
        });
        header.iter().chain(kept.flatten()).copied().collect()
    }

    /// Buffer index = binding; the push constants are buffer 2, the buffers' sizes buffer 3.
    fn metal(module: &naga::Module, info: &ModuleInfo) -> String {
        let resources = |sizes: &[u8]| {
            let bind = |&binding: &u8| {
                let target = msl::BindTarget {
                    buffer: Some(binding),
                    mutable: true,
                    ..msl::BindTarget::default()
                };
                let resource = naga::ResourceBinding {
                    group: 0,
                    binding: binding.into(),
                };
                (resource, target)
            };
            msl::EntryPointResources {
                resources: sizes.iter().map(bind).collect(),
                immediates_buffer: Some(2),
                sizes_buffer: Some(3),
            }
        };
        let entry_points = module.entry_points.iter();
        let options = msl::Options {
            // From 2.1 on (macOS 10.14) the source says how many threads a group has, so that a
            // pipeline takes that many.
            lang_version: (2, 1),
            per_entry_point_map: entry_points
                .map(|entry| (entry.name.clone(), resources(&[0, 1])))
                .collect(),
            fake_missing_bindings: false,
            ..msl::Options::default()
        };
        let (text, _) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .expect("the kernels are valid");
        // What src/testing/metal/kernels.rs gives each kernel. More would be read past the end on a
        // GPU, without an error.
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("    uint size"), 3, "bindings without a length");
        assert_eq!(count("\n, threadgroup "), 1, "threadgroup memory");
        text
    }
}
