//! Verification of a whole trail from its files, streaming; also of one whose server does not run.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use munjigi_core::audit::{Checkpoint, Trust, Verdict, Verifier};
use munjigi_core::trust::TrustedKey;

use super::trail::{read_log_id, segments};
use super::{AuditError, segment};
use crate::directory::{Access, Directory};

/// The file beside the segments that holds the checkpoints, one a line.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// Most bytes read of it, some fifty years of a checkpoint a minute.
const MOST_CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024 * 1024;
const PIECE_BYTES: usize = 256 * 1024;

/// Verifies the trail in a directory, without a running server. `checkpoints` are those that were kept elsewhere.
/// `progress` is told how many bytes were read since it was told last.
pub fn verify_directory(
    path: &Path,
    trusted: Vec<TrustedKey>,
    checkpoints: impl IntoIterator<Item = Checkpoint>,
    progress: &mut dyn FnMut(&[u8]),
) -> Result<Verdict, AuditError> {
    let directory = Directory::open_path(path).map_err(AuditError::io("open the trail's directory"))?;
    let log = read_log_id(&directory)?.ok_or_else(|| AuditError::Damaged("the file log-id is missing".into()))?;
    let files: Vec<(u32, u64)> = segments(&directory)?.into_iter().map(|number| (number, u64::MAX)).collect();
    let trust = Trust { log, keys: trusted };
    let kept = self::checkpoints(&directory)?;
    verify(&directory, &trust, kept.into_iter().chain(checkpoints), &files, progress)
}

/// Feeds files, each up to its limit, to the verifier and to `seen`.
pub(super) fn verify(
    directory: &Directory,
    trust: &Trust,
    checkpoints: impl IntoIterator<Item = Checkpoint>,
    files: &[(u32, u64)],
    seen: &mut dyn FnMut(&[u8]),
) -> Result<Verdict, AuditError> {
    let mut verifier = Verifier::new(trust, checkpoints);
    let mut piece = vec![0; PIECE_BYTES];
    for (number, limit) in files {
        let name = segment::name(*number);
        let file = directory.open_file(&name, Access::Read).map_err(AuditError::io("open a file of the trail"))?;
        let mut at = 0;
        loop {
            let want = usize::try_from(limit - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let length = match file.read_at(piece.get_mut(..want).unwrap_or_default(), at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(AuditError::io("read the trail"))?,
            };
            let Some(bytes) = piece.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
            at += length as u64;
            verifier.feed(bytes);
            seen(bytes);
        }
    }
    Ok(verifier.finish())
}

/// Reads the checkpoints kept beside the segments. An unfinished last line is what a crash leaves behind; any other
/// line that is none is damage.
pub(super) fn checkpoints(directory: &Directory) -> Result<Vec<Checkpoint>, AuditError> {
    let file = match directory.open_file(CHECKPOINTS, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(AuditError::io("open the checkpoints")(error)),
    };
    let mut checkpoints = Vec::new();
    let mut line = Vec::new();
    let mut reader = io::BufReader::new(io::Read::take(file, MOST_CHECKPOINT_BYTES));
    loop {
        line.clear();
        let length =
            io::BufRead::read_until(&mut reader, b'\n', &mut line).map_err(AuditError::io("read the checkpoints"))?;
        if length == 0 {
            return Ok(checkpoints);
        }
        let Some(text) = line.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok()) else {
            return if line.ends_with(b"\n") { Err(damaged(checkpoints.len())) } else { Ok(checkpoints) };
        };
        checkpoints.push(Checkpoint::parse(text).map_err(|_| damaged(checkpoints.len()))?);
    }
}

fn damaged(before: usize) -> AuditError {
    AuditError::Damaged(format!("line {} of the file checkpoints is no checkpoint", before + 1).into())
}
