//! The TLVs of version 2, which follow the addresses: type (1 byte), length (2 bytes), value.

use super::error::ProxyHeaderError;

// Types (`PP2_TYPE_…`).

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CHECKSUM: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const TLS: u8 = 0x20;
const NAMESPACE: u8 = 0x30;

/// The longest [`ProxyTlv::UniqueId`]; bytes.
const MAX_UNIQUE_ID: usize = 128;

/// One TLV. The parser verifies checksums and skips padding; neither is returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyTlv {
    /// The protocol negotiated by ALPN, as `h2`.
    Alpn(Vec<u8>),
    /// The host name that the client asked for; with TLS, that of SNI.
    Authority(Vec<u8>),
    /// The sender's id of the connection; up to 128 bytes.
    UniqueId(Vec<u8>),
    /// The TLS session between client and sender.
    Tls(TlsTlv),
    /// The name of the sender's network namespace.
    Namespace(Vec<u8>),
    /// Another type with its value, as some load balancers define.
    Other(u8, Vec<u8>),
}

/// The TLS session between client and sender (`PP2_TYPE_SSL`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsTlv {
    /// A set of [`Self::ENCRYPTED`], [`Self::CONNECTION_CERTIFICATE`], [`Self::SESSION_CERTIFICATE`].
    pub flags: u8,
    /// 0 if the client presented a certificate and it was verified.
    pub verify: u32,
    /// Nested TLVs: a type, as [`Self::VERSION`], and its value.
    pub sub_tlvs: Vec<(u8, Vec<u8>)>,
}

impl TlsTlv {
    /// Flag: the client came over TLS.
    pub(crate) const ENCRYPTED: u8 = 0x01;
    /// Flag: the client presented a certificate on this connection.
    pub(crate) const CONNECTION_CERTIFICATE: u8 = 0x02;
    /// Flag: the client presented a certificate in this TLS session, perhaps on an earlier connection.
    pub(crate) const SESSION_CERTIFICATE: u8 = 0x04;
    /// Nested type: the TLS version, as `TLSv1.3`.
    pub(crate) const VERSION: u8 = 0x21;
    /// Nested type: the common name of the client's certificate.
    pub(crate) const COMMON_NAME: u8 = 0x22;
    /// Nested type: the name of the cipher suite.
    pub(crate) const CIPHER: u8 = 0x23;

    /// Whether the client came over TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.flags & Self::ENCRYPTED != 0
    }

    /// The value of the first nested TLV of this type.
    pub(crate) fn sub_tlv(&self, kind: u8) -> Option<&[u8]> {
        let mut tlvs = self.sub_tlvs.iter();
        let (_, value) = tlvs.find(|(found, _)| *found == kind)?;
        Some(value)
    }
}

impl ProxyTlv {
    /// Appends it; `None`: it is longer than it may be.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Alpn(value) => append_tlv(bytes, ALPN, value),
            Self::Authority(value) => append_tlv(bytes, AUTHORITY, value),
            Self::UniqueId(value) if value.len() > MAX_UNIQUE_ID => None,
            Self::UniqueId(value) => append_tlv(bytes, UNIQUE_ID, value),
            Self::Tls(tls) => append_tlv(bytes, TLS, &write_tls(tls)?),
            Self::Namespace(value) => append_tlv(bytes, NAMESPACE, value),
            Self::Other(kind, value) => append_tlv(bytes, *kind, value),
        }
    }
}

/// Parses the TLVs in `rest`, the end of `header`, and verifies the checksum if there is one.
pub(super) fn parse(header: &[u8], mut rest: &[u8]) -> Result<Vec<ProxyTlv>, ProxyHeaderError> {
    let mut tlvs = Vec::new();
    let mut has_checksum = false;
    while !rest.is_empty() {
        let (kind, value) = next_tlv(&mut rest)?;
        tlvs.extend(match kind {
            ALPN => Some(ProxyTlv::Alpn(value.to_vec())),
            AUTHORITY => Some(ProxyTlv::Authority(value.to_vec())),
            // A second one: each covers the other, so they cannot both be right.
            CHECKSUM if has_checksum => return Err(ProxyHeaderError::Syntax),
            CHECKSUM => {
                verify_checksum(header, rest.len(), value)?;
                has_checksum = true;
                None
            }
            NOOP => None,
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID => return Err(ProxyHeaderError::Syntax),
            UNIQUE_ID => Some(ProxyTlv::UniqueId(value.to_vec())),
            TLS => Some(ProxyTlv::Tls(parse_tls(value)?)),
            NAMESPACE => Some(ProxyTlv::Namespace(value.to_vec())),
            other => Some(ProxyTlv::Other(other, value.to_vec())),
        });
    }
    Ok(tlvs)
}

/// Appends a zero checksum and returns its offset, for [`fill_checksum`].
pub(super) fn reserve_checksum(bytes: &mut Vec<u8>) -> usize {
    bytes.extend([CHECKSUM, 0, 4]);
    let offset = bytes.len();
    bytes.extend([0; 4]);
    offset
}

/// Fills in the checksum of the complete header.
pub(super) fn fill_checksum(bytes: &mut [u8], offset: usize) {
    let sum = crc32c::crc32c(bytes);
    if let Some(value) = bytes.get_mut(offset..offset + 4) {
        value.copy_from_slice(&sum.to_be_bytes());
    }
}

fn next_tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), ProxyHeaderError> {
    let ([kind, high, low], after) = rest.split_first_chunk().ok_or(ProxyHeaderError::Syntax)?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, after) = after
        .split_at_checked(length)
        .ok_or(ProxyHeaderError::Syntax)?;
    *rest = after;
    Ok((*kind, value))
}

/// Verifies the checksum: the `CRC32c` of the header with zeros in place of the checksum, which `after`
/// bytes follow.
fn verify_checksum(header: &[u8], after: usize, value: &[u8]) -> Result<(), ProxyHeaderError> {
    let expected: [u8; 4] = value.try_into().map_err(|_| ProxyHeaderError::Syntax)?;
    let (before, after) = header.split_at(header.len().saturating_sub(after));
    let before = before
        .split_last_chunk::<4>()
        .map_or(before, |(before, _)| before);
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    if crc32c::crc32c_append(sum, after) == u32::from_be_bytes(expected) {
        Ok(())
    } else {
        Err(ProxyHeaderError::Checksum)
    }
}

fn parse_tls(value: &[u8]) -> Result<TlsTlv, ProxyHeaderError> {
    let ([flags, verify @ ..], mut rest) = value
        .split_first_chunk::<5>()
        .ok_or(ProxyHeaderError::Syntax)?;
    let mut sub_tlvs = Vec::new();
    while !rest.is_empty() {
        let (kind, value) = next_tlv(&mut rest)?;
        sub_tlvs.push((kind, value.to_vec()));
    }
    Ok(TlsTlv {
        flags: *flags,
        verify: u32::from_be_bytes(*verify),
        sub_tlvs,
    })
}

fn write_tls(tls: &TlsTlv) -> Option<Vec<u8>> {
    let mut bytes = vec![tls.flags];
    bytes.extend(tls.verify.to_be_bytes());
    for (kind, value) in &tls.sub_tlvs {
        append_tlv(&mut bytes, *kind, value)?;
    }
    Some(bytes)
}

fn append_tlv(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    let length = u16::try_from(value.len()).ok()?;
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend_from_slice(value);
    Some(())
}
