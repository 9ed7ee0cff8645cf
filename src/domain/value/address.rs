//! Which network addresses connections may reach: ranges and the rule that applies them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address range in CIDR notation; a bare address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    base: IpAddr,
    prefix: u8,
}

/// A text that is not an address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range, expected for example 10.0.0.0/8 or fd00::/8")]
pub struct ParseAddressRangeError(String);

impl AddressRange {
    /// Whether `address` lies in the range. IPv4 addresses written as IPv6 count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let high_bits = |bits: u128, width: u32| {
            let drop = width.saturating_sub(u32::from(self.prefix));
            bits.checked_shr(drop).unwrap_or(0)
        };
        match (self.base, plain(address)) {
            (IpAddr::V4(base), IpAddr::V4(other)) => {
                high_bits(u32::from(base).into(), 32) == high_bits(u32::from(other).into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(other)) => high_bits(base.into(), 128) == high_bits(other.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = ParseAddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseAddressRangeError(text.chars().take(100).collect());
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text, None),
        };
        let base = plain(base.parse().map_err(|_| refuse())?);
        let width = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(refuse)?,
            None => width,
        };
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

/// The rule for outgoing connections. Addresses come from users, and a build must not reach the node or its metadata
/// service through us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// Ranges that may be reached although they are special (loopback, link-local).
    pub allowed: Vec<AddressRange>,
    /// Ranges that must not be reached, whatever else is said.
    pub denied: Vec<AddressRange>,
}

impl AddressPolicy {
    /// Why `address` must not be reached; none when it may.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        if self.denied.iter().any(|range| range.contains(address)) {
            return Some(Refusal::Denied);
        }
        if self.allowed.iter().any(|range| range.contains(address)) {
            return None;
        }
        special(plain(address))
    }
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The operator's settings deny it.
    Denied,
    /// The machine itself.
    Loopback,
    /// The local link, where clouds serve metadata and credentials.
    LinkLocal,
    /// No address of a host: unspecified, multicast or broadcast.
    NotAHost,
    /// A cloud's metadata service outside the link-local range.
    Metadata,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Denied => "denied by the operator's settings",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::NotAHost => "not the address of a host",
            Self::Metadata => "a cloud's metadata service",
        })
    }
}

fn special(address: IpAddr) -> Option<Refusal> {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => Some(Refusal::Loopback),
        IpAddr::V4(v4) if v4.is_link_local() => Some(Refusal::LinkLocal),
        // 0.0.0.0/8 is "this network": Linux takes 0.0.0.0 for loopback.
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) || v4.is_multicast() || v4.is_broadcast() => {
            Some(Refusal::NotAHost)
        }
        // Alibaba Cloud.
        IpAddr::V4(v4) if v4 == Ipv4Addr::new(100, 100, 100, 200) => Some(Refusal::Metadata),
        IpAddr::V6(v6) if v6.is_loopback() => Some(Refusal::Loopback),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Refusal::LinkLocal),
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() => Some(Refusal::NotAHost),
        // Amazon EC2.
        IpAddr::V6(v6) if v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) => Some(Refusal::Metadata),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// IPv4 behind the spellings that IPv6 has for it: mapped (`::ffff:1.2.3.4`), compatible (`::1.2.3.4`) and the
/// well-known NAT64 prefix `64:ff9b::/96` (RFC 6052).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let bits = u128::from(v6);
    let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default();
    let nat64 = bits >> 32 == 0x0064_ff9b_u128 << 64;
    let compatible = bits >> 32 == 0 && low > 0xffff;
    if nat64 || compatible { Ipv4Addr::from(low).into() } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_contain_what_their_prefix_says() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "8.8.8.8", "::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "1.1.1.1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ] {
            assert!(range(text).contains(address(inside)), "{text} {inside}");
            assert!(!range(text).contains(address(outside)), "{text} {outside}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
        assert_eq!(range("10.0.0.0/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn special_addresses_are_refused_in_every_spelling() {
        let policy = AddressPolicy::default();
        for (text, refusal) in [
            ("127.0.0.1", Some(Refusal::Loopback)),
            ("::1", Some(Refusal::Loopback)),
            ("::ffff:127.0.0.1", Some(Refusal::Loopback)),
            ("::127.0.0.1", Some(Refusal::Loopback)),
            ("64:ff9b::7f00:1", Some(Refusal::Loopback)),
            ("169.254.169.254", Some(Refusal::LinkLocal)),
            ("fe80::1", Some(Refusal::LinkLocal)),
            ("0.0.0.0", Some(Refusal::NotAHost)),
            ("::", Some(Refusal::NotAHost)),
            ("224.0.0.1", Some(Refusal::NotAHost)),
            ("255.255.255.255", Some(Refusal::NotAHost)),
            ("ff02::1", Some(Refusal::NotAHost)),
            ("fd00:ec2::254", Some(Refusal::Metadata)),
            ("100.100.100.200", Some(Refusal::Metadata)),
            ("10.0.0.1", None),
            ("192.168.0.1", None),
            ("2001:db8::1", None),
            ("64:ff9b::808:808", None),
        ] {
            assert_eq!(policy.refusal(address(text)), refusal, "{text}");
        }
    }

    #[test]
    fn denied_ranges_win_over_allowed_ones() {
        let policy = AddressPolicy { allowed: vec![range("127.0.0.0/8")], denied: vec![range("127.0.0.2")] };
        assert_eq!(policy.refusal(address("127.0.0.1")), None);
        assert_eq!(policy.refusal(address("127.0.0.2")), Some(Refusal::Denied));
        assert_eq!(policy.refusal(address("::1")), Some(Refusal::Loopback));
    }
}
