//! `package`: this program as an image from scratch, by our own layer writer, assembly and registry client.

use std::fs;

use anyhow::Context as _;
use bytes::Bytes;

use crate::{
    cli::PackageArgs,
    cmd::{build::keychain, operator::registries},
    domain::{
        files_layer::{PackedLayer, pack_tree},
        image::{self, ImageConfig, SourcedLayer},
        media_type,
        recipe::{Owner, Parents},
        task::Network,
        tree::{Attributes, Content, FileTree, TreePath},
        value::{Platform, Reference},
    },
    shell::registry::Registry,
};

/// Where the image holds the program; build Pods rely on it.
const PROGRAM: &str = "minimalimage";
/// The user that the operator and the agent run as unless the platform says otherwise.
const USER: &str = "65532:65532";

/// Packs, pushes and prints the image's reference by digest.
///
/// # Errors
/// When the binary cannot be read or the registry does not take the image.
pub async fn run(args: PackageArgs) -> anyhow::Result<()> {
    let reference: Reference = args.reference.parse()?;
    let path = args.binary.map_or_else(std::env::current_exe, Ok).context("failed to find this program")?;
    let binary = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let PackedLayer { bytes, layer, .. } = pack(&binary)?;
    let config = ImageConfig {
        entrypoint: Some(vec![format!("/{PROGRAM}")]),
        user: Some(USER.into()),
        labels: [("org.opencontainers.image.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        ..ImageConfig::default()
    };
    let layers = [SourcedLayer { layer, from: "minimalimage".into() }];
    let image = image::assemble(None, &layers, &config, &Platform::linux("amd64"))?;
    let network = Network { registries: registries(args.registries_file.as_deref())?, ..Network::default() };
    let repository = reference.repository();
    let client = Registry::new(&network)?.with(keychain(&[repository]).await?);
    client.push_bytes(repository, Bytes::from(bytes)).await?;
    client.push_bytes(repository, Bytes::from(image.config)).await?;
    client.push_manifest(&reference, media_type::MANIFEST, Bytes::from(image.manifest)).await?;
    println!("{}", repository.pinned(image.digest));
    Ok(())
}

fn pack(binary: &[u8]) -> anyhow::Result<PackedLayer> {
    let mut tree = FileTree::new(Parents::All);
    let attributes = Attributes { mode: 0o755, owner: Owner::default() };
    let size = binary.len() as u64;
    tree.insert(TreePath::new(PROGRAM)?, attributes, Content::File { size, inode: None, source: binary })?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(pack_tree(&tree, threads)?)
}
