// Assembles a kernel's text by NVIDIA's ptxas. Used by build.rs where `PTXAS` names one, and by the tests.

use std::path::Path;
use std::process::Command;

/// The machine code of `text` for `target`, an ELF file; `folder` keeps what is written on the way, under `name`. Errors with the
/// assembler's words.
pub fn assemble(ptxas: &str, text: &str, target: &str, folder: &Path, name: &str) -> Result<Vec<u8>, String> {
    let [source, cubin] = ["ptx", "cubin"].map(|kind| folder.join(format!("{name}.{kind}")));
    std::fs::write(&source, text).map_err(|e| format!("{}: {e}", source.display()))?;
    let done = Command::new(ptxas).arg(format!("-arch={target}")).arg("-o").arg(&cubin).arg(&source).output();
    let done = done.map_err(|e| format!("{ptxas}: {e}"))?;
    if !done.status.success() {
        let said = [done.stderr, done.stdout].concat();
        return Err(format!("{name} is not assembled by {ptxas}: {}", String::from_utf8_lossy(&said).trim()));
    }
    std::fs::read(&cubin).map_err(|e| format!("{}: {e}", cubin.display()))
}
