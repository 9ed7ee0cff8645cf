//! pkt-line framing (gitprotocol-common): four hex digits of length, then the bytes. Does not know what packets mean.

use bytes::{Bytes, BytesMut};

/// The largest packet that Git sends, with its length (pkt-line.h LARGE_PACKET_MAX).
const MAX_PACKET: usize = 65520;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section (protocol version 2).
    Delimiter,
    /// `0002`: the end of a stateless response (protocol version 2).
    ResponseEnd,
    /// The bytes without the length.
    Data(Bytes),
}

/// A length that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not in Git's packet format")]
pub struct PacketError;

/// Cuts a stream of bytes into packets; holds at most one unfinished packet beside the last piece pushed.
#[derive(Debug, Default)]
pub struct PacketReader {
    buffer: BytesMut,
}

impl PacketReader {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet; none until more is pushed.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PacketError> {
        let Some(head) = self.buffer.get(..4) else { return Ok(None) };
        if !head.iter().all(u8::is_ascii_hexdigit) {
            return Err(PacketError);
        }
        let head = std::str::from_utf8(head).map_err(|_| PacketError)?;
        let length = usize::from_str_radix(head, 16).map_err(|_| PacketError)?;
        let special = match length {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            2 => Packet::ResponseEnd,
            4..=MAX_PACKET if self.buffer.len() < length => return Ok(None),
            4..=MAX_PACKET => return Ok(Some(Packet::Data(self.buffer.split_to(length).split_off(4).freeze()))),
            _ => return Err(PacketError),
        };
        let _length = self.buffer.split_to(4);
        Ok(Some(special))
    }

    /// Whether the stream ended between two packets.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Appends `line` and a line break as one packet. Lines that we write are short.
pub(super) fn write_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(format!("{:04x}{line}\n", line.len() + 5).as_bytes());
}

/// A packet's text without its line break; none when it is not UTF-8.
pub(super) fn line(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data.strip_suffix(b"\n").unwrap_or(data)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_lengths_are_errors() {
        for text in ["0003", "fff1", "+00a", "HTTP", "000\n"] {
            let mut reader = PacketReader::default();
            reader.push(text.as_bytes());
            assert_eq!(reader.next_packet(), Err(PacketError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn packets_survive_any_cut(lines in prop::collection::vec("[a-z]{0,40}", 0..8), cut in 1_usize..9) {
            let mut stream = Vec::new();
            for line in &lines {
                write_line(&mut stream, line);
            }
            stream.extend_from_slice(b"000100020000");
            let mut reader = PacketReader::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some(packet) = reader.next_packet().unwrap() {
                    seen.push(packet);
                }
            }
            let mut expected: Vec<Packet> =
                lines.iter().map(|line| Packet::Data(Bytes::from(format!("{line}\n")))).collect();
            expected.extend([Packet::Delimiter, Packet::ResponseEnd, Packet::Flush]);
            prop_assert_eq!(seen, expected);
            prop_assert!(reader.is_empty());
        }
    }
}
