//! `image.files` as a layer: small text files of the spec, packed here and now.

use std::io::Write as _;

use super::{
    artifact::OutputReport,
    gzip::ParallelGzip,
    layer::LayerWriter,
    plan::PlannedFile,
    recipe::Parents,
    tree::{Attributes, Conflict, Content, FileTree, TreePath, TreePathError},
};

/// Why files cannot be one layer.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path that a layer cannot hold.
    #[error("{path}: {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: TreePathError,
    },
    /// Two files where one's path is a directory of the other's.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Writing into memory failed.
    #[error("failed to pack: {0}")]
    Pack(#[from] std::io::Error),
}

/// The compressed layer that holds `files`, and what is in it.
///
/// # Errors
/// When the files cannot be together.
pub fn pack(files: &[PlannedFile], has_base: bool) -> Result<(Vec<u8>, OutputReport), FilesError> {
    let mut tree = FileTree::new(if has_base { Parents::Unusual } else { Parents::All });
    for file in files {
        let path = TreePath::new(file.path.relative())
            .map_err(|problem| FilesError::Path { path: file.path.to_string(), problem })?;
        let attributes = Attributes { mode: file.mode, owner: file.owner };
        let size = file.content.len() as u64;
        tree.insert(path, attributes, Content::File { size, inode: None, source: file.content.as_bytes() })?;
    }
    let mut writer = LayerWriter::new(ParallelGzip::new(Vec::new(), 1)?);
    for (entry, content) in tree.entries() {
        writer.entry(&entry)?;
        if let Some(content) = content {
            writer.content(content)?;
        }
    }
    let (report, mut gzip) = writer.finish()?;
    gzip.flush()?;
    Ok((gzip.finish()?, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recipe::Owner;

    fn file(path: &str, content: &str) -> PlannedFile {
        PlannedFile { path: path.parse().unwrap(), content: content.into(), mode: 0o644, owner: Owner::default() }
    }

    #[test]
    fn the_order_in_the_spec_does_not_matter() {
        let (a, b) = (file("/etc/a", "1"), file("/b", "22"));
        let (bytes, report) = pack(&[a.clone(), b.clone()], false).unwrap();
        assert_eq!(pack(&[b, a], false).unwrap().0, bytes);
        assert_eq!((report.file_count, report.size), (2, 3));
        assert_eq!(report.largest_files[0].path, "/b");
    }

    #[test]
    fn a_file_cannot_be_a_directory_too() {
        assert!(matches!(pack(&[file("/a", ""), file("/a/b", "")], false), Err(FilesError::Conflict(_))));
    }
}
