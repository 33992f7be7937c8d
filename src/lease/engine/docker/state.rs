//! Files of the engine's handle in the node's own directory.

use std::io::{self, Write as _};
use std::path::Path;

/// Replaces a file as a whole: readers see the old one or the new one, also after a power cut. Its folder is made where it is
/// missing.
pub(super) async fn replace(path: &Path, content: Vec<u8>) -> io::Result<()> {
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(folder)?.sync_all()
    });
    written.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}
