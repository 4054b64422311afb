//! The shaders' texts, as build.rs rendered them.

/// A shader's text: one row of shaders/variants.toml.
pub struct Shader {
    /// The kernel's name: that of the PTX text which takes the same arguments, where there is one.
    pub name: &'static str,
    /// The file in shaders/ that it was rendered from.
    pub template: &'static str,
    /// Threads of a workgroup.
    pub threads: u32,
    /// What the template varies in, as far as it is a number.
    pub numbers: &'static [(&'static str, u32)],
    /// The text without its bindings: see [`super::complete`].
    pub text: &'static str,
}

static SHADERS: &[Shader] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Every text.
pub fn shaders() -> &'static [Shader] {
    SHADERS
}

impl Shader {
    /// The text of this name.
    pub fn named(name: &str) -> Option<&'static Shader> {
        SHADERS.iter().find(|s| s.name == name)
    }

    /// Whether its last argument is [`crate::device::gpu::Finish::argument`].
    pub fn is_finished(&self) -> bool {
        self.text.lines().any(|l| l.starts_with("//@entry") && l.trim_end().ends_with("finish"))
    }
}
