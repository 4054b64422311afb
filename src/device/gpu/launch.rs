//! A launch as plain data.

use std::sync::Arc;

use super::finish::Finish;
use super::ptx::splice;
use super::variant::Variant;
use super::wgsl::Shader;
use crate::base::{DType, Tensor};
use crate::graph::Type;
use crate::scalar::arg;

/// Where bytes lie, before addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// Input `.0` of the command, and so many bytes on.
    Input(usize, u64),
    /// Output `.0` of the command, and so many bytes on.
    Output(usize, u64),
    /// Part `.0` of what was prepared, and so many bytes on.
    Packed(usize, u64),
    /// A byte of the command's scratch.
    Scratch(u64),
    /// The command's status (u32): 0 before a run. A kernel that meets input for which the CPU gives an error stores 1 there,
    /// and the run ends with an error.
    Status,
    /// The null address.
    Null,
}

impl Pointer {
    /// So many bytes further on; null stays null.
    pub fn after(self, bytes: usize) -> Pointer {
        let bytes = bytes as u64;
        match self {
            Pointer::Input(i, at) => Pointer::Input(i, at + bytes),
            Pointer::Output(i, at) => Pointer::Output(i, at + bytes),
            Pointer::Packed(i, at) => Pointer::Packed(i, at + bytes),
            Pointer::Scratch(at) => Pointer::Scratch(at + bytes),
            Pointer::Status | Pointer::Null => self,
        }
    }
}

/// Element type of a tensor map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Element {
    U8,
    F16,
    BF16,
    F32,
}

impl Element {
    /// Size of one.
    pub fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F16 | Element::BF16 => 2,
            Element::F32 => 4,
        }
    }
}

/// How the tensor memory accelerator sees a tensor. Elements beyond its extents read as 0 and are not written.
/// Source: CUDA driver API, cuTensorMapEncodeTiled.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorMap {
    /// Of the first element; a multiple of 16 bytes.
    pub base: Pointer,
    /// Element type.
    pub element: Element,
    /// Extents, innermost first.
    pub dims: Vec<u64>,
    /// Bytes from one to the next of each dimension but the innermost: multiples of 16.
    pub strides: Vec<u64>,
    /// Extents of a box.
    pub extents: Vec<u32>,
    /// Span of the swizzle in bytes: 0, 32, 64 or 128.
    pub swizzle_bytes: u32,
}

/// A kernel's argument.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Arg {
    U32(u32),
    F32(f32),
    U64(u64),
    Pointer(Pointer),
    /// The address of these bytes on the device, where they are kept as long as the recording.
    Table(Tensor),
    Map(TensorMap),
    /// One parameter made of these, one after the other.
    Block(Vec<Arg>),
}

/// The text to run: a variant, and what is to be done where it has slots for formulas.
#[derive(Debug, Clone)]
pub struct Module {
    /// The text with its slots.
    pub variant: &'static Variant,
    /// Fills the slots.
    pub finish: Option<Arc<Finish>>,
    /// Which of the pointers, in order, are to constants, of a device that makes a difference between them and what kernels write.
    pub constants: u64,
}

impl Module {
    /// The variant with its values stored as they are, as it can be loaded without a problem.
    pub fn plain(variant: &'static Variant) -> crate::Result<Module> {
        let value = match variant.value {
            "s32" => DType::I32,
            "s64" => DType::I64,
            "f64" => DType::F64,
            _ => DType::F32,
        };
        let has = |slot: &str| variant.text.contains(slot);
        let out = Type::new(if has("//@apply2") { DType::F16 } else { DType::F32 }, [64, 64]);
        let is_finished = has("//@") || variant.text.is_empty() && Shader::named(variant.name).is_some_and(Shader::is_finished);
        let finish = match is_finished {
            true if has("//@store -") || has("//@vector") => Some(Finish::new(None, &arg(0), std::slice::from_ref(&out), &out)?),
            true if has("//@load") => Some(Finish::new(Some(value), &arg(0), &[], &out)?.reading(DType::F32)),
            true => Some(Finish::new(Some(value), &arg(0), &[], &out)?),
            false if Shader::named(variant.name).is_some_and(|s| variant.text.is_empty() && s.text.contains("store")) => {
                Some(Finish::new(Some(value), &arg(0), &[], &out)?)
            }
            false => None,
        };
        Ok(Module { variant, finish: finish.map(Arc::new), constants: 0 })
    }

    /// Equal for equal texts.
    pub fn key(&self) -> String {
        format!("{} {} {}", self.variant.name, self.constants, self.finish.as_ref().map_or("", |f| f.signature()))
    }

    /// The text with its slots filled.
    pub fn text(&self) -> crate::Result<String> {
        self.fill(self.variant.text)
    }

    /// `text` with its slots filled. Errors when it has slots and nothing fills them.
    pub fn fill(&self, text: &str) -> crate::Result<String> {
        splice(text, self.finish.as_deref(), self.variant.sm())
    }
}

/// One launch.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What to run.
    pub module: Module,
    /// Blocks.
    pub grid: [u32; 3],
    /// Arguments in the entry's order.
    pub args: Vec<Arg>,
}

impl Launch {
    /// A launch of the variant of this name, without formula.
    pub fn new(variant: &'static Variant, grid: [u32; 3], args: Vec<Arg>) -> Launch {
        Launch { module: Module { variant, finish: None, constants: 0 }, grid, args }
    }

    /// With its slots filled; `finish`'s own argument is the last one.
    pub fn finished(mut self, finish: &Arc<Finish>, out: Pointer, operands: &[Pointer]) -> Launch {
        self.args.push(finish.argument(out, operands));
        self.module.finish = Some(finish.clone());
        self
    }
}
