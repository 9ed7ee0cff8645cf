//! Tests of [`super`] against a wrapper that is played by a thread: honest, hostile, or gone.

use std::os::unix::net::UnixStream;

use super::*;
use crate::domain::{
    recipe::{CopyItem, Destination, Owner, Parents},
    tree::{Entry, TreePath},
    value::Digest,
};
use crate::shell::layer_index::index_bytes;

const ENOUGH: Allowance = Allowance { bytes: 1 << 20, entries: 1000 };

fn output() -> Output {
    let destination = Destination { path: "/app".parse().unwrap(), directory: false };
    let owner = Some(Owner::default());
    let item = CopyItem {
        source: "/app".into(),
        destination,
        mode: None,
        owner,
        exclude: Vec::new(),
        parents: None,
        docker: None,
    };
    Output::copies(vec![item], Parents::All)
}

fn of(path: &str, kind: Kind) -> Entry {
    let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { 0o755 };
    Entry { path: TreePath::new(path).unwrap(), kind, mode, owner: Owner::default() }
}

/// Runs `pack` against `wrapper`, which gets the channel after it was asked for the output.
fn pack_from(
    allowance: Allowance,
    threads: usize,
    wrapper: impl FnOnce(&mut Channel) + Send + 'static,
) -> (Result<Packed, PackError>, Vec<u8>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let wrapper = std::thread::spawn(move || {
        let mut channel = Channel::new(theirs);
        assert_eq!(channel.receive().unwrap(), Frame::SendOutput(0));
        wrapper(&mut channel);
    });
    let mut channel = Channel::new(ours);
    let mut sink = Vec::new();
    let result = pack(&mut channel, (0, &output()), allowance, threads, &mut sink);
    drop(channel);
    wrapper.join().unwrap();
    (result, sink)
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new());
    for (entry, bytes) in entries {
        writer.entry(entry).unwrap();
        writer.content(bytes).unwrap();
    }
    writer.finish().unwrap().1
}

fn send(bytes: &[u8]) -> impl FnOnce(&mut Channel) + Send + 'static {
    let bytes = bytes.to_vec();
    move |channel| {
        let mut writer = channel.data_writer();
        // The agent may hang up in the middle of what it refuses.
        let _ = writer.write_all(&bytes).map(|()| writer.finish());
    }
}

fn honest() -> Vec<u8> {
    let big = vec![7; 700_000];
    archive(&[
        (of("app", Kind::Directory), vec![]),
        (of("app/big", Kind::File(700_000)), big),
        (of("app/link", Kind::HardLink(TreePath::new("app/big").unwrap())), vec![]),
        (of("app/target", Kind::Symlink(b"/etc".to_vec())), vec![]),
    ])
}

#[test]
fn an_honest_output_becomes_the_same_layer_with_any_number_of_threads() {
    let (packed, blob) = pack_from(ENOUGH, 1, send(&honest()));
    let packed = packed.unwrap();
    assert_eq!(packed.layer.digest, Digest::of(&blob));
    assert_eq!(packed.layer.compressed_size, blob.len() as u64);
    assert_eq!(packed.layer.diff_id, Digest::of(&honest()), "an honest archive is the layer already");
    assert_eq!((packed.report.file_count, packed.report.size, packed.used), (2, 700_000, 700_000 + 4 * 512));
    assert_eq!(packed.index, Some(index_bytes(io::Cursor::new(blob)).unwrap().into_bytes()), "what its files say");
    assert_eq!(pack_from(ENOUGH, 3, send(&honest())).0.unwrap(), packed);
}

#[test]
fn a_wrapper_that_dies_is_told_from_a_complete_output() {
    let bytes = honest();
    for length in [0, 100, 100_000, bytes.len()] {
        let part = bytes[..length].to_vec();
        let (result, _) = pack_from(ENOUGH, 1, move |channel| {
            channel.data_writer().write_all(&part).unwrap();
        });
        assert!(matches!(result, Err(PackError::Socket(SocketError::Gone(_)))), "{length}: {result:?}");
    }
}

#[test]
fn an_endless_stream_is_cut() {
    let endless = Allowance { bytes: 5000, entries: 10 };
    let (result, _) = pack_from(endless, 1, send(&honest()));
    assert!(matches!(result, Err(PackError::Intake(IntakeError::TooLarge))));
    let (result, _) = pack_from(ENOUGH, 1, |channel| {
        let mut writer = channel.data_writer();
        let mut tar = LayerWriter::new(&mut writer);
        for number in 0_u64.. {
            let name = format!("app/{number:020}");
            if tar.entry(&of(&name, Kind::File(0))).is_err() {
                return;
            }
        }
    });
    assert!(matches!(result, Err(PackError::Intake(IntakeError::TooMany(1000)))));
}

#[test]
fn what_is_behind_the_archive_is_refused() {
    let (result, _) = pack_from(ENOUGH, 1, send(&[honest(), vec![0]].concat()));
    assert!(matches!(result, Err(PackError::Archive(LayerError::Trailing))));
}

#[test]
fn undeclared_files_are_refused() {
    let (result, _) = pack_from(ENOUGH, 1, send(&archive(&[(of("etc/passwd", Kind::File(0)), vec![])])));
    assert!(matches!(result, Err(PackError::Intake(IntakeError::Undeclared(_)))));
}

#[test]
fn a_failure_of_the_wrapper_is_passed_on_and_other_frames_are_refused() {
    let missing = WrapperFailure::Missing { path: "/app".into(), nearby: vec![] };
    let sent = missing.clone();
    let (result, _) = pack_from(ENOUGH, 1, move |channel| channel.send(&Frame::Failed(sent)).unwrap());
    assert!(matches!(result, Err(PackError::Refused(failure)) if failure == missing));
    let (result, _) = pack_from(ENOUGH, 1, |channel| channel.send(&Frame::Done).unwrap());
    assert!(matches!(result, Err(PackError::Socket(SocketError::Unexpected(_)))));
}

#[test]
fn a_sink_that_fails_is_an_error_of_ours() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let wrapper = std::thread::spawn(move || send(&honest())(&mut Channel::new(theirs)));
    let mut channel = Channel::new(ours);
    let result = pack(&mut channel, (0, &output()), ENOUGH, 1, Broken);
    assert!(matches!(result, Err(PackError::Write(_))));
    drop(channel);
    wrapper.join().unwrap();
}
