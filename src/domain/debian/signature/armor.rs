//! Binary data as lines of text between a header and a tail (RFC 9580, 6.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Malformed;

/// What every armored block of `kind` in a text holds; what stands around them is passed over.
pub(super) fn blocks(text: &str, kind: &str, limit: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let begin = format!("-----BEGIN PGP {kind}-----");
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line.trim_end() == begin) {
        blocks.push(decode(&mut lines, kind, limit)?);
    }
    Ok(blocks)
}

/// What a block holds; `lines` are taken from behind its first one up to its last.
pub(super) fn decode<'a>(
    lines: &mut impl Iterator<Item = &'a str>,
    kind: &str,
    limit: usize,
) -> Result<Vec<u8>, Malformed> {
    let end = format!("-----END PGP {kind}-----");
    headers(lines)?;
    let mut encoded = String::new();
    let mut checksum = None;
    loop {
        let line = lines.next().ok_or(Malformed::Armor)?.trim_end();
        if line == end {
            break;
        }
        if checksum.is_some() {
            return Err(Malformed::Armor);
        }
        // Padding never begins a line with four more characters behind it.
        match line.strip_prefix('=').filter(|sum| sum.len() == 4) {
            Some(sum) => checksum = Some(sum),
            None => encoded.push_str(line),
        }
        if encoded.len() / 4 * 3 > limit {
            return Err(Malformed::TooLong(limit));
        }
    }
    let bytes = STANDARD.decode(encoded).map_err(|_| Malformed::Armor)?;
    // Only a damaged transfer is told by that; RFC 9580 lets a reader pass over it.
    let holds = |sum: &str| STANDARD.decode(sum).is_ok_and(|sum| sum == crc24(&bytes));
    if checksum.is_none_or(holds) { Ok(bytes) } else { Err(Malformed::Checksum) }
}

/// `Comment: text`, as many as there are, and the empty line behind them.
fn headers<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<(), Malformed> {
    for line in lines {
        if line.trim_end().is_empty() {
            return Ok(());
        }
        if !line.contains(':') {
            break;
        }
    }
    Err(Malformed::Armor)
}

/// RFC 9580, 6.1.
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let sum = bytes.iter().fold(0x00b7_04ce_u32, |sum, byte| {
        (0..8).fold(sum ^ (u32::from(*byte) << 16), |sum, _| {
            let shifted = sum << 1;
            if shifted & 0x0100_0000 == 0 { shifted } else { shifted ^ 0x0186_4cfb }
        })
    });
    let [_, sum @ ..] = sum.to_be_bytes();
    sum
}
