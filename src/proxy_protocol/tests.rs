use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::v2::MAX_LENGTH;
use super::*;

/// The signature of version 2, in the notation of the specification.
const SIGNATURE: [u8; 12] = [
    0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
];

fn read(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let mut reader = ProxyHeaderReader::default();
    reader.consume(bytes)?;
    reader.parse()
}

fn parsed(bytes: &[u8]) -> ProxyHeader {
    read(bytes).unwrap().unwrap()
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

fn inet(source: &str, destination: &str) -> ProxyAddresses {
    ProxyAddresses::Inet {
        transport: Transport::Stream,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn proxy_header_v1_lines_of_the_specification_are_parsed() {
    let addresses = |line: &str| parsed(format!("{line}\r\n").as_bytes()).addresses;
    assert_eq!(
        addresses("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535"),
        inet("255.255.255.255:65535", "255.255.255.255:65535")
    );
    let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(
        addresses(&format!("PROXY TCP6 {all} {all} 65535 65535")),
        inet(&format!("[{all}]:65535"), &format!("[{all}]:65535"))
    );
    assert_eq!(addresses("PROXY UNKNOWN"), ProxyAddresses::Unknown);
    let longest = format!("PROXY UNKNOWN {all} {all} 65535 65535");
    assert_eq!(longest.len() + 2, 107, "the longest line there is");
    assert_eq!(addresses(&longest), ProxyAddresses::Unknown);
    assert_eq!(
        addresses("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443"),
        inet("192.168.0.1:56324", "192.168.0.11:443")
    );
}

#[test]
fn proxy_header_v1_malformed_lines_are_rejected() {
    for bad in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 ",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1",
        "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +56324 443",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536",
        "PROXY TCP4 192.168.0.01 192.168.0.11 56324 443",
        "PROXY TCP4 192.168.1 192.168.0.11 56324 443",
        "PROXY TCP4 ::1 ::1 56324 443",
        "PROXY TCP6 192.168.0.1 192.168.0.11 56324 443",
        "PROXY TCP6 fe80::1%eth0 ::1 56324 443",
        "PROXY TCP5 192.168.0.1 192.168.0.11 56324 443",
        "PROXY tcp4 192.168.0.1 192.168.0.11 56324 443",
        "PROXY UNKNOWNS",
        "PROXY ",
        "PROXY TCP4 \u{e9} 192.168.0.11 56324 443",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4 192.168.0.1\r192.168.0.11 56324 443",
    ] {
        assert_eq!(
            read(format!("{bad}\r\n").as_bytes()),
            Err(ProxyHeaderError::Syntax),
            "{bad}"
        );
    }
    assert_eq!(read(b"PROXY UNKNOWN\n"), Err(ProxyHeaderError::Syntax));
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n"),
        Err(ProxyHeaderError::Signature)
    );
    assert_eq!(read(b"PROXIES"), Err(ProxyHeaderError::Signature));
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(read(long.as_bytes()), Err(ProxyHeaderError::TooLong));
}

#[test]
fn proxy_header_v2_bytes_are_parsed() {
    let rest = [192, 0, 2, 1, 198, 51, 100, 9, 0xdc, 0x04, 0x01, 0xbb];
    let header = parsed(&binary(0x21, 0x11, &rest));
    assert_eq!(
        header.addresses,
        inet("192.0.2.1:56324", "198.51.100.9:443")
    );
    assert_eq!(header.version, ProxyHeaderVersion::V2);
    let rest = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 80, 1, 0]].concat();
    let header = parsed(&binary(0x21, 0x22, &rest));
    let expected = ProxyAddresses::Inet {
        transport: Transport::Datagram,
        source: "[::1]:80".parse().unwrap(),
        destination: "[::2]:256".parse().unwrap(),
    };
    assert_eq!(header.addresses, expected);
    let mut rest = [0; 216];
    rest[..4].copy_from_slice(b"/a/b");
    rest[108..111].copy_from_slice(b"\0xy");
    let unix = ProxyAddresses::Unix {
        transport: Transport::Stream,
        source: b"/a/b".to_vec(),
        destination: b"\0xy".to_vec(),
    };
    assert_eq!(parsed(&binary(0x21, 0x31, &rest)).addresses, unix);
}

/// A header that HAProxy 2.6 sent (`send-proxy-v2-ssl-cn` with ALPN, authority, checksum and id).
const FROM_HAPROXY: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x8d\
    \x7f\x00\x00\x01\x7fc\x01\x01\xdf,H\x0b\
    \x03\x00\x04\x27p\x0b\x02\
    \x01\x00\x02h2\
    \x02\x00\x0fapp.example.com\
    \x05\x00\x0dcw-1795402771\
    \x20\x00P\x07\x00\x00\x00\x00\
    !\x00\x07TLSv1.3\
    \"\x00\x09localhost\
    %\x00\x05EC256\
    $\x00\x11ecdsa-with-SHA256\
    #\x00\x16TLS_AES_256_GCM_SHA384";

#[test]
fn proxy_header_v2_with_all_tlvs_is_parsed() {
    let header = parsed(FROM_HAPROXY);
    assert_eq!(
        header.addresses,
        inet("127.0.0.1:57132", "127.99.1.1:18443")
    );
    assert_eq!(header.tlvs[0], ProxyTlv::Alpn(b"h2".to_vec()));
    assert_eq!(header.authority(), Some(&b"app.example.com"[..]));
    assert_eq!(header.unique_id(), Some(&b"cw-1795402771"[..]));
    let tls = header.tls().unwrap();
    assert!(tls.is_encrypted() && tls.verify == 0);
    assert_eq!(tls.sub_tlv(TlsTlv::VERSION), Some(&b"TLSv1.3"[..]));
    assert_eq!(tls.sub_tlv(TlsTlv::COMMON_NAME), Some(&b"localhost"[..]));
    assert_eq!(
        tls.sub_tlv(TlsTlv::CIPHER),
        Some(&b"TLS_AES_256_GCM_SHA384"[..])
    );
    for at in 16..FROM_HAPROXY.len() {
        let mut broken = FROM_HAPROXY.to_vec();
        broken[at] ^= 0x40;
        // Byte 28 is the checksum's type; changed, there is no checksum to verify.
        assert!(
            at == 28 || read(&broken).is_err(),
            "a change of byte {at} was not noticed"
        );
    }
}

#[test]
fn proxy_header_local_or_unknown_has_no_client_address() {
    let local = parsed(&binary(0x20, 0x00, b""));
    assert_eq!(local.addresses, ProxyAddresses::Local);
    // The family and the bytes after it are discarded.
    assert_eq!(parsed(&binary(0x20, 0x11, b"whatever")), local);
    let unknown = parsed(&binary(0x21, 0x00, &[2, 0, 1, b'a']));
    assert_eq!(unknown.addresses, ProxyAddresses::Unknown);
    assert_eq!(unknown.authority(), Some(&b"a"[..]));
}

#[test]
fn proxy_header_v2_unknown_fields_are_rejected() {
    for (command, family) in [
        (0x22, 0x11),
        (0x11, 0x11),
        (0x31, 0x11),
        (0x21, 0x10),
        (0x21, 0x01),
        (0x21, 0x13),
        (0x21, 0x41),
    ] {
        let bytes = binary(command, family, &[0; 216]);
        assert_eq!(
            read(&bytes),
            Err(ProxyHeaderError::Syntax),
            "{command:x} {family:x}"
        );
    }
    assert_eq!(
        read(&binary(0x21, 0x11, &[0; 11])),
        Err(ProxyHeaderError::Syntax)
    );
    assert_eq!(
        read(&binary(0x21, 0x21, &[0; 35])),
        Err(ProxyHeaderError::Syntax)
    );
    assert_eq!(
        read(&binary(0x21, 0x31, &[0; 215])),
        Err(ProxyHeaderError::Syntax)
    );
}

#[test]
fn proxy_header_v2_tlvs_must_end_with_the_header() {
    let with = |tlvs: &[u8]| read(&binary(0x21, 0x11, &[&[0; 12], tlvs].concat()));
    let parsed_tlvs = |tlvs: &[u8]| with(tlvs).unwrap().unwrap().tlvs;
    assert_eq!(parsed_tlvs(&[4, 0, 3, 0, 0, 0]), []);
    assert_eq!(
        parsed_tlvs(&[0xea, 0, 1, 7]),
        [ProxyTlv::Other(0xea, vec![7])]
    );
    assert_eq!(
        parsed_tlvs(&[1, 0, 2, b'h', b'2']),
        [ProxyTlv::Alpn(b"h2".to_vec())]
    );
    assert_eq!(
        parsed_tlvs(&[0x30, 0, 1, b'n']),
        [ProxyTlv::Namespace(b"n".to_vec())]
    );
    for bad in [
        &[1][..],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0xff, 0xff, 0],
        &[3, 0, 3, 0, 0, 0],
        &[0x20, 0, 4, 0, 0, 0, 0],
        &[0x20, 0, 7, 0, 0, 0, 0, 0, 0x21, 0],
    ] {
        assert_eq!(with(bad), Err(ProxyHeaderError::Syntax), "{bad:x?}");
    }
    let id = |length: u8| [&[5, 0, length][..], &vec![0; length.into()]].concat();
    assert!(with(&id(128)).is_ok());
    assert_eq!(with(&id(129)), Err(ProxyHeaderError::Syntax));
}

#[test]
fn proxy_header_v2_length_is_limited() {
    let mut bytes = binary(0x20, 0, &[0; MAX_LENGTH - 16]);
    assert!(read(&bytes).unwrap().is_some());
    bytes[15] += 1;
    assert_eq!(read(&bytes[..16]), Err(ProxyHeaderError::TooLong));
}

#[test]
fn proxy_header_mixed_address_families_are_written_as_ipv6() {
    for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
        let header = ProxyHeader {
            version,
            addresses: inet("192.0.2.1:1", "[::1]:2"),
            tlvs: Vec::new(),
        };
        let addresses = parsed(&header.write(false).unwrap()).addresses;
        assert_eq!(addresses, inet("[::ffff:192.0.2.1]:1", "[::1]:2"));
    }
}

#[test]
fn proxy_header_v1_writes_unknown_for_unsupported_families() {
    for addresses in [ProxyAddresses::Local, ProxyAddresses::Unknown] {
        let header = ProxyHeader {
            version: ProxyHeaderVersion::V1,
            addresses,
            tlvs: Vec::new(),
        };
        assert_eq!(header.write(true).unwrap(), b"PROXY UNKNOWN\r\n");
    }
}

/// An address from the given bits; IPv4 takes the low 32.
fn address(v6: bool, bits: u128, port: u16) -> SocketAddr {
    let v4 = u32::try_from(bits & u128::from(u32::MAX)).unwrap();
    if v6 {
        (Ipv6Addr::from(bits), port).into()
    } else {
        (Ipv4Addr::from(v4), port).into()
    }
}

fn some_address(v6: bool) -> impl Strategy<Value = SocketAddr> {
    (any::<u128>(), any::<u16>()).prop_map(move |(bits, port)| address(v6, bits, port))
}

fn some_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)]
}

/// A name that does not end with a zero.
fn some_name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=108).prop_map(|mut name| {
        let end = name
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        name.truncate(end);
        name
    })
}

fn some_addresses() -> impl Strategy<Value = ProxyAddresses> {
    let inet = any::<bool>().prop_flat_map(|v6| {
        (some_transport(), some_address(v6), some_address(v6)).prop_map(
            |(transport, source, destination)| ProxyAddresses::Inet {
                transport,
                source,
                destination,
            },
        )
    });
    let unix = (some_transport(), some_name(), some_name()).prop_map(
        |(transport, source, destination)| ProxyAddresses::Unix {
            transport,
            source,
            destination,
        },
    );
    prop_oneof![Just(ProxyAddresses::Unknown), inet, unix]
}

fn some_tlv() -> impl Strategy<Value = ProxyTlv> {
    let value = || prop::collection::vec(any::<u8>(), 0..60);
    let tls = (
        any::<u8>(),
        any::<u32>(),
        prop::collection::vec((any::<u8>(), value()), 0..4),
    );
    prop_oneof![
        value().prop_map(ProxyTlv::Alpn),
        value().prop_map(ProxyTlv::Authority),
        value().prop_map(ProxyTlv::UniqueId),
        value().prop_map(ProxyTlv::Namespace),
        tls.prop_map(|(flags, verify, sub_tlvs)| ProxyTlv::Tls(TlsTlv {
            flags,
            verify,
            sub_tlvs
        })),
        (0xe0..=0xff_u8, value()).prop_map(|(kind, value)| ProxyTlv::Other(kind, value)),
    ]
}

fn some_header() -> impl Strategy<Value = ProxyHeader> {
    let tlvs = prop::collection::vec(some_tlv(), 0..6);
    (some_addresses(), tlvs).prop_map(|(addresses, tlvs)| ProxyHeader {
        version: ProxyHeaderVersion::V2,
        addresses,
        tlvs,
    })
}

/// Bytes of which many begin like a header.
fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let noise = || prop::collection::vec(any::<u8>(), 0..300);
    let text = "PROXY (TCP4|TCP6|UNKNOWN|TCP) [0-9a-f.: ]{0,100}\r\n";
    prop_oneof![
        noise(),
        text.prop_map(String::into_bytes),
        (0x20..=0x22_u8, any::<u8>(), noise())
            .prop_map(|(command, family, rest)| binary(command, family, &rest)),
        (some_header(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
            |(header, at, byte)| {
                let mut bytes = header.write(false).unwrap();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes
            }
        ),
    ]
}

proptest! {
    #[test]
    fn proxy_header_v2_write_then_read_is_identity(header in some_header(), checksum: bool) {
        prop_assert_eq!(parsed(&header.write(checksum).unwrap()), header);
    }

    #[test]
    fn proxy_header_v1_write_then_read_is_identity(v6: bool, ports: (u16, u16), bits: (u128, u128)) {
        let header = ProxyHeader {
            version: ProxyHeaderVersion::V1,
            addresses: ProxyAddresses::Inet {
                transport: Transport::Stream,
                source: address(v6, bits.0, ports.0),
                destination: address(v6, bits.1, ports.1),
            },
            tlvs: Vec::new(),
        };
        prop_assert_eq!(parsed(&header.write(false).unwrap()), header);
    }

    #[test]
    fn proxy_header_parser_leaves_following_bytes(header in some_header(), following: Vec<u8>) {
        let bytes = header.write(true).unwrap();
        let mut reader = ProxyHeaderReader::default();
        let consumed = reader.consume(&[&bytes[..], &following].concat()).unwrap();
        prop_assert_eq!(consumed, bytes.len());
        prop_assert_eq!(reader.consume(&following).unwrap(), 0);
    }

    #[test]
    fn proxy_header_parser_result_is_independent_of_chunking(bytes in some_bytes(), size in 1..20_usize) {
        let at_once = read(&bytes);
        let mut reader = ProxyHeaderReader::default();
        let mut error = None;
        for chunk in bytes.chunks(size) {
            match reader.consume(chunk) {
                Ok(consumed) if consumed < chunk.len() => break,
                Ok(_) => {}
                Err(failure) => {
                    error = Some(failure);
                    break;
                }
            }
        }
        prop_assert_eq!(error.map_or_else(|| reader.parse(), Err), at_once);
    }

    #[test]
    fn proxy_header_parser_with_random_bytes_is_bounded(bytes in some_bytes()) {
        let mut reader = ProxyHeaderReader::default();
        if let Ok(consumed) = reader.consume(&bytes) {
            prop_assert!(consumed <= bytes.len());
            let _ = reader.parse();
        }
        prop_assert!(reader.bytes.len() <= MAX_LENGTH);
    }

    #[test]
    fn proxy_header_that_is_incomplete_needs_more_bytes(header in some_header(), at: prop::sample::Index) {
        let bytes = header.write(true).unwrap();
        let incomplete = &bytes[..at.index(bytes.len())];
        prop_assert_eq!(read(incomplete), Ok(None));
    }
}
