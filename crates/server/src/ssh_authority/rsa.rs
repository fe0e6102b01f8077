//! Signatures of an authority's RSA key, by aws-lc, whose operations on private keys take the same time whatever the
//! key (the pure Rust implementation behind ssh-key does not, so it only verifies here: RUSTSEC-2023-0071).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA512, RsaKeyPair};
use munjigi_core::secret::Secret;
use russh::keys::signature::{Error, Signer};

use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Mpint, Signature, SigningKey};
use russh::keys::{Algorithm, HashAlg, PrivateKey};

/// An RSA key that signs with SHA-512.
pub(super) struct RsaSigner {
    pair: RsaKeyPair,
    public: KeyData,
}

impl RsaSigner {
    /// Takes a key; `None` if it is no RSA key, or one whose parts do not fit each other.
    pub(super) fn new(key: &PrivateKey) -> Option<Self> {
        let KeypairData::Rsa(pair) = key.key_data() else { return None };
        let der = Secret::new(private_key_der(pair)?);
        let pair = RsaKeyPair::from_der(der.expose()).ok()?;
        Some(Self { pair, public: key.public_key().key_data().clone() })
    }
}

impl Signer<Signature> for RsaSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature).map_err(|_| Error::new())?;
        Signature::new(Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, signature).map_err(|_| Error::new())
    }
}

impl SigningKey for RsaSigner {
    fn public_key(&self) -> KeyData {
        self.public.clone()
    }
}

/// Writes `RSAPrivateKey` (RFC 8017, A.1.2). OpenSSH stores all of it but both exponents of the primes.
fn private_key_der(pair: &RsaKeypair) -> Option<Vec<u8>> {
    let (public, private) = (pair.public(), pair.private());
    let bytes = Mpint::as_positive_bytes;
    let (p, q, d) = (bytes(private.p())?, bytes(private.q())?, bytes(private.d())?);
    let exponents = [Secret::new(remainder(d, &less_one(p)?)), Secret::new(remainder(d, &less_one(q)?))];
    let [of_p, of_q] = &exponents;
    let parts = [
        &[][..],
        bytes(public.n())?,
        bytes(public.e())?,
        d,
        p,
        q,
        of_p.expose(),
        of_q.expose(),
        bytes(private.iqmp())?,
    ];
    // Room for every head, so that no copy of the key is left behind.
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        integer(&mut body, part);
    }
    let body = Secret::new(body);
    let mut der = Vec::with_capacity(body.expose().len() + 8);
    der.push(0x30);
    length(&mut der, body.expose().len());
    der.extend_from_slice(body.expose());
    Some(der)
}

/// Writes a number that is not negative.
fn integer(der: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = significant(bytes);
    let zero = bytes.first().is_none_or(|first| first & 0x80 != 0);
    der.push(0x02);
    length(der, bytes.len() + usize::from(zero));
    if zero {
        der.push(0);
    }
    der.extend_from_slice(bytes);
}

fn length(der: &mut Vec<u8>, length: usize) {
    // No part of a key is longer than 64 KiB: its file is not.
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    match (high, low) {
        (0, 0..0x80) => der.push(low),
        (0, _) => der.extend_from_slice(&[0x81, low]),
        _ => der.extend_from_slice(&[0x82, high, low]),
    }
}

fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Subtracts one from an odd number; `None` for an even one, which is no prime of a key.
fn less_one(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut less = significant(bytes).to_vec();
    let last = less.last_mut().filter(|last| **last & 1 == 1)?;
    *last &= !1;
    (less.iter().any(|byte| *byte != 0)).then_some(less)
}

/// Returns the remainder of two numbers, bit by bit; done once when a key is taken or read.
fn remainder(dividend: &[u8], divisor: &[u8]) -> Vec<u8> {
    // One byte more than the divisor, for the bit that doubling brings.
    let mut rest = vec![0_u8; divisor.len() + 1];
    for bit in dividend.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let doubled = u16::from(*byte) << 1 | u16::from(carry);
            [carry, *byte] = doubled.to_be_bytes();
        }
        let is_less = rest.iter().copied().lt(std::iter::once(0).chain(divisor.iter().copied()));
        if !is_less {
            let mut borrow = false;
            for (byte, of) in rest.iter_mut().rev().zip(divisor.iter().rev().copied().chain(std::iter::once(0))) {
                let (first, under) = byte.overflowing_sub(of);
                let (second, under_again) = first.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (second, under || under_again);
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_machine_numbers() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..10_000 {
            let (a, b) = (next() >> (round % 60), (next() >> (round % 56)).max(1));
            let rest = remainder(&a.to_be_bytes(), significant(&b.to_be_bytes()));
            let value = rest.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
            assert_eq!(value, u128::from(a % b), "{a} % {b}");
        }
    }

    #[test]
    fn a_number_has_its_shortest_form_and_is_not_negative() {
        for (bytes, wanted) in
            [(&[][..], &[2, 1, 0][..]), (&[0, 0], &[2, 1, 0]), (&[0, 5], &[2, 1, 5]), (&[0x80], &[2, 2, 0, 0x80])]
        {
            let mut der = Vec::new();
            integer(&mut der, bytes);
            assert_eq!(der, wanted);
        }
        let mut der = Vec::new();
        integer(&mut der, &[1; 300]);
        assert_eq!(der[..4], [2, 0x82, 1, 44]);
    }
}
