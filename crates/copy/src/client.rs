//! The client's side of the conversation with a worker: hello, its answer, then the copy. Blocks.

use std::sync::Arc;

use munjigi_core::copy::{Hello, Kinds, Message, Pattern, Ready, VERSION};

use crate::chunk::{In, Out};
use crate::error::CopyFailure;
use crate::place::Place;
use crate::progress::Progress;
use crate::receive::{Receive, receive};
use crate::send::{Send, send};
use crate::sources::Source;

/// How files are copied, in either direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Directories too.
    pub recursive: bool,
    /// Keep modes and times.
    pub preserve: bool,
    /// Use what is there, and keep what cannot be finished.
    pub resume: bool,
    /// Find out first how much there is.
    pub totals: bool,
}

/// Sends what `sources` makes of the worker's answer.
pub fn upload(
    mut out: Out,
    mut answers: In,
    options: Options,
    progress: &Arc<Progress>,
    sources: impl FnOnce(&Ready) -> Result<Vec<Source>, CopyFailure>,
) -> Result<(), CopyFailure> {
    let ready = greet(&mut out, &mut answers, options)?;
    let Options { recursive, resume, totals, .. } = options;
    send(Send { sources: sources(&ready)?, recursive, resume, totals }, out, answers, progress)
}

/// Receives into the place that `place` makes of the worker's answer, and only what fits the pattern, if it gives one.
pub fn download(
    mut out: Out,
    mut input: In,
    options: Options,
    progress: &Arc<Progress>,
    place: impl FnOnce(&Ready) -> Result<(Place, Option<Pattern>), CopyFailure>,
) -> Result<(), CopyFailure> {
    let ready = greet(&mut out, &mut input, options)?;
    let (place, expected) = place(&ready)?;
    let Options { preserve, resume, .. } = options;
    receive(Receive { place, preserve, resume, expected }, out, input, progress)
}

fn greet(out: &mut Out, answers: &mut In, options: Options) -> Result<Ready, CopyFailure> {
    let Options { recursive, preserve, resume, totals } = options;
    out.message(&Message::Hello(Hello { version: VERSION, recursive, preserve, resume, totals }))?;
    out.flush()?;
    match answers.message(Kinds::ANSWER)? {
        Message::Ready(ready) => Ok(ready),
        Message::Failed { code, why } => Err(CopyFailure::Refused { code, why }),
        // The set lets nothing else through.
        _ => Err(CopyFailure::Gone),
    }
}
