//! Layers of files that are at hand: `image.files` of a spec, our own program. Packed in memory.

use std::io::Write as _;

use super::{
    artifact::{Layer, OutputReport},
    gzip::ParallelGzip,
    layer::LayerWriter,
    media_type,
    recipe::{Parents, TextFile},
    tree::{Attributes, Conflict, Content, FileTree, TreePath, TreePathError},
    value::Digest,
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

/// A compressed layer in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// The blob.
    pub bytes: Vec<u8>,
    /// Its descriptor.
    pub layer: Layer,
    /// What it holds.
    pub report: OutputReport,
}

/// The layer that holds `files`.
///
/// # Errors
/// When the files cannot be together.
pub fn pack_files(files: &[TextFile], has_base: bool) -> Result<PackedLayer, FilesError> {
    let tree = tree(files, if has_base { Parents::Unusual } else { Parents::All })?;
    Ok(pack_tree(&tree, 1)?)
}

/// The archive that holds `files`, not compressed.
///
/// # Errors
/// When the files cannot be together.
pub fn archive(files: &[TextFile], parents: Parents) -> Result<Vec<u8>, FilesError> {
    let mut writer = LayerWriter::new(Vec::new());
    write(&tree(files, parents)?, &mut writer)?;
    Ok(writer.finish()?.1)
}

fn tree(files: &[TextFile], parents: Parents) -> Result<FileTree<&[u8]>, FilesError> {
    let mut tree = FileTree::new(parents);
    for file in files {
        let path = TreePath::new(file.path.relative())
            .map_err(|problem| FilesError::Path { path: file.path.to_string(), problem })?;
        let attributes = Attributes { mode: file.mode, owner: file.owner };
        let size = file.content.len() as u64;
        tree.insert(path, attributes, Content::File { size, inode: None, source: file.content.as_bytes() })?;
    }
    Ok(tree)
}

fn write(tree: &FileTree<&[u8]>, writer: &mut LayerWriter<impl std::io::Write>) -> std::io::Result<()> {
    for (entry, content) in tree.entries() {
        writer.entry(&entry)?;
        writer.content(content.copied().unwrap_or_default())?;
    }
    Ok(())
}

/// The layer that holds `tree`, compressed by so many threads; they do not change its bytes.
///
/// # Errors
/// When no thread can be started.
pub fn pack_tree(tree: &FileTree<&[u8]>, threads: usize) -> std::io::Result<PackedLayer> {
    let mut writer = LayerWriter::new(ParallelGzip::new(Vec::new(), threads)?);
    write(tree, &mut writer)?;
    let (report, mut gzip) = writer.finish()?;
    gzip.flush()?;
    let bytes = gzip.finish()?;
    let layer = Layer {
        media_type: media_type::LAYER.into(),
        digest: Digest::of(&bytes),
        compressed_size: bytes.len() as u64,
        diff_id: report.diff_id,
        size: report.size,
        index: None,
    };
    Ok(PackedLayer { bytes, layer, report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recipe::Owner;

    fn file(path: &str, content: &str) -> TextFile {
        TextFile { path: path.parse().unwrap(), content: content.into(), mode: 0o644, owner: Owner::default() }
    }

    #[test]
    fn the_order_in_the_spec_does_not_matter() {
        let (a, b) = (file("/etc/a", "1"), file("/b", "22"));
        let packed = pack_files(&[a.clone(), b.clone()], false).unwrap();
        assert_eq!(pack_files(&[b, a], false).unwrap(), packed);
        assert_eq!((packed.report.file_count, packed.report.size), (2, 3));
        assert_eq!(packed.report.largest_files[0].path, "/b");
    }

    #[test]
    fn a_file_cannot_be_a_directory_too() {
        assert!(matches!(pack_files(&[file("/a", ""), file("/a/b", "")], false), Err(FilesError::Conflict(_))));
    }
}
