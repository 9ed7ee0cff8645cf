//! The debug image: an image with a shell and tools on top, under tags of its own, to look around where the image has none.

use super::{
    artifact::Layer,
    image::{AssembleError, BaseImage, Image, ImageConfig, RuntimeConfig, SourcedLayer, USUAL_PATH, assemble},
    value::{ParseReferenceError, Platform, Reference},
};

/// The package that has the program.
pub const PACKAGE: &str = "busybox-static";
/// Those that cannot be beside it.
pub const RIVALS: [&str; 2] = [PACKAGE, "busybox"];
/// Where that has it, and where it gets.
pub const PROGRAM: (&str, &str) = ("usr/bin/busybox", "busybox/busybox");
/// What a layer of it is said to come from.
const ORIGIN: &str = "debug";
/// Where the tools are, without a leading `/`; at the end of PATH: the image's own come first.
const DIRECTORY: &str = "busybox";
const SUFFIX: &str = "-debug";

/// What busybox is linked as: what Debian 12's and 13's can do of what somebody wants who looks around.
const APPLETS: &str = "[ [[ ar arp ash awk base64 basename bc bunzip2 bzcat bzip2 cal cat chgrp chmod chown clear cmp cp cpio cut date dc dd \
    df diff dirname dmesg dos2unix du echo ed egrep env expand expr factor fallocate false fgrep find fold free getopt \
    grep groups gunzip gzip head hexdump hostid hostname id ifconfig ip ipcalc kill killall less link ln logger logname ls \
    lzcat lzma md5sum mkdir mkfifo mknod mktemp more mv nc netstat nl nproc nslookup od paste patch pidof ping ping6 \
    printf ps pwd readlink realpath renice reset rev rm rmdir route run-parts sed seq setpriv setsid sh sha1sum sha256sum \
    sha3sum sha512sum shred shuf sleep sort ssl_client stat strings stty sync tac tail tar taskset tee telnet test time \
    timeout top touch tr traceroute traceroute6 true truncate ts tty uname unexpand uniq unix2dos unlink unlzma unshare \
    unxz unzip uptime usleep uudecode uuencode vi watch wc wget which whoami xargs xxd xz xzcat yes zcat";

/// The links beside the program: paths without a leading `/`.
pub fn links() -> impl Iterator<Item = String> {
    APPLETS.split_ascii_whitespace().map(|name| format!("{DIRECTORY}/{name}"))
}

/// The tag beside `tag`.
///
/// # Errors
/// When it is too long.
pub fn tag(tag: &Reference) -> Result<Reference, ParseReferenceError> {
    tag.repository().tagged(&format!("{}{SUFFIX}", tag.tag().unwrap_or_default()))
}

/// The first of `tags` that is what the debug image of another gets, by its index, and what is wrong with it.
pub fn clash<'a>(tags: impl Iterator<Item = &'a str>) -> Option<(usize, String)> {
    let tags: Vec<&str> = tags.collect();
    let is_anothers = |tag: &str| tag.strip_suffix(SUFFIX).is_some_and(|of| tags.contains(&of));
    let (index, tag) = tags.iter().enumerate().find(|(_, tag)| is_anothers(tag))?;
    Some((index, format!("{tag} is what the debug image of another tag gets: leave it out, or image.debug")))
}

/// Puts `tools` onto the finished `image`, which was made of `base`, `layers` and `config`.
///
/// # Errors
/// As for [`assemble`].
pub fn image(
    base: Option<&BaseImage>,
    (image, layers): (&Image, &[SourcedLayer]),
    tools: &SourcedLayer,
    config: &ImageConfig,
    platform: &Platform,
) -> Result<Image, AssembleError> {
    let layers = [layers, std::slice::from_ref(tools)].concat();
    assemble(base, &layers, &with_tools(image, config), platform)
}

/// What the layer of the tools is, for [`image`].
#[must_use]
pub fn tools(layer: Layer) -> SourcedLayer {
    SourcedLayer { layer, from: ORIGIN.to_owned() }
}

/// `config` with the tools on the PATH that `image` has by it.
fn with_tools(image: &Image, config: &ImageConfig) -> ImageConfig {
    let below = RuntimeConfig::parse(&image.config);
    let path = below.variable("PATH").unwrap_or(USUAL_PATH);
    let own = config.env.iter().filter(|(name, _)| name != "PATH").cloned();
    let env = own.chain([("PATH".to_owned(), format!("{path}:/{DIRECTORY}"))]).collect();
    ImageConfig { env, ..config.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn variables(own: &[(&str, &str)]) -> Vec<(String, String)> {
        let env = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let image = ImageConfig { env, ..ImageConfig::default() };
        let assembled = assemble(None, &[], &image, &Platform::linux("amd64")).unwrap();
        with_tools(&assembled, &image).env
    }

    #[test]
    fn tools_are_found_last() {
        let path = |value: &str| ("PATH".to_owned(), value.to_owned());
        assert_eq!(variables(&[]), [path(&format!("{USUAL_PATH}:/busybox"))]);
        assert_eq!(
            variables(&[("PATH", "/app/bin"), ("A", "b")]),
            [("A".into(), "b".into()), path("/app/bin:/busybox")]
        );
    }

    #[test]
    fn each_tag_has_one_of_its_own() {
        let reference = |tag: &str| format!("registry.example.com/app:{tag}").parse::<Reference>().unwrap();
        assert_eq!(tag(&reference("v1")).unwrap(), reference("v1-debug"));
        assert!(tag(&reference(&"v".repeat(123))).is_err(), "128 characters are the most");
        let (index, message) = clash(["v1", "v1-debug", "x-debug"].into_iter()).unwrap();
        assert_eq!((index, message.split(' ').next()), (1, Some("v1-debug")));
        assert_eq!(clash(["v1-debug", "x-debug"].into_iter()), None);
    }

    #[test]
    fn no_tool_is_linked_twice_and_the_shell_is_among_them() {
        let all: Vec<String> = links().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.contains(&"busybox/sh".to_owned()) && !all.contains(&PROGRAM.1.to_owned()));
    }
}
