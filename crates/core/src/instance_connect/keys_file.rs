//! The list of pushed keys: blocks of `#Name=value` lines, the key, and the signer's signature in base64; blank lines between
//! them.
//!
//! What is signed is every `#` line and the key's line exactly as they came, each with its line feed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signer::Signer;
use super::{AwsKey, Distrust, RefusedKey, valid_instance_id};
use crate::ssh::PublicKey;
use crate::time::Timestamp;

/// Largest list in bytes.
pub const MAX_KEYS_FILE: usize = 256 * 1024;
/// Most keys in a list; AWS keeps each for a minute.
const MAX_BLOCKS: usize = 256;
/// Longest caller or request id in bytes; an ARN has at most 2048.
const MAX_TEXT: usize = 2048;

/// What the list says of one key; nothing of it is checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    expires: Option<i64>,
    instance: Option<&'a str>,
    caller: &'a str,
    request_id: &'a str,
    key: &'a str,
    signed: Vec<u8>,
    signature: String,
}

/// Cuts a list into its blocks. Those without a key's line are left out: there is nothing that they could let in.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Block<'_>>, Distrust> {
    if file.len() > MAX_KEYS_FILE {
        return Err(Distrust::MalformedKeys);
    }
    let text = std::str::from_utf8(file).map_err(|_| Distrust::MalformedKeys)?;
    let mut blocks = Vec::new();
    let mut lines = text.split('\n').peekable();
    while lines.peek().is_some() {
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.trim().is_empty()).collect();
        let Some(block) = Block::read(&block) else { continue };
        if blocks.len() >= MAX_BLOCKS {
            return Err(Distrust::MalformedKeys);
        }
        blocks.push(block);
    }
    Ok(blocks)
}

impl<'a> Block<'a> {
    fn read(lines: &[&'a str]) -> Option<Self> {
        let at = lines.iter().position(|line| !line.starts_with('#'))?;
        let (said, rest) = lines.split_at_checked(at)?;
        let (key, signature) = rest.split_first()?;
        // Of a name that comes twice the last one counts, as for AWS's own program; those it does not know are signed too.
        let value = |name: &str| said.iter().rev().find_map(|line| line.strip_prefix(name));
        let mut signed = Vec::new();
        for line in said.iter().chain([key]) {
            signed.extend_from_slice(line.as_bytes());
            signed.push(b'\n');
        }
        Some(Self {
            expires: value("#Timestamp=").and_then(|text| text.parse().ok()).filter(|at| *at > 0),
            instance: value("#Instance="),
            caller: value("#Caller=").unwrap_or_default(),
            request_id: value("#Request=").unwrap_or_default(),
            key,
            signed,
            signature: signature.iter().map(|line| line.trim()).collect(),
        })
    }

    /// Returns the key if it is good: complete, the one that was offered, for this instance, not over, and signed.
    pub(super) fn judge(
        &self,
        instance: &str,
        signer: &Signer,
        offered: Option<(&str, &[u8])>,
        now: Timestamp,
    ) -> Result<AwsKey, RefusedKey> {
        let key = PublicKey::parse(self.key).map_err(|_| RefusedKey::from(Distrust::KeyNotTaken))?;
        let refused = |why| RefusedKey { why, fingerprint: Some(key.fingerprint()) };
        if offered.is_some_and(|(kind, blob)| key.kind().as_str() != kind || key.blob() != blob) {
            return Err(refused(Distrust::OtherKey));
        }
        let shown = |text: &str| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
        let complete = shown(self.caller) && shown(self.request_id) && !self.signature.is_empty();
        let (Some(expires), Some(meant), true) = (self.expires, self.instance, complete) else {
            return Err(refused(Distrust::IncompleteKey));
        };
        if !valid_instance_id(meant) || meant != instance {
            return Err(refused(Distrust::OtherInstance));
        }
        if expires <= now.as_secs() {
            return Err(refused(Distrust::Expired));
        }
        let signature = STANDARD.decode(&self.signature).map_err(|_| refused(Distrust::BadSignature))?;
        if !signer.has_signed(&self.signed, &signature) {
            return Err(refused(Distrust::BadSignature));
        }
        Ok(AwsKey {
            key,
            expires: Timestamp(expires.saturating_mul(1_000_000)),
            caller: self.caller.to_owned(),
            request_id: self.request_id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn list() -> String {
        format!(
            "#Timestamp=1700000060\n#Instance=i-0123456789abcdef0\n#Caller=arn:aws:iam::1:user/kim\n#Request=r-1\n#Later=x\n{KEY} a \
             comment\nAAAA\nBBBB\n\n\n#Timestamp=1\n{KEY}\nCC==\n"
        )
    }

    #[test]
    fn a_list_is_cut_into_its_keys() {
        let list = list();
        let blocks = parse(list.as_bytes()).unwrap();
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        let first = &blocks[0];
        assert_eq!((first.expires, first.instance), (Some(1_700_000_060), Some("i-0123456789abcdef0")));
        assert_eq!((first.caller, first.request_id), ("arn:aws:iam::1:user/kim", "r-1"));
        assert_eq!(first.signature, "AAAABBBB");
        let signed = list.split_once("AAAA\n").unwrap().0;
        // The key's own base64 begins with these letters too.
        assert!(first.signed.starts_with(signed.as_bytes()) && first.signed.ends_with(b" a comment\n"));
        assert_eq!((blocks[1].expires, blocks[1].instance, blocks[1].signature.as_str()), (Some(1), None, "CC=="));
    }

    #[test]
    fn what_holds_no_key_is_left_out_and_what_is_too_much_is_refused() {
        for empty in ["", "\n\n\n", "#Timestamp=1\n#Instance=x\n\n", "#only"] {
            assert_eq!(parse(empty.as_bytes()).unwrap(), [], "{empty:?}");
        }
        let many = format!("{KEY}\nAAAA\n\n").repeat(MAX_BLOCKS + 1);
        assert_eq!(parse(many.as_bytes()), Err(Distrust::MalformedKeys));
        assert_eq!(parse(&vec![b'\n'; MAX_KEYS_FILE + 1]), Err(Distrust::MalformedKeys));
        assert_eq!(parse(b"\xff"), Err(Distrust::MalformedKeys));
        for bad in ["", "-5", "0", "soon", "99999999999999999999"] {
            let list = format!("#Timestamp={bad}\n{KEY}\nAAAA\n");
            assert_eq!(parse(list.as_bytes()).unwrap()[0].expires, None, "{bad}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let signer = Signer::for_tests();
        let list = list();
        crate::mutate::each(list.as_bytes(), 0x6b65_7973, |bytes| {
            let blocks = parse(bytes).unwrap_or_default();
            assert!(blocks.len() <= MAX_BLOCKS);
            for block in blocks {
                let now = Timestamp::from_secs(1_700_000_000);
                assert!(block.judge("i-0123456789abcdef0", &signer, None, now).is_err());
            }
        });
    }
}
