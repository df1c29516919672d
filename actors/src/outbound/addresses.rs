//! Which network addresses we may connect to when somebody else has chosen the URL.
//!
//! A tenant chooses the URL, we open the connection from inside our own network. Without a guard a webhook to
//! `http://169.254.169.254/` reads the credentials of the machine we run on (SSRF). So every address is looked up in one
//! table here, after name resolution, and the address that was checked is the one that is connected to.
//!
//! The table is the IANA registry of special-purpose addresses. For IPv6 the rule is turned round: only global unicast
//! (`2000::/3`) is allowed, less the blocks inside it that lead elsewhere. New special blocks are thus denied by default.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far the guard lets requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Only addresses of the public Internet.
    #[default]
    Public,
    /// Also loopback and the private ranges of one's own network, for development. The metadata services of clouds,
    /// link-local, multicast and reserved ranges stay denied.
    PublicAndPrivate,
}

/// Why an address is denied: the name of its block, fit for an error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address {address} is not allowed: {block}")]
pub struct DeniedAddress {
    /// The address that was refused.
    pub address: IpAddr,
    /// What the block is: `loopback`, `link-local` ...
    pub block: &'static str,
}

impl Reach {
    /// Ok if a connection to `address` may be opened.
    ///
    /// # Errors
    /// [`DeniedAddress`], with the name of the block the address belongs to.
    pub fn check(self, address: IpAddr) -> Result<(), DeniedAddress> {
        let found = match address {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        };
        match (found, self) {
            (None, _) | (Some((Kind::Private, _)), Reach::PublicAndPrivate) => Ok(()),
            (Some((_, block)), _) => Err(DeniedAddress { address, block }),
        }
    }
}

/// Private blocks can be opened by a setting, forbidden ones never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Private,
    Forbidden,
}

use Kind::{Forbidden, Private};

/// First address, length of the prefix, kind, name. First match wins.
///
/// Two metadata services have addresses that the registry calls public or private: Azure's (WireServer, see
/// <https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>) and Alibaba's.
const SPECIAL_V4: [(Ipv4Addr, u32, Kind, &str); 19] = [
    (Ipv4Addr::new(168, 63, 129, 16), 32, Forbidden, "cloud metadata"),
    (Ipv4Addr::new(100, 100, 100, 200), 32, Forbidden, "cloud metadata"),
    (Ipv4Addr::new(0, 0, 0, 0), 8, Forbidden, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Private, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Private, "carrier-grade NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Private, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Forbidden, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Private, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Forbidden, "protocol assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Forbidden, "documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, Forbidden, "AS112"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, Forbidden, "multicast tunnelling"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Forbidden, "6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Private, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Forbidden, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Forbidden, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Forbidden, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Forbidden, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Forbidden, "reserved"),
];

/// First match wins. What is in no row here and outside `2000::/3` is denied as `not global unicast`.
///
/// The metadata services of AWS and of Google have unique local addresses.
const SPECIAL_V6: [(Ipv6Addr, u32, Kind, &str); 15] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Forbidden, "cloud metadata"),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Forbidden, "cloud metadata"),
    (Ipv6Addr::LOCALHOST, 128, Private, "loopback"),
    (Ipv6Addr::UNSPECIFIED, 128, Forbidden, "unspecified"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Forbidden, "IPv4-mapped"),
    (Ipv6Addr::UNSPECIFIED, 96, Forbidden, "IPv4-compatible"),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 32, Forbidden, "NAT64"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Private, "unique local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Forbidden, "link-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Forbidden, "multicast"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, Forbidden, "Teredo"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Forbidden, "protocol assignments"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Forbidden, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Forbidden, "6to4"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Forbidden, "documentation"),
];

fn special_v4(address: Ipv4Addr) -> Option<(Kind, &'static str)> {
    let is_in = |block: Ipv4Addr, prefix: u32| (address.to_bits() ^ block.to_bits()) >> (32 - prefix) == 0;
    SPECIAL_V4.iter().find(|(block, prefix, ..)| is_in(*block, *prefix)).map(|(.., kind, name)| (*kind, *name))
}

fn special_v6(address: Ipv6Addr) -> Option<(Kind, &'static str)> {
    let is_in = |block: Ipv6Addr, prefix: u32| (address.to_bits() ^ block.to_bits()) >> (128 - prefix) == 0;
    let listed =
        SPECIAL_V6.iter().find(|(block, prefix, ..)| is_in(*block, *prefix)).map(|(.., kind, name)| (*kind, *name));
    let global_unicast = is_in(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    listed.or((!global_unicast).then_some((Forbidden, "not global unicast")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block an address is denied for, or "public".
    fn verdict(reach: Reach, address: &str) -> &'static str {
        reach.check(address.parse().unwrap()).map_or_else(|denied| denied.block, |()| "public")
    }

    #[test]
    fn each_special_block_is_denied_from_its_first_to_its_last_address() {
        let table = [
            ("0.0.0.0", "0.255.255.255", "this network"),
            ("10.0.0.0", "10.255.255.255", "private"),
            ("100.64.0.0", "100.127.255.255", "carrier-grade NAT"),
            ("127.0.0.0", "127.255.255.255", "loopback"),
            ("169.254.0.0", "169.254.255.255", "link-local"),
            ("172.16.0.0", "172.31.255.255", "private"),
            ("192.0.0.0", "192.0.0.255", "protocol assignments"),
            ("192.0.2.0", "192.0.2.255", "documentation"),
            ("192.88.99.0", "192.88.99.255", "6to4 relay"),
            ("192.168.0.0", "192.168.255.255", "private"),
            ("198.18.0.0", "198.19.255.255", "benchmarking"),
            ("198.51.100.0", "198.51.100.255", "documentation"),
            ("203.0.113.0", "203.0.113.255", "documentation"),
            ("224.0.0.0", "239.255.255.255", "multicast"),
            ("240.0.0.0", "255.255.255.255", "reserved"),
            ("::1", "::1", "loopback"),
            ("::", "::", "unspecified"),
            ("::ffff:169.254.169.254", "::ffff:8.8.8.8", "IPv4-mapped"),
            ("::127.0.0.1", "::8.8.8.8", "IPv4-compatible"),
            ("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "NAT64"),
            ("fc00::", "fdff:ffff::1", "unique local"),
            ("fe80::", "febf::1", "link-local"),
            ("fec0::1", "100::1", "not global unicast"),
            ("ff00::", "ffff::1", "multicast"),
            ("2001::", "2001:0:ffff::", "Teredo"),
            ("2001:1::", "2001:1ff::", "protocol assignments"),
            ("2001:db8::", "2001:db8:ffff::", "documentation"),
            ("2002::", "2002:ffff::1", "6to4"),
            ("3fff::", "3fff:fff::1", "documentation"),
            ("4000::1", "5f00::1", "not global unicast"),
        ];
        for (first, last, block) in table {
            assert_eq!(verdict(Reach::Public, first), block, "{first}");
            assert_eq!(verdict(Reach::Public, last), block, "{last}");
        }
    }

    #[test]
    fn addresses_beside_the_blocks_are_public() {
        let neighbours = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:200::1",
            "2003::1",
        ];
        for address in neighbours {
            assert_eq!(verdict(Reach::Public, address), "public", "{address}");
        }
    }

    #[test]
    fn development_opens_private_ranges_but_never_the_metadata_address() {
        for address in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd00::1"] {
            assert_eq!(verdict(Reach::PublicAndPrivate, address), "public", "{address}");
        }
        assert_eq!(verdict(Reach::PublicAndPrivate, "169.254.169.254"), "link-local");
        assert_eq!(verdict(Reach::PublicAndPrivate, "::ffff:127.0.0.1"), "IPv4-mapped");
        assert_eq!(verdict(Reach::PublicAndPrivate, "0.0.0.0"), "this network");
    }

    #[test]
    fn a_metadata_service_outside_the_link_local_range_is_denied_even_in_development() {
        for address in ["168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"] {
            for reach in [Reach::Public, Reach::PublicAndPrivate] {
                assert_eq!(verdict(reach, address), "cloud metadata", "{address}");
            }
        }
    }
}
