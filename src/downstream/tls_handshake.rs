//! The TLS handshake of one connection, and what is known of the session that it makes.
//!
//! It runs in the connection's own task, within one deadline for the whole: a client that is slow,
//! or silent, keeps only its own place. A failure is counted by its reason and never logged: the
//! clients of the whole world could fill any log.

use std::io;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::HeaderValue;
use rustls::{AlertDescription, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::{CountingSocket, DownstreamSocket};
use crate::certificate::subject_name;
use crate::telemetry::metrics::{HandshakeFailure, HandshakeKind};
use crate::tls::{self, ALPN_ACME, ListenerTls};

/// How long the end may take to be said to whom nothing else is said.
const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// What was agreed on in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// The version, as in `1.3`.
    pub version: &'static str,
    /// The cipher suite's name (RFC 8446, B.4; RFC 5289).
    pub cipher: &'static str,
    /// The name that the client asked for, in lower case.
    pub sni: Option<Box<str>>,
    /// A session was taken up again.
    pub resumed: bool,
    /// Clients are asked for a certificate here.
    pub requests_client_cert: bool,
    /// The certificate that this one showed, and that counts.
    pub client_certificate: Option<ClientCertificate>,
    /// HTTP/2 is spoken inside, not HTTP/1 (RFC 9113, 3.2).
    pub http2: bool,
    /// `Strict-Transport-Security`, where responses have it from us.
    pub hsts: Option<HeaderValue>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it is for, as [`holder`] has it.
    pub subject_name: Option<Box<str>>,
    /// The whole of it as a field's value (RFC 9440, 2.2).
    pub header_value: Option<HeaderValue>,
}

impl ClientCertificate {
    fn new(der: &CertificateDer<'_>) -> Self {
        let text = format!(":{}:", BASE64_STANDARD.encode(der));
        Self {
            subject_name: subject_name(der).map(Into::into),
            header_value: text.try_into().ok(),
        }
    }
}

impl TlsSession {
    /// How it is counted.
    pub fn handshake_kind(&self) -> HandshakeKind {
        if self.resumed {
            HandshakeKind::Resumed
        } else {
            HandshakeKind::Full
        }
    }
}

/// Makes the socket an encrypted one.
///
/// # Errors
/// Why not; the client was told as TLS has it, where it could be.
pub async fn accept_tls(
    socket: DownstreamSocket,
    server: &ListenerTls,
) -> Result<(DownstreamSocket, TlsSession), HandshakeFailure> {
    let acceptor = TlsAcceptor::from(server.server_config());
    let handshake = acceptor.accept(CountingSocket::new(socket));
    match tokio::time::timeout(server.handshake_timeout, handshake).await {
        Err(_) => Err(HandshakeFailure::Timeout),
        Ok(Err(error)) => Err(failure_reason(&error)),
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN_ACME) => {
            send_close_notify(stream).await;
            Err(HandshakeFailure::Challenge)
        }
        Ok(Ok(stream)) => {
            let secured = describe_session(&stream, server);
            Ok((DownstreamSocket::Tls(Box::new(stream)), secured))
        }
    }
}

/// Whoever asked has seen what it wanted (RFC 8737, 3).
async fn send_close_notify(mut stream: TlsStream<CountingSocket>) {
    let _ = tokio::time::timeout(CLOSE_NOTIFY_TIMEOUT, stream.shutdown()).await;
}

fn describe_session(stream: &TlsStream<CountingSocket>, server: &ListenerTls) -> TlsSession {
    let (_, session) = stream.get_ref();
    TlsSession {
        version: version_name(session),
        cipher: session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        sni: session
            .server_name()
            .map(|name| name.to_ascii_lowercase().into()),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        requests_client_cert: server.requests_client_cert,
        http2: session.alpn_protocol() == Some(tls::ALPN_H2),
        hsts: server.hsts.clone(),
        client_certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(ClientCertificate::new),
    }
}

fn version_name(session: &ServerConnection) -> &'static str {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    }
}

fn failure_reason(error: &io::Error) -> HandshakeFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => rustls_failure_reason(error),
        // tokio-rustls says so of an end in the middle; the kernel of the others.
        None => HandshakeFailure::Closed,
    }
}

fn rustls_failure_reason(error: &rustls::Error) -> HandshakeFailure {
    use rustls::Error::{
        AlertReceived, General, InappropriateHandshakeMessage, InappropriateMessage,
        InvalidCertRevocationList, InvalidCertificate, InvalidMessage, NoApplicationProtocol,
        NoCertificatesPresented, PeerIncompatible, PeerMisbehaved,
    };
    match error {
        // The first bytes are no record's header.
        InvalidMessage(rustls::InvalidMessage::InvalidContentType) => HandshakeFailure::NotTls,
        AlertReceived(AlertDescription::UserCanceled | AlertDescription::CloseNotify) => {
            HandshakeFailure::Closed
        }
        AlertReceived(_) => HandshakeFailure::Refused,
        PeerIncompatible(_) => HandshakeFailure::Incompatible,
        // Of a server it says nothing else: the resolver had none.
        General(_) => HandshakeFailure::NoCertificate,
        NoApplicationProtocol => HandshakeFailure::Protocol,
        NoCertificatesPresented | InvalidCertificate(_) | InvalidCertRevocationList(_) => {
            HandshakeFailure::ClientCertificate
        }
        InvalidMessage(_)
        | PeerMisbehaved(_)
        | InappropriateMessage { .. }
        | InappropriateHandshakeMessage { .. } => HandshakeFailure::Violation,
        _ => HandshakeFailure::Other,
    }
}
