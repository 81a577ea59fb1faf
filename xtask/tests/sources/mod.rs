//! The files of the repository, for tests about them.
#![allow(dead_code, reason = "each test program uses a part of this module")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that builds and `cargo xtask up` make.
const BUILT: [&str; 4] = ["target", ".git", ".data", "node_modules"];

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder")
}

/// All files below a folder with this ending, as paths relative to the project's folder.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && !BUILT.iter().any(|built| name == *built) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path.strip_prefix(root()).expect("below the project's folder").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text of a file of the project.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
