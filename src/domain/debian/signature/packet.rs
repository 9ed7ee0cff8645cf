//! The frames of packets (RFC 9580, 4.2), and the numbers in them.

use super::Malformed;

/// A packet's type and content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

impl Packet<'_> {
    /// Whether it may be passed over where it is not expected: markers, padding, and types that are not critical (4.3).
    pub(super) fn is_ignorable(&self) -> bool {
        matches!(self.tag, 10 | 21 | 40..)
    }
}

/// Packets one behind the other; the first that is broken ends them.
pub(super) struct Packets<'a>(Reader<'a>);

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Reader(bytes))
    }

    fn read(&mut self) -> Option<Packet<'a>> {
        let header = self.0.byte()?;
        let (tag, length) = match header {
            0xc0.. => (header & 0x3f, self.0.length(Partial::Refused)?),
            // The old format; length type 3 is without an end.
            0x80.. => {
                let length = match header & 3 {
                    0 => usize::from(self.0.byte()?),
                    1 => usize::from(self.0.short()?),
                    2 => usize::try_from(self.0.long()?).ok()?,
                    _ => return None,
                };
                ((header >> 2) & 0xf, length)
            }
            _ => return None,
        };
        let body = self.0.take(length)?;
        (tag != 0).then_some(Packet { tag, body })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let packet = self.read();
        if packet.is_none() {
            self.0 = Reader(&[]);
        }
        Some(packet.ok_or(Malformed::Packet))
    }
}

/// What first octets from 224 to 254 of a length mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial {
    /// That only a part of a packet follows (4.2.1.4), which neither keys nor signatures need.
    Refused,
    /// Two octets, as in subpackets (5.2.3.7).
    None,
}

/// Takes numbers and bytes off the front; none when they are cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A length in one, two or five octets.
    pub(super) fn length(&mut self, partial: Partial) -> Option<usize> {
        let first = self.byte()?;
        match first {
            ..192 => Some(usize::from(first)),
            224..255 if partial == Partial::Refused => None,
            192..255 => Some((usize::from(first - 192) << 8) + usize::from(self.byte()?) + 192),
            255 => usize::try_from(self.long()?).ok(),
        }
    }

    /// A multiprecision integer (3.2) without zeros in front.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = self.short()?;
        let digits = self.take(usize::from(bits.div_ceil(8)))?;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.get(zeros..)
    }
}
