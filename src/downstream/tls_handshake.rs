//! The TLS handshake of one connection, and the properties of the session.
//!
//! It runs in the connection's own task, with one deadline for the whole handshake: a slow or silent client delays
//! only its own connection. A failure is counted by its reason and never logged: clients could fill the log.

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

/// The time limit for sending `close_notify` after a handshake without a request.
const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSession {
    /// The protocol version, such as `1.3`.
    pub version: &'static str,
    /// The name of the cipher suite (RFC 8446 §B.4, RFC 5289).
    pub cipher: &'static str,
    /// The server name that the client asked for (SNI), in lower case.
    pub sni: Option<Box<str>>,
    /// The handshake resumed an earlier session.
    pub resumed: bool,
    /// The listener asks clients for a certificate.
    pub requests_client_cert: bool,
    /// The verified certificate of the client.
    pub client_certificate: Option<ClientCertificate>,
    /// The session carries HTTP/2, by ALPN (RFC 9113 §3.2); else HTTP/1.
    pub http2: bool,
    /// The `Strict-Transport-Security` value that responses get from this listener.
    pub hsts: Option<HeaderValue>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The subject of the certificate, by [`subject_name`].
    pub subject_name: Option<Box<str>>,
    /// The whole certificate as a header value (RFC 9440 §2.2).
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
    /// The label under which the handshake is counted.
    pub(crate) fn handshake_kind(&self) -> HandshakeKind {
        if self.resumed {
            HandshakeKind::Resumed
        } else {
            HandshakeKind::Full
        }
    }
}

/// Accepts a TLS handshake on the socket.
///
/// # Errors
/// The reason for the failure; the client was sent a TLS alert if there is one for it.
pub(crate) async fn accept_tls(
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
            let session = describe_session(&stream, server);
            Ok((DownstreamSocket::Tls(Box::new(stream)), session))
        }
    }
}

/// Closes the connection of an ACME server, which has received the challenge certificate (RFC 8737 §3).
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
        // An error of the kernel, or tokio-rustls' error for a connection that ends in the handshake.
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
        // The first bytes are not the header of a TLS record.
        InvalidMessage(rustls::InvalidMessage::InvalidContentType) => HandshakeFailure::NotTls,
        AlertReceived(AlertDescription::UserCanceled | AlertDescription::CloseNotify) => {
            HandshakeFailure::Closed
        }
        AlertReceived(_) => HandshakeFailure::Refused,
        PeerIncompatible(_) => HandshakeFailure::Incompatible,
        // On a server, rustls returns this error only if the resolver has found no certificate.
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
