//! The models in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files by the model's name and version.
pub(super) type Files = BTreeMap<String, BTreeMap<u64, PathBuf>>;

/// Finds `NAME/VERSION/model.onnx`, `NAME/model.onnx` and `NAME.onnx`; the last two are version 1. Where several say the same, the first of
/// these counts. Errors when the folder cannot be read.
pub(super) fn scan(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for path in entries(folder)? {
        let name = |text: Option<&std::ffi::OsStr>| text.and_then(|t| t.to_str()).map(str::to_string);
        if path.is_dir() {
            let Some(name) = name(path.file_name()) else { continue };
            for (version, file) in versions(&path) {
                files.entry(name.clone()).or_default().entry(version).or_insert(file);
            }
        } else if path.extension().is_some_and(|e| e == "onnx") {
            let Some(name) = name(path.file_stem()) else { continue };
            files.entry(name).or_default().entry(1).or_insert(path);
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |e: std::io::Error| Error::File { path: folder.display().to_string(), why: e.to_string() };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).map_err(wrong)?.flatten().map(|e| e.path()).collect();
    // Folders before files of the same name.
    paths.sort();
    Ok(paths)
}

fn versions(model: &Path) -> Vec<(u64, PathBuf)> {
    let numbered = |path: PathBuf| {
        let version: u64 = path.file_name()?.to_str()?.parse().ok()?;
        Some((version, path.join("model.onnx")))
    };
    let own = (1, model.join("model.onnx"));
    let all = entries(model).unwrap_or_default().into_iter().filter_map(numbered).chain([own]);
    all.filter(|(_, file)| file.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_lie_in_files_folders_and_versions() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let files = ["a.onnx", "b/model.onnx", "c/2/model.onnx", "c/10/model.onnx", "b.onnx", "d/x/model.onnx", "e.txt"];
        files.into_iter().for_each(put);
        let found = scan(folder.path()).unwrap();
        let names: Vec<(&str, Vec<u64>)> = found.iter().map(|(n, v)| (n.as_str(), v.keys().copied().collect())).collect();
        assert_eq!(names, [("a", vec![1]), ("b", vec![1]), ("c", vec![2, 10])]);
        assert!(found["b"][&1].ends_with("b/model.onnx"));
        assert!(scan(Path::new("no such folder")).is_err());
    }
}
