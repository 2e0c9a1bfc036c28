//! OpenSSL's cipher lists (openssl-ciphers(1)), read for the suites that rustls has.
//!
//! A list is a sequence of steps: `A+B` adds the suites that are both A and B, `-A` removes, `!A`
//! removes for good, `+A` moves to the end. OpenSSL keeps the suites of TLS 1.3 out of these lists;
//! this module knows them by their names only.

use rustls::{CipherSuite, SupportedCipherSuite};

/// The suites that a list leaves.
pub(super) struct Chosen {
    /// The suites, in the list's order, those of TLS 1.3 first. Empty when the list leaves none.
    pub suites: Vec<SupportedCipherSuite>,
    /// Steps that add suites, and match none that rustls has.
    pub unmatched: Vec<String>,
}

/// Reads `list` for the suites in `known`.
pub(super) fn choose(list: &str, known: &[SupportedCipherSuite]) -> Chosen {
    let (tls13, tls12): (Vec<_>, Vec<_>) = known.iter().copied().partition(|suite| suite.tls13().is_some());
    let mut reading = CipherList { known: tls12, chosen: Vec::new(), killed: Vec::new() };
    let mut unmatched = Vec::new();
    let mut names_tls13 = false;
    // @STRENGTH and @SECLEVEL, which end a word, have no effect: every suite that rustls has is
    // strong enough for each of them.
    let steps = list.split([':', ',', ' ', ';']).map(|step| step.split('@').next().unwrap_or_default());
    for step in steps.filter(|step| !step.is_empty()) {
        if tls13.iter().any(|suite| tls13_name(suite.suite()) == step) {
            names_tls13 = true;
        } else if !reading.take(step) {
            unmatched.push(step.to_owned());
        }
    }
    let suites = match (reading.chosen.is_empty(), names_tls13) {
        (true, false) => Vec::new(),
        _ => tls13.into_iter().chain(reading.chosen).collect(),
    };
    Chosen { suites, unmatched }
}

/// The name of a suite in OpenSSL, and so in Python's `ssl`.
pub(super) fn openssl_name(suite: CipherSuite) -> String {
    let known = SUITES.iter().find(|known| known.0 == suite);
    known.map_or_else(|| tls13_name(suite), |known| known.1.to_owned())
}

struct CipherList {
    known: Vec<SupportedCipherSuite>,
    chosen: Vec<SupportedCipherSuite>,
    killed: Vec<SupportedCipherSuite>,
}

impl CipherList {
    /// Applies one step; false if it adds suites and matches none.
    fn take(&mut self, step: &str) -> bool {
        if let Some(words) = step.strip_prefix('!') {
            let gone = self.matching(words);
            self.chosen.retain(|suite| !gone.contains(suite));
            self.killed.extend(gone);
        } else if let Some(words) = step.strip_prefix('-') {
            let gone = self.matching(words);
            self.chosen.retain(|suite| !gone.contains(suite));
        } else if let Some(words) = step.strip_prefix('+') {
            let last = self.matching(words);
            let (moved, mut kept): (Vec<_>, Vec<_>) = self.chosen.drain(..).partition(|suite| last.contains(suite));
            kept.extend(moved);
            self.chosen = kept;
        } else {
            let found = self.matching(step);
            for suite in &found {
                if !self.chosen.contains(suite) && !self.killed.contains(suite) {
                    self.chosen.push(*suite);
                }
            }
            return !found.is_empty();
        }
        true
    }

    /// The suites that are all of `words`, which have `+` between them.
    fn matching(&self, words: &str) -> Vec<SupportedCipherSuite> {
        let is = |suite: &&SupportedCipherSuite| words.split('+').all(|word| describes(word, suite.suite()));
        self.known.iter().filter(is).copied().collect()
    }
}

/// Whether one of OpenSSL's words means this suite of TLS 1.2.
fn describes(word: &str, suite: CipherSuite) -> bool {
    let Some(&(_, name, key, cipher)) = SUITES.iter().find(|known| known.0 == suite) else { return false };
    let is_aes = cipher != Cipher::ChaCha20;
    match word {
        "ALL" | "DEFAULT" | "HIGH" | "TLSv1.2" | "ECDH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
        "ECDSA" | "aECDSA" => key == Key::Ecdsa,
        // `RSA` alone means suites that exchange the key by RSA as well. There are none here.
        "aRSA" => key == Key::Rsa,
        "AES" | "AESGCM" | "FIPS" => is_aes,
        "AES128" => cipher == Cipher::Aes128,
        "AES256" => cipher == Cipher::Aes256,
        "CHACHA20" => cipher == Cipher::ChaCha20,
        "SUITEB128" => key == Key::Ecdsa && is_aes,
        "SUITEB128ONLY" => key == Key::Ecdsa && cipher == Cipher::Aes128,
        "SUITEB192" => key == Key::Ecdsa && cipher == Cipher::Aes256,
        // OpenSSL takes IANA's names as well.
        word => word == name || word == format!("{suite:?}"),
    }
}

/// OpenSSL's name of a suite of TLS 1.3 is IANA's; rustls puts the version into its own.
fn tls13_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replace("TLS13_", "TLS_")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Ecdsa,
    Rsa,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128,
    Aes256,
    ChaCha20,
}

/// The suites of rustls for TLS 1.2: OpenSSL's name, the kind of key in the certificate, the
/// cipher. All are ECDHE.
const SUITES: [(CipherSuite, &str, Key, Cipher); 6] = [
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", Key::Ecdsa, Cipher::Aes256),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", Key::Ecdsa, Cipher::Aes128),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        Key::Ecdsa,
        Cipher::ChaCha20,
    ),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", Key::Rsa, Cipher::Aes256),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", Key::Rsa, Cipher::Aes128),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        Key::Rsa,
        Cipher::ChaCha20,
    ),
];

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

    use super::*;

    /// The suites of TLS 1.2 that a list leaves, shortened, then its unmatched steps.
    fn read(list: &str) -> (String, String) {
        let chosen = choose(list, ALL_CIPHER_SUITES);
        let name = |suite: &SupportedCipherSuite| {
            let known = SUITES.iter().find(|known| known.0 == suite.suite())?;
            let key = if known.2 == Key::Ecdsa { "e" } else { "r" };
            Some(format!("{key}{}", [128, 256, 20][known.3 as usize]))
        };
        (Vec::from_iter(chosen.suites.iter().filter_map(name)).join(" "), chosen.unmatched.join(" "))
    }

    #[test]
    fn the_table_holds_every_suite_there_is() {
        let tls12: Vec<CipherSuite> =
            ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none()).map(|suite| suite.suite()).collect();
        assert_eq!(tls12, SUITES.map(|known| known.0));
    }

    #[test]
    fn lists_are_read_as_openssl_reads_them() {
        let cases = [
            ("ECDHE-RSA-AES128-GCM-SHA256", "r128", ""),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "r128", ""),
            ("ECDHE+AESGCM:!aNULL:!MD5", "e256 e128 r256 r128", ""),
            ("HIGH:!CHACHA20:+ECDSA", "r256 r128 e256 e128", ""),
            ("CHACHA20 AES128,AES256", "e20 r20 e128 r128 e256 r256", ""),
            ("ECDH+AESGCM:ECDH+CHACHA20:!MD5", "e256 e128 r256 r128 e20 r20", ""),
            ("ALL:-aRSA:aRSA+AES128", "e256 e128 e20 r128", ""),
            ("ALL:!aRSA:aRSA+AES128", "e256 e128 e20", ""),
            ("ECDHE+AESGCM:!RSA:RSA+AES128", "e256 e128 r256 r128", "RSA+AES128"),
            ("aRSA+AES@SECLEVEL=1", "r256 r128", ""),
            ("ECDHE-ECDSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:kRSA", "e128", "DHE-RSA-AES128-GCM-SHA256 kRSA"),
            ("ECDHE+SHA256:ECDHE+RSA@STRENGTH", "", "ECDHE+SHA256 ECDHE+RSA"),
            ("SUITEB192:@STRENGTH", "e256", ""),
            ("AES128-SHA:RC4", "", "AES128-SHA RC4"),
        ];
        for (list, suites, unmatched) in cases {
            assert_eq!(read(list), (suites.to_owned(), unmatched.to_owned()), "{list}");
        }
    }

    #[test]
    fn suites_of_tls_1_3_stay_unless_nothing_at_all_is_left() {
        let count = |list| choose(list, ALL_CIPHER_SUITES).suites.len();
        assert_eq!(count("ECDHE-RSA-AES128-GCM-SHA256"), 4);
        assert_eq!(count("TLS_AES_256_GCM_SHA384"), 3);
        assert_eq!(count("RC4"), 0);
    }
}
