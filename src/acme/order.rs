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
use super::account::blocking;
use super::answers::{Answers, Shared, certified};
use super::storage::Storage;
use crate::certificate::Certificate;
use crate::config::{Acme, Challenge, KeyType, Names};
use crate::issued::{Answer, Issued};

/// For a whole order; authorities look from several places, one after the other.
const TIME: Duration = Duration::from_secs(5 * 60);

/// How often the authority is asked how far it is, and for how long.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.4)
    .timeout(Duration::from_secs(90));

/// What was ordered.
pub(super) struct Delivery {
    pub(super) certificate: Certificate,
    /// PEM.
    pub(super) key: String,
    /// PEM.
    pub(super) chain: String,
}

/// Orders a certificate; `replaces`: the one before, where the authority wants to know (RFC 9773, 5).
pub(super) async fn order(
    account: &Account,
    acme: &Acme,
    names: &Names,
    replaces: Option<CertificateIdentifier<'static>>,
    issued: &Arc<Issued>,
) -> Result<Delivery, Error> {
    let work = run(account, acme, names, replaces, issued);
    tokio::time::timeout(TIME, work)
        .await
        .unwrap_or(Err(Error::Late(TIME)))
}

async fn run(
    account: &Account,
    acme: &Acme,
    names: &Names,
    replaces: Option<CertificateIdentifier<'static>>,
    issued: &Arc<Issued>,
) -> Result<Delivery, Error> {
    let mut order = begin(account, names, replaces).await?;
    // Held until the authority has looked.
    let answers = answer_all(&mut order, acme, issued).await?;
    if order.state().status == OrderStatus::Pending {
        ready(&mut order).await?;
    }
    drop(answers);
    let (key, request) = request(names, acme.key_type)?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    accept(names, &key, chain)
}

async fn begin(
    account: &Account,
    names: &Names,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Order, Error> {
    let names: Vec<Identifier> = names.all().iter().cloned().map(Identifier::Dns).collect();
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
async fn answer_all(
    order: &mut Order,
    acme: &Acme,
    issued: &Arc<Issued>,
) -> Result<Vec<Given>, Error> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                answers.push(answer(authorization, acme, issued).await?);
            }
            status => {
                return Err(Error::Unseen(format!(
                    "{}: {status:?}",
                    name(&authorization)
                )));
            }
        }
    }
    Ok(answers)
}

/// An answer, here and where the processes find it that share the storage.
type Given = (Answer, Option<Shared>);

async fn answer(
    mut authorization: AuthorizationHandle<'_>,
    acme: &Acme,
    issued: &Arc<Issued>,
) -> Result<Given, Error> {
    let name = name(&authorization);
    let (kind, said) = match acme.challenge {
        Challenge::Http01 => (ChallengeType::Http01, "http-01"),
        Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    };
    let Some(mut handle) = authorization.challenge(kind) else {
        return Err(Error::Unseen(format!(
            "the authority does not offer {said} for {name}"
        )));
    };
    let answers = Storage::of(acme).answers();
    let given = match acme.challenge {
        Challenge::Http01 => by_token(&handle, answers, issued).await?,
        Challenge::TlsAlpn01 => by_proof(name, &handle, answers, issued).await?,
    };
    handle.set_ready().await?;
    Ok(given)
}

async fn by_token(
    challenge: &ChallengeHandle<'_>,
    answers: Answers,
    issued: &Arc<Issued>,
) -> Result<Given, Error> {
    let token = challenge.token.clone();
    let answer = challenge.key_authorization().as_str().to_owned();
    let given = issued.answer(token.clone(), answer.clone());
    let shared = blocking(move || answers.share_token(&token, &answer));
    Ok((given, shared.await?))
}

async fn by_proof(
    name: String,
    challenge: &ChallengeHandle<'_>,
    answers: Answers,
    issued: &Arc<Issued>,
) -> Result<Given, Error> {
    let pem = proof(&name, challenge)?;
    let useless = |error: rustls::Error| Error::Useless(error.to_string());
    let shown = certified(pem.as_bytes()).map_err(useless)?;
    let given = issued.prove(name.clone(), Arc::new(shown));
    let shared = blocking(move || answers.share_proof(&name, &pem));
    Ok((given, shared.await?))
}

fn name(authorization: &AuthorizationHandle<'_>) -> String {
    authorization.identifier().to_string().to_ascii_lowercase()
}

/// What is shown to the authority (RFC 8737, 3): a key and its certificate, PEM.
fn proof(name: &str, challenge: &ChallengeHandle<'_>) -> Result<String, Error> {
    let digest = challenge.key_authorization().digest();
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Waits until the authority has seen all names.
async fn ready(order: &mut Order) -> Result<(), Error> {
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Invalid) => {
            let invalid = Error::Unseen("the order is invalid".to_owned());
            Err(unseen(order).await.unwrap_or(invalid))
        }
        Err(error @ instant_acme::Error::Api(_)) => {
            Err(unseen(order).await.unwrap_or(error.into()))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// What the authority did not see, and where.
async fn unseen(order: &mut Order) -> Option<Error> {
    let mut problems = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let _ = authorization.refresh().await;
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref()?.detail.as_deref());
        problems.extend(errors.map(|error| format!("{}: {error}", name(&authorization))));
    }
    (!problems.is_empty()).then(|| Error::Unseen(problems.join("; ")))
}

/// A new key, and the request for its certificate (RFC 2986). Each certificate has a key of its own: a
/// key that is lost is lost for one life only.
fn request(names: &Names, kind: KeyType) -> Result<(KeyPair, Vec<u8>), Error> {
    let kind: &SignatureAlgorithm = match kind {
        KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let mut params = CertificateParams::new(names.all())?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate_for(kind)?;
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key, request))
}

/// What is not what was ordered is not put in the place of what is there.
fn accept(names: &Names, key: &KeyPair, chain: String) -> Result<Delivery, Error> {
    let key = key.serialize_pem();
    let read = Certificate::read(chain.as_bytes(), key.as_bytes(), None);
    let certificate = read.map_err(|error| Error::Useless(error.to_string()))?;
    match names
        .all()
        .iter()
        .find(|&name| !certificate.names.contains(name))
    {
        Some(missing) => Err(Error::Useless(format!("it is not for {missing}"))),
        None => Ok(Delivery {
            certificate,
            key,
            chain,
        }),
    }
}
