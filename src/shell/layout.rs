//! Images on the disk, for other tools: OCI image layouts, as directories and archives, and what `docker load` takes.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::NamedTempFile;

use crate::domain::{
    media_type,
    value::{Descriptor, Digest},
};

/// A version and nothing else (OCI image-spec, image-layout.md).
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image whose blobs are files.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config's digest.
    pub config: Digest,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// `repository:tag`, all that the image has.
    pub names: Vec<String>,
    /// Where each blob is.
    pub blobs: Vec<(Digest, PathBuf)>,
}

impl StoredImage {
    /// Writes an OCI image layout into `directory`, which is made when missing; what is there of another image stays in
    /// its blobs, but the index names this image alone.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_layout(&self, directory: &Path) -> io::Result<()> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        for (digest, path) in &self.blobs {
            let place = blobs.join(digest.hex());
            if !place.exists() {
                put(&place, |file| io::copy(&mut File::open(path)?, file).map(|_| ()))?;
            }
        }
        put(&blobs.join(Digest::of(&self.manifest).hex()), |file| file.write_all(&self.manifest))?;
        put(&directory.join("oci-layout"), |file| file.write_all(LAYOUT))?;
        // Last: a reader that finds the index finds all that it names.
        put(&directory.join("index.json"), |file| file.write_all(&self.index()))
    }

    /// Writes the same as one tar file.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_archive(&self, path: &Path) -> io::Result<()> {
        put(path, |file| {
            let mut archive = tar::Builder::new(io::BufWriter::new(file));
            append(&mut archive, "oci-layout", LAYOUT)?;
            append(&mut archive, "index.json", &self.index())?;
            for (digest, path) in &self.blobs {
                append_file(&mut archive, &format!("blobs/sha256/{}", digest.hex()), path)?;
            }
            let name = format!("blobs/sha256/{}", Digest::of(&self.manifest).hex());
            append(&mut archive, &name, &self.manifest)?;
            archive.into_inner()?.flush()
        })
    }

    /// Writes what `docker save` would; layers stay compressed, which `docker load`, podman and skopeo take.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_docker_archive(&self, path: &Path) -> io::Result<()> {
        let layer = |digest: &Digest| format!("{}.tar.gz", digest.hex());
        let config = format!("{}.json", self.config.hex());
        let layers: Vec<_> = self.layers.iter().map(|descriptor| layer(&descriptor.digest)).collect();
        let manifest = json!([{"Config": config, "RepoTags": self.names, "Layers": layers}]).to_string();
        put(path, |file| {
            let mut archive = tar::Builder::new(io::BufWriter::new(file));
            for (digest, path) in &self.blobs {
                let name = if *digest == self.config { config.clone() } else { layer(digest) };
                append_file(&mut archive, &name, path)?;
            }
            append(&mut archive, "manifest.json", manifest.as_bytes())?;
            archive.into_inner()?.flush()
        })
    }

    fn index(&self) -> Vec<u8> {
        let descriptor = json!({
            "mediaType": media_type::MANIFEST,
            "digest": Digest::of(&self.manifest),
            "size": self.manifest.len(),
        });
        let named = |name: &String| {
            let tag = name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag);
            let mut descriptor = descriptor.clone();
            if let Some(fields) = descriptor.as_object_mut() {
                // The two keys that tools look for: skopeo and podman the first, containerd the second.
                let annotations = json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name});
                fields.insert("annotations".into(), annotations);
            }
            descriptor
        };
        let manifests: Vec<_> = self.names.iter().map(named).collect();
        json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string().into_bytes()
    }
}

/// Written beside its place and renamed, so that nobody ever sees half of it.
fn put(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(above)?;
    fill(file.as_file_mut())?;
    // Made for its owner alone; this is for whoever may read the directory.
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(bytes.len() as u64), name, bytes)
}

fn append_file(archive: &mut tar::Builder<impl Write>, name: &str, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    archive.append_data(&mut header(file.metadata()?.len()), name, file)
}

/// The same image gives the same file.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use serde_json::Value;

    use super::*;

    fn image(directory: &Path) -> StoredImage {
        let blobs = [b"layer".to_vec(), b"config".to_vec()].map(|bytes| {
            let digest = Digest::of(&bytes);
            let path = directory.join(digest.hex());
            fs::write(&path, bytes).unwrap();
            (digest, path)
        });
        let layer = Descriptor { media_type: media_type::LAYER.into(), digest: blobs[0].0, size: 5 };
        StoredImage {
            manifest: b"{}".to_vec(),
            config: blobs[1].0,
            layers: vec![layer.clone(), layer],
            names: vec!["example.com/app:a".into(), "example.com/app:b".into()],
            blobs: blobs.to_vec(),
        }
    }

    fn files(archive: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(archive).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn directory_and_archive_are_the_same_layout() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let image = image(directory.path());
        image.write_layout(&at("layout")).unwrap();
        image.write_layout(&at("layout")).unwrap();
        image.write_archive(&at("archive")).unwrap();
        for (name, bytes) in files(&at("archive")) {
            assert_eq!(fs::read(at("layout").join(&name)).unwrap(), bytes, "{name}");
        }
        let index: Value = serde_json::from_slice(&fs::read(at("layout/index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"], "b");
        assert_eq!(index["manifests"][0]["digest"], Digest::of(b"{}").to_string());
        assert_eq!(fs::read_dir(at("layout/blobs/sha256")).unwrap().count(), 3);
    }

    #[test]
    fn a_docker_archive_names_what_it_holds_and_is_the_same_twice() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let image = image(directory.path());
        image.write_docker_archive(&at("one")).unwrap();
        image.write_docker_archive(&at("two")).unwrap();
        assert_eq!(fs::read(at("one")).unwrap(), fs::read(at("two")).unwrap());
        let files = files(&at("one"));
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["example.com/app:a", "example.com/app:b"]));
        assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(files[manifest[0]["Config"].as_str().unwrap()], b"config");
        assert_eq!(files[manifest[0]["Layers"][0].as_str().unwrap()], b"layer");
    }
}
