//! `inputs`: what a session keeps to. Every field is read; which of them this server acts on, the warnings say.

use std::time::Duration;

use super::error::DocumentError;
use super::read::{At, Fields};
use crate::grant::valid_os_user;
use crate::policy::json::Node;

const KNOWN: [&str; 12] = [
    "s3BucketName",
    "s3KeyPrefix",
    "s3EncryptionEnabled",
    "cloudWatchLogGroupName",
    "cloudWatchEncryptionEnabled",
    "cloudWatchStreamingEnabled",
    "kmsKeyId",
    "runAsEnabled",
    "runAsDefaultUser",
    "idleSessionTimeout",
    "maxSessionDuration",
    "shellProfile",
];

/// The preferences of a document, typed. Empty texts stand for what is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Bucket for the transcript, 3 to 63 characters.
    pub s3_bucket: String,
    /// What its objects' names begin with, at most 500 characters.
    pub s3_prefix: String,
    /// Whether the bucket must encrypt.
    pub s3_encryption: bool,
    /// Log group for the transcript, at most 512 characters.
    pub log_group: String,
    /// Whether the log group must encrypt.
    pub log_encryption: bool,
    /// Whether the transcript is streamed to it rather than sent at the end.
    pub log_streaming: bool,
    /// Key that the stream's content is to be encrypted with.
    pub kms_key: String,
    /// Whether sessions run as a named account, and as nobody else.
    pub run_as: bool,
    /// That account, unless the principal's tag names another.
    pub run_as_user: String,
    /// Ends a session after this long without input or output; 1 to 60 minutes.
    pub idle: Option<Duration>,
    /// Ends a session this long after its start; 1 to 1440 minutes.
    pub maximum: Option<Duration>,
    /// Lines typed into a shell on Linux at its start; at most 512 characters.
    pub profile: String,
}

impl Preferences {
    /// Reads `inputs`; `open`: parameters are still to be put in.
    pub(super) fn read(inputs: Option<&Node>, open: bool) -> Result<Self, DocumentError> {
        let Some(inputs) = inputs else { return Ok(Self::default()) };
        let fields = Fields::of_template(inputs, "$.inputs", open)?;
        fields.only(&KNOWN)?;
        let text = |name: &str, least: usize, most: usize| -> Result<String, DocumentError> {
            let Some(found) = fields.get(name) else { return Ok(String::new()) };
            let text = found.text_of(most)?;
            let short = !text.is_empty() && text.chars().count() < least && !found.is_open();
            if short { Err(found.wrong(format!("has less than {least} characters"))) } else { Ok(text) }
        };
        let flag = |name: &str, otherwise: bool| fields.get(name).map_or(Ok(otherwise), |found| found.flag());
        let minutes = |name: &str, most: u32| -> Result<Option<Duration>, DocumentError> {
            let minutes = fields.get(name).map(|found| found.number(1, most)).transpose()?.flatten();
            Ok(minutes.map(|minutes| Duration::from_secs(60 * u64::from(minutes))))
        };
        Ok(Self {
            s3_bucket: text("s3BucketName", 3, 63)?,
            s3_prefix: text("s3KeyPrefix", 0, 500)?,
            // What is not said is demanded: a transcript in the clear must be somebody's explicit choice.
            s3_encryption: flag("s3EncryptionEnabled", true)?,
            log_group: text("cloudWatchLogGroupName", 1, 512)?,
            log_encryption: flag("cloudWatchEncryptionEnabled", true)?,
            log_streaming: flag("cloudWatchStreamingEnabled", false)?,
            kms_key: text("kmsKeyId", 1, 2048)?,
            run_as: flag("runAsEnabled", false)?,
            run_as_user: fields.get("runAsDefaultUser").map_or(Ok(String::new()), |found| os_user(&found))?,
            idle: minutes("idleSessionTimeout", 60)?,
            maximum: minutes("maxSessionDuration", 1440)?,
            profile: fields.get("shellProfile").map_or(Ok(String::new()), |found| profile(&found))?,
        })
    }

    /// Returns what these preferences ask for and this server does not do, or not in that way.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.kms_key.is_empty() {
            warnings.push(
                "kmsKeyId is set: this server cannot encrypt the content of sessions with a KMS key, so shells and \
                 commands with this document are refused; links and data channels are encrypted by TLS all the same"
                    .to_owned(),
            );
        }
        for (set, name) in [(&self.s3_bucket, "s3BucketName"), (&self.log_group, "cloudWatchLogGroupName")] {
            if !set.is_empty() {
                warnings.push(format!("{name} is set: this server keeps every recording itself and uploads none"));
            }
        }
        warnings
    }
}

fn os_user(found: &At<'_>) -> Result<String, DocumentError> {
    let name = found.text_of(255)?;
    if name.is_empty() || found.is_open() || valid_os_user(&name) {
        return Ok(name);
    }
    Err(found.wrong("must be the name of an OS user: 1 to 32 of a-z, 0-9, _ . - beginning with a letter or _"))
}

/// Reads the profiles of all platforms and returns that of Linux.
fn profile(found: &At<'_>) -> Result<String, DocumentError> {
    let fields = found.fields()?;
    fields.only(&["linux", "windows"])?;
    let lines = |name: &str| fields.get(name).map_or(Ok(String::new()), |found| found.text_of(512));
    lines("windows")?;
    // 512 characters are at most the bytes that a grant takes.
    lines("linux")
}
