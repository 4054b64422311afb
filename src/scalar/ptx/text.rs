//! Templates of PTX. `$d`, `$a`, `$b` and `$t` are filled in. A line that begins with `!` stands for more lines:
//! - `!exp32 d, a;` for the text of that function of [`super::math`], in a scope of its own;
//! - `!series NAME d, x;` for a power series in f64, by fused multiply-adds;
//! - `!polynomial NAME d, x;` for one of [`crate::scalar::cpu::math`]'s polynomials in f32, not fused.

use super::math;

/// A literal of exactly this value.
pub fn f32_literal(v: f32) -> String {
    format!("0f{:08X}", v.to_bits())
}

/// A literal of exactly this value.
pub fn f64_literal(v: f64) -> String {
    format!("0d{:016X}", v.to_bits())
}

/// The template for registers `[d, a, b]` and values of type `number`, one line each. Its own names get a prefix.
pub fn expand(template: &str, number: &str, registers: [&str; 3]) -> String {
    let own = template.replace("%hb_", "%").replace('%', "%hb_");
    fill(&own, number, registers)
}

fn fill(template: &str, number: &str, [d, a, b]: [&str; 3]) -> String {
    let mut text = String::new();
    for line in template.lines() {
        // One by one, since the registers put in may look like placeholders of no line but this.
        let line = line.trim().replace("$t", number).replace("$d", d).replace("$a", a).replace("$b", b);
        match line.strip_prefix('!') {
            Some(directive) => text += &directed(directive.trim_end_matches(';'), number),
            None if line.is_empty() => {}
            None => text += &format!("{line}\n"),
        }
    }
    text
}

fn directed(directive: &str, number: &str) -> String {
    let (name, rest) = directive.split_once(' ').unwrap_or((directive, ""));
    if name == "series" || name == "polynomial" {
        let (which, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (d, x) = rest.split_once(", ").unwrap_or((rest, ""));
        return if name == "series" {
            let literals = math::series(which).into_iter().map(f64_literal).collect();
            horner(literals, "mov.f64", &format!("fma.rn.f64 {d}, {d}, {x}, "), d)
        } else {
            let literals = math::polynomial(which).iter().copied().map(f32_literal).collect();
            horner(literals, "mov.f32", &format!("mul.rn.f32 {d}, {d}, {x}; add.rn.f32 {d}, {d}, "), d)
        };
    }
    let mut given = rest.split(", ");
    let mut next = || given.next().unwrap_or("");
    let registers = [next(), next(), next()];
    let own = math::function(name).replace('%', &format!("%hb_{name}_"));
    format!("{{ // {directive}\n{}}}\n", fill(&own, number, registers))
}

/// The highest coefficient first.
fn horner(coefficients: Vec<String>, first: &str, step: &str, d: &str) -> String {
    let mut text = String::new();
    for (i, c) in coefficients.iter().enumerate() {
        text += &if i == 0 { format!("{first} {d}, {c};\n") } else { format!("{step}{c};\n") };
    }
    text
}
