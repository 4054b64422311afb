//! Libraries made from C, to stand in libcuda's place.

use std::process::Command;

use tempfile::TempDir;

/// A folder with a libcuda.so, which calls itself so; `None` without a C compiler.
pub fn library(code: &str, arguments: &[&str]) -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("fake.c");
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-w", "-Wl,-soname,libcuda.so", "-o"]).arg(folder.path().join("libcuda.so"));
    match compiler.args(arguments).arg(&source).status() {
        Ok(status) => assert!(status.success(), "the fake library compiles"),
        Err(_) => {
            println!("SKIP libraries in libcuda's place: there is no C compiler");
            return None;
        }
    }
    Some(folder)
}
