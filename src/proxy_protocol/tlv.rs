//! What version 2 says besides addresses: type, length (16 bits), value, one after the other.

use super::ProxyHeaderError;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CHECKSUM: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const TLS: u8 = 0x20;
const NAMESPACE: u8 = 0x30;

/// The longest [`Extension::UniqueId`].
const MAX_UNIQUE_ID: usize = 128;

/// One thing that is said besides the addresses. Checksums are verified and not kept, nor is padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyTlv {
    /// The protocol that was agreed on in TLS, as in `h2`.
    Alpn(Vec<u8>),
    /// The name that the client asked for; in TLS, that of SNI.
    Authority(Vec<u8>),
    /// What the sender calls the connection; up to 128 bytes.
    UniqueId(Vec<u8>),
    /// How the client spoke TLS.
    Tls(TlsTlv),
    /// The sender's network namespace.
    Namespace(Vec<u8>),
    /// Of another type, as load balancers have of their own.
    Other(u8, Vec<u8>),
}

/// How the client spoke TLS to the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTlv {
    /// [`Self::ENCRYPTED`] and others.
    pub flags: u8,
    /// 0: the client showed a certificate that counts.
    pub verify: u32,
    /// [`Self::VERSION`] and others, with their values.
    pub sub_tlvs: Vec<(u8, Vec<u8>)>,
}

impl TlsTlv {
    /// Flag: the client came over TLS.
    pub const ENCRYPTED: u8 = 0x01;
    /// Flag: it showed a certificate on this connection.
    pub const CONNECTION_CERTIFICATE: u8 = 0x02;
    /// Flag: it showed one in this session, perhaps on a connection before.
    pub const SESSION_CERTIFICATE: u8 = 0x04;
    /// Part: the version, as in `TLSv1.3`.
    pub const VERSION: u8 = 0x21;
    /// Part: the common name of the client's certificate.
    pub const COMMON_NAME: u8 = 0x22;
    /// Part: the cipher suite's name.
    pub const CIPHER: u8 = 0x23;

    /// Whether the client came over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.flags & Self::ENCRYPTED != 0
    }

    /// The first part of this kind.
    pub fn sub_tlv(&self, kind: u8) -> Option<&[u8]> {
        let found = self.sub_tlvs.iter().find(|(known, _)| *known == kind);
        found.map(|(_, value)| value.as_slice())
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

/// Parses the extensions, which are the end of `header`, and verifies its checksum where it has one.
pub(super) fn parse(header: &[u8], mut rest: &[u8]) -> Result<Vec<ProxyTlv>, ProxyHeaderError> {
    let mut found = Vec::new();
    let mut checked = false;
    while !rest.is_empty() {
        let (kind, value) = next_tlv(&mut rest)?;
        found.extend(match kind {
            ALPN => Some(ProxyTlv::Alpn(value.to_vec())),
            AUTHORITY => Some(ProxyTlv::Authority(value.to_vec())),
            // Two of them cannot both be right.
            CHECKSUM if checked => return Err(ProxyHeaderError::Syntax),
            CHECKSUM => {
                verify_checksum(header, rest.len(), value)?;
                checked = true;
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
    Ok(found)
}

/// Appends a checksum to be filled in when the header is complete; where its value is.
pub(super) fn reserve_checksum(bytes: &mut Vec<u8>) -> usize {
    bytes.extend([CHECKSUM, 0, 4]);
    let place = bytes.len();
    bytes.extend([0; 4]);
    place
}

/// Fills it in.
pub(super) fn fill_checksum(bytes: &mut [u8], place: usize) {
    let sum = crc32c::crc32c(bytes);
    if let Some(value) = bytes.get_mut(place..place + 4) {
        value.copy_from_slice(&sum.to_be_bytes());
    }
}

fn next_tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), ProxyHeaderError> {
    let ([kind, high, low], left) = rest.split_first_chunk().ok_or(ProxyHeaderError::Syntax)?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, left) = left
        .split_at_checked(length)
        .ok_or(ProxyHeaderError::Syntax)?;
    *rest = left;
    Ok((*kind, value))
}

/// The checksum is that of the header with zeros in its own place; `behind` bytes follow it.
fn verify_checksum(header: &[u8], behind: usize, value: &[u8]) -> Result<(), ProxyHeaderError> {
    let expected: [u8; 4] = value.try_into().map_err(|_| ProxyHeaderError::Syntax)?;
    let (before, behind) = header.split_at(header.len().saturating_sub(behind));
    let before = before
        .split_last_chunk::<4>()
        .map_or(before, |(before, _)| before);
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    if crc32c::crc32c_append(sum, behind) == u32::from_be_bytes(expected) {
        Ok(())
    } else {
        Err(ProxyHeaderError::Checksum)
    }
}

fn parse_tls(value: &[u8]) -> Result<TlsTlv, ProxyHeaderError> {
    let ([flags, verify @ ..], mut rest) = value
        .split_first_chunk::<5>()
        .ok_or(ProxyHeaderError::Syntax)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (kind, value) = next_tlv(&mut rest)?;
        parts.push((kind, value.to_vec()));
    }
    Ok(TlsTlv {
        flags: *flags,
        verify: u32::from_be_bytes(*verify),
        sub_tlvs: parts,
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
