//! Why a message of HTTP/1 is refused, and the failure that follows.

use crate::fault::Fault;

/// Which message is refused; its sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The client's.
    Request,
    /// The peer's.
    Response,
}

/// Declares [`Refusal`]; each variant has a text, and the fault of a request that is refused.
macro_rules! refusals {
    ($( $(#[$doc:meta])* $refusal:ident => $fault:ident, $text:literal; )*) => {
        /// Why a message is refused. A malformed message is never repaired: its meaning would be a guess.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $( $(#[$doc])* #[error($text)] $refusal, )*
        }

        impl Refusal {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$( Self::$refusal, )*];

            const fn request_fault(self) -> Fault {
                match self {
                    $( Self::$refusal => Fault::$fault, )*
                }
            }
        }
    };
}

refusals! {
    // The start line.
    /// The method is not a token (RFC 9110 §9.1).
    InvalidMethod => BadRequest, "the method is not a token";
    /// The target is in none of the four forms, or has a byte that no target has (RFC 9112 §3.2).
    InvalidTarget => BadRequest, "the request target is invalid";
    /// The target is longer than its limit (RFC 9112 §3).
    TargetTooLong => UriTooLong, "the request target is longer than its limit";
    /// The target's scheme is neither `http` nor `https` (RFC 9110 §7.4).
    ForeignScheme => BadRequest, "the scheme of the request target is not http or https";
    /// The version is missing, or is not `HTTP/`, digit, point, digit (RFC 9112 §2.3).
    InvalidVersion => BadRequest, "the HTTP version is missing or malformed";
    /// The major version is not 1 (RFC 9110 §15.6.6).
    UnsupportedVersion => VersionUnsupported, "the major HTTP version is not 1";
    /// The status is not a number of three digits, or the reason has a control byte (RFC 9112 §4).
    InvalidStatusLine => BadRequest, "the status line is malformed";

    // Field lines.
    /// A line ends in LF without CR (RFC 9112 §2.2: a recipient may accept it, but not every recipient does).
    BareLf => BadRequest, "a line ends without CR";
    /// A CR has no LF after it (RFC 9112 §2.2).
    BareCr => BadRequest, "a CR without LF";
    /// A field name is empty or not a token, or its line has no colon (RFC 9112 §5).
    InvalidFieldName => BadRequest, "a field name is invalid";
    /// A blank is between a field name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon => BadRequest, "a blank before the colon of a field";
    /// A field line begins with a blank (RFC 9112 §5.2 and §2.2).
    FoldedLine => BadRequest, "a field line begins with a blank";
    /// A field value has a control byte (RFC 9110 §5.5).
    InvalidFieldValue => BadRequest, "a field value has a control byte";
    /// The head is larger than its limit (RFC 6585 §5).
    HeadTooLarge => HeaderTooLarge, "the head is larger than its limit";
    /// The head has more field lines than its limit (RFC 6585 §5).
    TooManyFields => HeaderTooLarge, "the head has more fields than its limit";

    // The host.
    /// A request of HTTP/1.1 has no `Host` (RFC 9112 §3.2).
    MissingHost => BadHost, "Host is missing";
    /// A request has more than one `Host` line (RFC 9112 §3.2).
    RepeatedHost => BadHost, "Host is repeated";
    /// `Host`, or the host of the target, is not `uri-host [":" port]` (RFC 9110 §7.2).
    InvalidHost => BadHost, "the host is invalid";

    // The length of the body.
    /// `Content-Length` is not a decimal number of 64 bits (RFC 9110 §8.6).
    InvalidLength => BadRequest, "Content-Length is not a number";
    /// Values of `Content-Length` differ (RFC 9112 §6.3).
    DifferingLengths => BadRequest, "Content-Length has differing values";
    /// `Transfer-Encoding` and `Content-Length` are both present (RFC 9112 §6.1).
    LengthAndCoding => BadRequest, "both Content-Length and Transfer-Encoding are present";
    /// `Transfer-Encoding` in a message of HTTP/1.0 (RFC 9112 §6.1).
    CodingInHttp10 => BadRequest, "Transfer-Encoding in HTTP/1.0";
    /// `chunked` is not the last transfer coding, or not the only `chunked` (RFC 9112 §6.3 and §7.1).
    ChunkedNotLast => BadRequest, "chunked is not the last transfer coding, or is repeated";
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    UnsupportedCoding => CodingUnsupported, "a transfer coding other than chunked";

    // Chunks.
    /// A chunk's size is not hexadecimal, or above 2^63 - 1 (RFC 9112 §7.1).
    InvalidChunkSize => BadRequest, "the size of a chunk is invalid";
    /// A chunk extension has a control byte, or a blank is not followed by an extension (RFC 9112 §7.1.1).
    InvalidChunkExtension => BadRequest, "a chunk extension is malformed";
    /// The extensions of one chunk, or of all, are over their limit (RFC 9112 §7.1.1).
    ChunkExtensionTooLong => BadRequest, "chunk extensions are longer than their limit";
    /// No CRLF follows the data of a chunk: its size is wrong (RFC 9112 §7.1).
    InvalidChunkEnd => BadRequest, "a chunk does not end in CRLF";
    /// The trailer section is larger than its limit (RFC 9112 §7.1.2).
    TrailersTooLarge => HeaderTooLarge, "the trailer section is larger than its limit";

    // Responses.
    /// A response of 101 to a request without `Upgrade` (RFC 9110 §7.8).
    UnaskedUpgrade => BadRequest, "101 to a request that asked for no upgrade";
}

impl Refusal {
    /// The fault of the refusal. All refusals of a peer's message have the same fault, with status 502
    /// (RFC 9110 §15.6.3).
    pub const fn fault(self, message: MessageKind) -> Fault {
        match message {
            MessageKind::Request => self.request_fault(),
            MessageKind::Response => Fault::BadResponse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_request_is_the_clients_fault() {
        for refusal in Refusal::ALL {
            let status = refusal.fault(MessageKind::Request).status();
            assert!(
                matches!(status, 400 | 414 | 431 | 501 | 505),
                "{refusal:?}: {status}"
            );
        }
    }

    #[test]
    fn refused_response_is_502() {
        for refusal in Refusal::ALL {
            assert_eq!(refusal.fault(MessageKind::Response).status(), 502);
        }
    }
}
