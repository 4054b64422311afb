//! The kernels' texts, as build.rs rendered them.

use crate::hardware::Capabilities;

/// A kernel's text: one row of kernels/variants.toml.
pub struct Variant {
    /// Its entry's name.
    pub name: &'static str,
    /// The file in kernels/ that it was rendered from.
    pub template: &'static str,
    /// `.target`, e.g. `sm_80`; `wgsl` where there is no PTX.
    pub target: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// What the template varies in, as far as it is a number.
    pub numbers: &'static [(&'static str, u32)],
    /// Type of the values in its slots: f32, s32 or f64.
    pub value: &'static str,
    /// The module, with slots for formulas: see [`super::Module::text`].
    pub text: &'static str,
    /// Machine code of the text for its own target, where the build had an assembler (`PTXAS`) and the text has no slots.
    pub cubin: Option<&'static [u8]>,
}

static VARIANTS: &[Variant] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
/// Kernels that have no PTX.
static WGSL_ONLY: &[Variant] = include!(concat!(env!("OUT_DIR"), "/wgsl_only.rs"));

/// Every text.
pub fn variants() -> &'static [Variant] {
    VARIANTS
}

/// Changes with any kernel's text, of any language.
pub const TEXTS_HASH: &str = env!("HALFBYTE_TEXTS");

impl Variant {
    /// The text of this name. Names are those of kernels/variants.toml; a test sees that every kernel's variants are there.
    pub fn named(name: &str) -> &'static Variant {
        let mut all = VARIANTS.iter().chain(WGSL_ONLY);
        all.find(|v| v.name == name).expect("invariant: launches name rows of kernels/variants.toml or shaders/variants.toml")
    }

    /// A number that the template varies in.
    pub fn number(&self, name: &str) -> u32 {
        self.numbers.iter().find(|n| n.0 == name).expect("invariant: launches read numbers of their own rows").1
    }

    /// What a device must have to run it; `None` for a target that no tier stands for.
    pub fn needs(&self) -> Option<Capabilities> {
        Some(match self.target {
            "sm_61" => Capabilities::SM_61,
            "sm_75" => Capabilities::SM_75,
            "sm_80" => Capabilities::SM_80,
            "sm_90a" => Capabilities::SM_90A,
            _ => return None,
        })
    }

    /// The machine code, where there is some for a device of this compute capability.
    pub fn cubin_for(&self, capability: (u32, u32)) -> Option<&'static [u8]> {
        self.cubin.filter(|_| self.sm() == 10 * capability.0 + capability.1)
    }

    /// The architecture's number: 90 of sm_90a.
    pub fn sm(&self) -> u32 {
        self.target
            .trim_start_matches("sm_")
            .trim_end_matches('a')
            .parse()
            .expect("invariant: targets are of the list in kernels/render.rs")
    }
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variant({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_is_for_its_own_target_alone() {
        let of = |target, cubin| Variant {
            name: "kernel",
            template: "",
            target,
            threads: 32,
            shared_bytes: 0,
            numbers: &[],
            value: "f32",
            text: "",
            cubin,
        };
        let code: &[u8] = b"\x7fELF";
        for (target, own, other) in [("sm_61", (6, 1), (7, 5)), ("sm_80", (8, 0), (8, 6)), ("sm_90a", (9, 0), (10, 0))] {
            assert_eq!(of(target, Some(code)).cubin_for(own), Some(code));
            assert_eq!(of(target, Some(code)).cubin_for(other), None);
            assert_eq!(of(target, None).cubin_for(own), None);
        }
    }
}
