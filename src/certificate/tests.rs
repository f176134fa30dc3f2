//! Tests with the files of the golden cases in `tests/golden/tls`.

use std::path::Path;

use super::time::SECONDS_A_DAY;
use super::*;

/// 2027-01-01
const TODAY: i64 = 1_798_761_600;

#[test]
fn ocsp_response_is_stapled_only_within_its_validity() {
    let certificate = good(Some("fresh.ocsp"));
    let (from, until) = (TODAY - SECONDS_A_DAY, TODAY + 6 * SECONDS_A_DAY);
    for (now, error) in [
        (from - 1, Some(OcspError::NotYetValid(from))),
        (from, None),
        (until, None),
        (until + 1, Some(OcspError::Expired(until))),
    ] {
        assert_eq!(certificate.is_stapled(now), error.is_none(), "{now}");
        assert_eq!(
            certificate.certified_key(now).ocsp.is_some(),
            error.is_none()
        );
        let warnings: Vec<_> = certificate.warnings(now).collect();
        let error = error.map(CertWarning::OcspUnusable);
        assert!(
            error.is_none_or(|error| warnings.contains(&error)),
            "{warnings:?}"
        );
    }
}

#[test]
fn ocsp_response_without_next_update_is_valid_for_one_day() {
    let certificate = good(Some("endless.ocsp"));
    assert!(certificate.is_stapled(TODAY));
    assert!(!certificate.is_stapled(TODAY + 1));
}

#[test]
fn ocsp_response_with_a_bad_status_is_not_stapled() {
    for (file, error) in [
        ("stale.ocsp", OcspError::Expired(TODAY - 24 * SECONDS_A_DAY)),
        ("other.ocsp", OcspError::OtherCertificate),
        ("revoked.ocsp", OcspError::Revoked),
        ("unknown.ocsp", OcspError::Unknown),
        (
            "later.ocsp",
            OcspError::ResponderStatus("asks to try again later"),
        ),
    ] {
        let certificate = good(Some(file));
        assert!(!certificate.is_stapled(TODAY), "{file}");
        let warnings: Vec<_> = certificate.warnings(TODAY).collect();
        assert_eq!(warnings, [CertWarning::OcspUnusable(error)], "{file}");
    }
}

#[test]
fn damaged_ocsp_response_is_an_error_without_panic() {
    let whole = file("fresh.ocsp");
    for length in 0..whole.len() {
        let cut = Certificate::read(
            &file("good.crt"),
            &file("good.key"),
            Some(whole[..length].into()),
        );
        assert_eq!(cut.err(), Some(Error::BadOcsp), "{length} bytes");
        for bit in 0..8 {
            let mut bent = whole.clone();
            bent[length] ^= 1 << bit;
            // Any result will do, but no panic.
            let _ = Certificate::read(&file("good.crt"), &file("good.key"), Some(bent));
        }
    }
    let nested = [0x30, 0x80].repeat(MANY);
    let deep = Certificate::read(&file("good.crt"), &file("good.key"), Some(nested));
    assert_eq!(deep.err(), Some(Error::BadOcsp));
}

#[test]
fn certificate_expiry_warning_starts_two_weeks_or_a_quarter_of_its_life_ahead() {
    let at = |days: i64| TODAY + days * SECONDS_A_DAY;
    for (life, soon) in [(365, 14), (90, 14), (47, 11), (8, 2)] {
        let certificate = Certificate {
            validity: (TODAY, at(life)),
            ..good(None)
        };
        let warning = |now| certificate.warnings(now).next();
        let end = at(life);
        assert_eq!(warning(TODAY - 1), Some(CertWarning::NotYetValid(TODAY)));
        assert_eq!(warning(TODAY), None);
        assert_eq!(
            warning(at(life - soon) - SECONDS_A_DAY),
            None,
            "{life} days"
        );
        assert_eq!(
            warning(at(life - soon)),
            Some(CertWarning::ExpiresSoon(end))
        );
        assert_eq!(warning(end), Some(CertWarning::ExpiresSoon(end)));
        assert_eq!(warning(end + 1), Some(CertWarning::Expired(end)));
    }
}

#[test]
fn crl_warning_starts_after_next_update() {
    let revoked = RevocationLists::read(&file("stale.crl")).unwrap();
    let until = TODAY - 24 * SECONDS_A_DAY;
    assert_eq!(revoked.warning(until), None);
    assert_eq!(
        revoked.warning(until + 1),
        Some(CertWarning::StaleCrl(until))
    );
    assert_eq!(RevocationLists::read(&file("good.crt")), None);
}

const MANY: usize = 10_000;

fn good(ocsp: Option<&str>) -> Certificate {
    let ocsp = ocsp.map(file);
    Certificate::read(&file("good.crt"), &file("good.key"), ocsp).unwrap()
}

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls");
    std::fs::read(folder.join(name)).unwrap()
}
