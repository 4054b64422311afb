//! A module's text as a pipeline.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, Device, PipelineCompilationOptions, PipelineLayoutDescriptor, ShaderModuleDescriptor,
    ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

use super::compiled::Compiled;
use super::driver::Checks;
use super::fault::Faults;
use crate::device::gpu::{Binding, Complete};
use crate::error::Result;

/// A shader that can be dispatched.
pub struct Pipeline {
    /// The kernel's name.
    pub name: &'static str,
    /// The code.
    pub compute: ComputePipeline,
    /// Of its only bind group.
    pub layout: BindGroupLayout,
    /// Words of the uniform block of binding 0.
    pub words: usize,
    /// The storage bindings from 1 on.
    pub bindings: Vec<Binding>,
}

/// Makes pipelines.
pub struct Compiler {
    pub device: Device,
    pub faults: Faults,
    pub checks: Checks,
    /// What is kept between processes.
    pub compiled: Option<Compiled>,
}

impl Compiler {
    /// Compiles a text. Errors with the compiler's words.
    pub fn pipeline(&self, name: &'static str, shader: Complete) -> Result<Pipeline> {
        let Complete { text, words, bindings } = shader;
        let said = |what: &str| self.faults.error(format!("{name}: {what}"));
        let most = self.device.limits().max_storage_buffers_per_shader_stage as usize;
        if bindings.len() > most {
            return Err(said(&format!("{} operands, the adapter binds {most}", bindings.len())));
        }
        // A bug of the compiler panics; the process must live on.
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile(name, &text, &bindings)));
        let (layout, compute) = compiled.map_err(|_| said("the shader compiler panicked"))?;
        self.faults.check().map_err(|e| said(&e.to_string()))?;
        Ok(Pipeline { name, compute, layout, words, bindings })
    }

    fn compile(&self, name: &str, text: &str, bindings: &[Binding]) -> (BindGroupLayout, ComputePipeline) {
        let description = ShaderModuleDescriptor { label: Some(name), source: ShaderSource::Wgsl(text.into()) };
        let module = match self.checks {
            Checks::Bounds => self.device.create_shader_module(description),
            // SAFETY: launches are checked against their operands when they are recorded, and our shaders index within what their
            // arguments say; tests run all of them with checks too.
            Checks::None => unsafe { self.device.create_shader_module_trusted(description, ShaderRuntimeChecks::unchecked()) },
        };
        // Arguments lie at an offset that each dispatch names, so that dispatches of the same buffers share a bind group.
        let entry = |binding: usize, ty: BufferBindingType| BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer { ty, has_dynamic_offset: ty == BufferBindingType::Uniform, min_binding_size: None },
            count: None,
        };
        let storage = |(i, b): (usize, &Binding)| entry(i + 1, BufferBindingType::Storage { read_only: b.is_constant });
        let uniform = entry(0, BufferBindingType::Uniform);
        let entries: Vec<_> = std::iter::once(uniform).chain(bindings.iter().enumerate().map(storage)).collect();
        let layout = self.device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let whole = self.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let compute = self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&whole),
            module: &module,
            entry_point: Some("main"),
            // Kernels write shared memory before they read it.
            compilation_options: PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() },
            cache: self.compiled.as_ref().map(Compiled::used),
        });
        (layout, compute)
    }
}
