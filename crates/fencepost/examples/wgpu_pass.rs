//! Times a compute pass of wgpu, and awaits it under tokio while other tasks go on. No thread
//! polls the device.
//!
//!     cargo run --release -p fencepost --features wgpu30 --example wgpu_pass

use fencepost::wgpu30::{self, PassTimes};
use wgpu::{BufferUsages, Features};

/// How many steps each number takes to reach 1. None up to 113,382 leaves 32 bits on its way.
const SHADER: &str = "
    @group(0) @binding(0) var<storage, read_write> steps: array<u32>;

    @compute @workgroup_size(64)
    fn collatz(@builtin(global_invocation_id) id: vec3<u32>) {
        var number = id.x + 1u;
        var count = 0u;
        while (number != 1u) {
            number = select(3u * number + 1u, number / 2u, number % 2u == 0u);
            count += 1u;
        }
        steps[id.x] = count;
    }";
const NUMBERS: u32 = 1 << 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What your program has already. Times take a feature.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance
        .request_adapter(&wgpu::RequestAdapterOptions::default())
        .await?;
    let description = wgpu::DeviceDescriptor {
        required_features: Features::TIMESTAMP_QUERY,
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&description).await?;
    let (pipeline, bindings) = prepare(&device);

    let stream = wgpu30::stream(&device, &queue)?;
    let times = PassTimes::new(stream.device())?;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
        label: None,
        timestamp_writes: Some(times.compute()),
    });
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bindings, &[]);
    pass.dispatch_workgroups(NUMBERS / 64, 1, 1);
    drop(pass);
    let (start, end) = times.record_into(&mut encoder)?;
    queue.submit([encoder.finish()]);
    let (start, end) = (start.submitted(), end.submitted());

    // Other tasks run on this thread meanwhile.
    (&end).await?;
    let took = start.elapsed(&end)?;
    println!("{}: the pass took {took}", adapter.get_info().name);
    Ok(())
}

fn prepare(device: &wgpu::Device) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(SHADER.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let steps = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::from(NUMBERS) * 4,
        usage: BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry {
            binding: 0,
            resource: steps.as_entire_binding(),
        }],
    });
    (pipeline, bindings)
}
