//! What WGSL texts are completed with when they are loaded: bindings, access to arguments and elements, the functions that store.

mod element;
mod interface;
mod shader;
mod store;
mod text;

pub use interface::{Binding, HEADER_WORDS, Interface};
pub use shader::{Shader, shaders};
pub use text::{Complete, complete};
