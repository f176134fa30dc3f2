//! One ACME order, from the names to the certificate.
//!
//! ```text
//!  new order ─► for each name: answer a challenge ─► ready ─► new key, CSR ─► valid ─► certificate
//! ```

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle,
    ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SignatureAlgorithm};

use super::Error;
use super::account::AcmeClient;
use super::challenge_store::{StoredChallenge, parse_challenge_cert};
use super::storage::Storage;
use crate::certificate::Certificate;
use crate::config::{AcmeChallenge, DomainNames, KeyType};
use crate::tls::{ChallengeGuard, ManagedCerts};

/// The time limit of a whole order. It is long because authorities validate a name from several networks,
/// one after the other.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How often, and for how long, the state of an order is polled.
const POLL_POLICY: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.4)
    .timeout(Duration::from_secs(90));

/// A certificate that an order has produced.
pub(super) struct IssuedCertificate {
    pub(super) certificate: Certificate,
    /// PEM.
    pub(super) key: String,
    /// PEM.
    pub(super) chain: String,
}

/// Orders a certificate. `replaces` is the previous one, for authorities that support RFC 9773 (§5).
pub(super) async fn order_certificate(
    account: &Account,
    client: &AcmeClient,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<IssuedCertificate, Error> {
    let order = run_order(account, client, names, replaces, managed_certs);
    tokio::time::timeout(ORDER_TIMEOUT, order)
        .await
        .unwrap_or(Err(Error::TimedOut(ORDER_TIMEOUT)))
}

async fn run_order(
    account: &Account,
    client: &AcmeClient,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<IssuedCertificate, Error> {
    let mut order = create_order(account, names, replaces).await?;
    // Kept until the order is ready: the authority fetches the answers, and they are served only while
    // `challenges` exists.
    let challenges = answer_challenges(&mut order, client, managed_certs).await?;
    if order.state().status == OrderStatus::Pending {
        wait_ready(&mut order).await?;
    }
    drop(challenges);
    let (key, csr) = certificate_request(names, client.config.acme.key_type)?;
    order.finalize_csr(&csr).await?;
    let chain = order.poll_certificate(&POLL_POLICY).await?;
    check_issued(names, &key, chain)
}

async fn create_order(
    account: &Account,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Order, Error> {
    let identifiers: Vec<Identifier> = names
        .as_slice()
        .iter()
        .cloned()
        .map(Identifier::Dns)
        .collect();
    if let Some(replaces) = replaces {
        // `replaces` is optional and must not make the order fail: the authority may no longer know the
        // previous certificate, or may have replaced it already (409, `alreadyReplaced`).
        match account
            .new_order(&NewOrder::new(&identifiers).replaces(replaces))
            .await
        {
            Ok(order) => return Ok(order),
            Err(error) => log::debug!("acme: {error}; ordering without `replaces`"),
        }
    }
    Ok(account.new_order(&NewOrder::new(&identifiers)).await?)
}

/// Answers a challenge for each name, except names that an earlier order has already authorized.
async fn answer_challenges(
    order: &mut Order,
    client: &AcmeClient,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<Vec<ActiveChallenge>, Error> {
    let mut challenges = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                challenges.push(answer_challenge(authorization, client, managed_certs).await?);
            }
            status => {
                return Err(Error::ValidationFailed(format!(
                    "{}: {status:?}",
                    identifier_name(&authorization)
                )));
            }
        }
    }
    Ok(challenges)
}

/// Serves the answer to one challenge, in this process and in all processes that share the storage, until it
/// is dropped.
type ActiveChallenge = (ChallengeGuard, Option<StoredChallenge>);

async fn answer_challenge(
    mut authorization: AuthorizationHandle<'_>,
    client: &AcmeClient,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let name = identifier_name(&authorization);
    let (kind, kind_name) = match client.config.acme.challenge {
        AcmeChallenge::Http01 => (ChallengeType::Http01, "http-01"),
        AcmeChallenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    };
    let Some(mut handle) = authorization.challenge(kind) else {
        return Err(Error::ValidationFailed(format!(
            "the authority does not offer {kind_name} for {name}"
        )));
    };
    let storage = &client.storage;
    let challenge = match client.config.acme.challenge {
        AcmeChallenge::Http01 => serve_http01(&handle, storage, managed_certs).await?,
        AcmeChallenge::TlsAlpn01 => serve_tls_alpn01(name, &handle, storage, managed_certs).await?,
    };
    handle.set_ready().await?;
    Ok(challenge)
}

async fn serve_http01(
    challenge: &ChallengeHandle<'_>,
    storage: &Storage,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let token = challenge.token.clone();
    let answer = challenge.key_authorization().as_str().to_owned();
    let guard = managed_certs.serve_http01(token.clone(), answer.clone());
    let put = move |storage: &Storage| storage.challenge_store().put_token(&token, &answer);
    Ok((guard, storage.run_blocking(put).await?))
}

async fn serve_tls_alpn01(
    name: String,
    challenge: &ChallengeHandle<'_>,
    storage: &Storage,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let pem = challenge_certificate(&name, challenge)?;
    let unusable = |error: rustls::Error| Error::UnusableCertificate(error.to_string());
    let cert = parse_challenge_cert(pem.as_bytes()).map_err(unusable)?;
    let guard = managed_certs.serve_tls_alpn01(name.clone(), Arc::new(cert));
    let put = move |storage: &Storage| storage.challenge_store().put_certificate(&name, &pem);
    Ok((guard, storage.run_blocking(put).await?))
}

fn identifier_name(authorization: &AuthorizationHandle<'_>) -> String {
    authorization.identifier().to_string().to_ascii_lowercase()
}

/// The certificate for TLS-ALPN-01 (RFC 8737 §3) and its key, PEM.
fn challenge_certificate(name: &str, challenge: &ChallengeHandle<'_>) -> Result<String, Error> {
    let digest = challenge.key_authorization().digest();
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Waits until the authority has validated all names.
async fn wait_ready(order: &mut Order) -> Result<(), Error> {
    match order.poll_ready(&POLL_POLICY).await {
        Ok(OrderStatus::Invalid) => {
            let invalid = Error::ValidationFailed("the order is invalid".to_owned());
            Err(validation_error(order).await.unwrap_or(invalid))
        }
        Err(error @ instant_acme::Error::Api(_)) => {
            Err(validation_error(order).await.unwrap_or(error.into()))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The authority's error messages, each with its domain name; `None`: there are none.
async fn validation_error(order: &mut Order) -> Option<Error> {
    let mut problems = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let _ = authorization.refresh().await;
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref()?.detail.as_deref());
        problems
            .extend(errors.map(|error| format!("{}: {error}", identifier_name(&authorization))));
    }
    (!problems.is_empty()).then(|| Error::ValidationFailed(problems.join("; ")))
}

/// A new key and its certificate request (RFC 2986), DER. Each certificate has a new key, so that a leaked key
/// is useless when its certificate has expired.
fn certificate_request(
    names: &DomainNames,
    key_type: KeyType,
) -> Result<(KeyPair, Vec<u8>), Error> {
    let algorithm: &SignatureAlgorithm = match key_type {
        KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let mut params = CertificateParams::new(names.as_slice())?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate_for(algorithm)?;
    let csr = params.serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

/// Checks an issued chain before it replaces the certificate in use: it must match the new key and have all
/// names.
fn check_issued(
    names: &DomainNames,
    key: &KeyPair,
    chain: String,
) -> Result<IssuedCertificate, Error> {
    let key = key.serialize_pem();
    let certificate = Certificate::read(chain.as_bytes(), key.as_bytes(), None);
    let certificate = certificate.map_err(|error| Error::UnusableCertificate(error.to_string()))?;
    match names
        .as_slice()
        .iter()
        .find(|&name| !certificate.names.contains(name))
    {
        Some(missing) => Err(Error::UnusableCertificate(format!(
            "it does not have the name {missing}"
        ))),
        None => Ok(IssuedCertificate {
            certificate,
            key,
            chain,
        }),
    }
}
