//! A folder that is gone when the demo is.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A folder that nobody else may look into; removed with all that is in it when this is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it where temporary files go, named after the process.
    pub fn make() -> anyhow::Result<Folder> {
        let path = std::env::temp_dir().join(format!("keyrelay-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
