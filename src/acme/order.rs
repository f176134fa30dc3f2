//! One order, from the names to the certificate.
//!
//! ```text
//!  new order ─► for each name: answer its challenge ─► ready? ─► key, request ─► valid? ─► certificate
//! ```

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle,
    ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SignatureAlgorithm};

use super::Error;
use super::account::blocking_io;
use super::challenge_store::{ChallengeStore, StoredChallenge, parse_challenge_cert};
use super::storage::Storage;
use crate::certificate::Certificate;
use crate::config::{AcmeChallenge, AcmeConfig, DomainNames, KeyType};
use crate::tls::{ChallengeGuard, ManagedCerts};

/// For a whole order; authorities look from several places, one after the other.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How often the authority is asked how far it is, and for how long.
const POLL_POLICY: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.4)
    .timeout(Duration::from_secs(90));

/// What was ordered.
pub(super) struct IssuedCertificate {
    pub(super) certificate: Certificate,
    /// PEM.
    pub(super) key: String,
    /// PEM.
    pub(super) chain: String,
}

/// Orders a certificate; `replaces`: the one before, where the authority wants to know (RFC 9773, 5).
pub(super) async fn order(
    account: &Account,
    acme: &AcmeConfig,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
    issued: &Arc<ManagedCerts>,
) -> Result<IssuedCertificate, Error> {
    let work = run_order(account, acme, names, replaces, issued);
    tokio::time::timeout(ORDER_TIMEOUT, work)
        .await
        .unwrap_or(Err(Error::TimedOut(ORDER_TIMEOUT)))
}

async fn run_order(
    account: &Account,
    acme: &AcmeConfig,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
    issued: &Arc<ManagedCerts>,
) -> Result<IssuedCertificate, Error> {
    let mut order = create_order(account, names, replaces).await?;
    // Held until the authority has looked.
    let answers = answer_challenges(&mut order, acme, issued).await?;
    if order.state().status == OrderStatus::Pending {
        wait_ready(&mut order).await?;
    }
    drop(answers);
    let (key, request) = certificate_request(names, acme.key_type)?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&POLL_POLICY).await?;
    check_issued(names, &key, chain)
}

async fn create_order(
    account: &Account,
    names: &DomainNames,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Order, Error> {
    let names: Vec<Identifier> = names
        .as_slice()
        .iter()
        .cloned()
        .map(Identifier::Dns)
        .collect();
    let plain = NewOrder::new(&names);
    if let Some(replaces) = replaces {
        // That it replaces another is good to know, and no reason to go without: an authority may have
        // forgotten the other, or heard of it already (409, `alreadyReplaced`).
        match account
            .new_order(&NewOrder::new(&names).replaces(replaces))
            .await
        {
            Ok(order) => return Ok(order),
            Err(error) => log::debug!("acme: {error}; ordered as a new one"),
        }
    }
    Ok(account.new_order(&plain).await?)
}

/// Answers the challenges of all names that the authority has not seen here lately.
async fn answer_challenges(
    order: &mut Order,
    acme: &AcmeConfig,
    issued: &Arc<ManagedCerts>,
) -> Result<Vec<ActiveChallenge>, Error> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                answers.push(answer_challenge(authorization, acme, issued).await?);
            }
            status => {
                return Err(Error::ValidationFailed(format!(
                    "{}: {status:?}",
                    identifier_name(&authorization)
                )));
            }
        }
    }
    Ok(answers)
}

/// An answer, here and where the processes find it that share the storage.
type ActiveChallenge = (ChallengeGuard, Option<StoredChallenge>);

async fn answer_challenge(
    mut authorization: AuthorizationHandle<'_>,
    acme: &AcmeConfig,
    issued: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let name = identifier_name(&authorization);
    let (kind, said) = match acme.challenge {
        AcmeChallenge::Http01 => (ChallengeType::Http01, "http-01"),
        AcmeChallenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    };
    let Some(mut handle) = authorization.challenge(kind) else {
        return Err(Error::ValidationFailed(format!(
            "the authority does not offer {said} for {name}"
        )));
    };
    let answers = Storage::for_authority(acme).challenge_store();
    let given = match acme.challenge {
        AcmeChallenge::Http01 => answer_http01(&handle, answers, issued).await?,
        AcmeChallenge::TlsAlpn01 => answer_tls_alpn01(name, &handle, answers, issued).await?,
    };
    handle.set_ready().await?;
    Ok(given)
}

async fn answer_http01(
    challenge: &ChallengeHandle<'_>,
    answers: ChallengeStore,
    issued: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let token = challenge.token.clone();
    let answer = challenge.key_authorization().as_str().to_owned();
    let given = issued.serve_http01(token.clone(), answer.clone());
    let shared = blocking_io(move || answers.put_token(&token, &answer));
    Ok((given, shared.await?))
}

async fn answer_tls_alpn01(
    name: String,
    challenge: &ChallengeHandle<'_>,
    answers: ChallengeStore,
    issued: &Arc<ManagedCerts>,
) -> Result<ActiveChallenge, Error> {
    let pem = challenge_certificate(&name, challenge)?;
    let useless = |error: rustls::Error| Error::UnusableCertificate(error.to_string());
    let shown = parse_challenge_cert(pem.as_bytes()).map_err(useless)?;
    let given = issued.serve_tls_alpn01(name.clone(), Arc::new(shown));
    let shared = blocking_io(move || answers.put_certificate(&name, &pem));
    Ok((given, shared.await?))
}

fn identifier_name(authorization: &AuthorizationHandle<'_>) -> String {
    authorization.identifier().to_string().to_ascii_lowercase()
}

/// What is shown to the authority (RFC 8737, 3): a key and its certificate, PEM.
fn challenge_certificate(name: &str, challenge: &ChallengeHandle<'_>) -> Result<String, Error> {
    let digest = challenge.key_authorization().digest();
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Waits until the authority has seen all names.
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

/// What the authority did not see, and where.
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

/// A new key, and the request for its certificate (RFC 2986). Each certificate has a key of its own: a
/// key that is lost is lost for one life only.
fn certificate_request(names: &DomainNames, kind: KeyType) -> Result<(KeyPair, Vec<u8>), Error> {
    let kind: &SignatureAlgorithm = match kind {
        KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let mut params = CertificateParams::new(names.as_slice())?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate_for(kind)?;
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key, request))
}

/// What is not what was ordered is not put in the place of what is there.
fn check_issued(
    names: &DomainNames,
    key: &KeyPair,
    chain: String,
) -> Result<IssuedCertificate, Error> {
    let key = key.serialize_pem();
    let read = Certificate::read(chain.as_bytes(), key.as_bytes(), None);
    let certificate = read.map_err(|error| Error::UnusableCertificate(error.to_string()))?;
    match names
        .as_slice()
        .iter()
        .find(|&name| !certificate.names.contains(name))
    {
        Some(missing) => Err(Error::UnusableCertificate(format!(
            "it is not for {missing}"
        ))),
        None => Ok(IssuedCertificate {
            certificate,
            key,
            chain,
        }),
    }
}
