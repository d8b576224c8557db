//! What a person can do when NATS does not let a process in.

/// Words of the client's, and what to do about them; the first that fits.
const KNOWN: [(&[&str], &str); 6] = [
    (
        &[
            "authorization violation",
            "Authorization Violation",
            "Revoked",
        ],
        "the server does not know this user, or its proof is another's: `fedpipe admin add-worker` (or `add-service`) prints the block that the server's configuration needs, and nats.seed_file (or user and password) must be the one that belongs to it",
    ),
    (
        &["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature"],
        "the server's certificate is not trusted: nats.ca_file must hold the authority that signed it",
    ),
    (
        &["NotValidForName", "not valid for name"],
        "the server's certificate names other hosts: the host in nats.url must be one of them",
    ),
    (
        &[
            "CertificateRequired",
            "certificate required",
            "CertificateUnknown",
            "BadCertificate",
        ],
        "the server asks for a certificate of an authority that it trusts: set nats.certificate_file and nats.key_file",
    ),
    (
        &["refused", "DNS error", "lookup", "timed out", "unreachable"],
        "start NATS, or correct nats.url",
    ),
    (
        &["TLS", "tls", "certificate", "IO error"],
        "look at nats.url, and where the server speaks TLS at nats.ca_file, nats.certificate_file and nats.key_file; `fedpipe doctor` says more, and so does the server's log",
    ),
];

/// What to do about an error of the client, by its words; they are all that it gives.
pub(crate) fn advice(words: &str) -> Option<&'static str> {
    let fits = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    KNOWN
        .iter()
        .find(|known| fits(known.0))
        .map(|known| known.1)
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn each_trouble_has_its_own_advice_and_an_unknown_one_has_none() {
        let check = |words, part: &str| {
            let found = advice(words);
            assert!(
                found.is_some_and(|found| found.contains(part)),
                "{words}: {found:?}"
            );
        };
        check(
            "authorization violation: nats: authorization violation",
            "add-worker",
        );
        check(
            "TLS error: invalid peer certificate: UnknownIssuer",
            "nats.ca_file must",
        );
        check(
            "IO error: invalid peer certificate: NotValidForName",
            "nats.url must",
        );
        check(
            "IO error: received fatal alert: CertificateRequired",
            "certificate_file",
        );
        check("IO error: Connection refused (os error 111)", "start NATS");
        assert_eq!(advice("something else"), None);
    }
}
