//! Logins without a key: the SSH client shows a link and a code, somebody who is signed in elsewhere approves it
//! (`ApproveSshLogin`), and the login becomes theirs. Waiting logins are in memory alone and few.
//!
//! A code is 40 random bits, good for two minutes and one answer. Whoever answers is told from where the login comes
//! and where it wants to go: a code that somebody was talked into approving is the danger here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use munjigi_core::time::Timestamp;
use tokio::sync::oneshot;

use super::{SshRefusal, SshWish, refused};
use crate::identity::Caller;
use crate::{Server, clock, lock, random};

/// How long a login waits for its answer.
pub const LIFE: Duration = Duration::from_secs(120);
/// Characters of codes: none that reads like another (no 0, 1, I, O).
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Characters in a code.
const CODE_LENGTH: usize = 8;
/// Most logins that wait at once, and from one address.
const MAX_WAITING: usize = 1024;
const MAX_OF_SOURCE: usize = 8;
/// Logins that may begin in [`WINDOW`] from one address, and from one network of 24 bits (IPv6: 64) (T-90).
const PER_ADDRESS: u32 = 20;
const PER_NETWORK: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses and networks counted at once; beyond, no login begins until some are forgotten.
const MAX_COUNTED: usize = 8192;
/// Codes that one principal may get wrong in [`WRONG_WINDOW`] (T-90).
const MAX_WRONG: u32 = 5;
const WRONG_WINDOW: Duration = Duration::from_secs(300);

/// The logins that wait.
#[derive(Default)]
pub(crate) struct Approvals(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: HashMap<String, Waiting>,
    begun: HashMap<(IpAddr, Counted), (Timestamp, u32)>,
    wrong: HashMap<String, (Timestamp, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Address,
    Network,
}

struct Waiting {
    wish: SshWish,
    expires: Timestamp,
    /// Its receiver is the login's connection.
    answer: oneshot::Sender<Answer>,
}

/// What somebody decided about a login.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is theirs.
    Approved(Box<Caller>),
    /// It is not.
    Denied {
        /// Who said so: the principal's ARN.
        by: String,
    },
}

/// A login that waits for its answer.
#[derive(Debug)]
pub struct Approval {
    /// The code, without the hyphen in its middle.
    pub code: String,
    /// Where it is approved in a browser.
    pub url: String,
    wish: SshWish,
    answer: oneshot::Receiver<Answer>,
}

/// Why no answer was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// No login waits with this code.
    #[error("no login waits with this code; codes are good for two minutes and for one answer")]
    Unknown,
    /// The principal named too many codes that nobody has.
    #[error("too many wrong codes; wait five minutes")]
    TooManyWrong,
}

impl Approval {
    /// Returns the code as people read it: `ABCD-EFGH`.
    pub fn shown_code(&self) -> String {
        let (head, tail) = self.code.split_at_checked(CODE_LENGTH / 2).unwrap_or((&self.code, ""));
        format!("{head}-{tail}")
    }
}

/// Begins waiting for somebody's approval. Refused if too many logins began from there of late; that is in the trail
/// when this returns.
pub async fn begin(server: &Server, wish: &SshWish) -> Result<Approval, SshRefusal> {
    let begun = server.ssh_approvals.begin(wish, clock::now());
    match begun {
        Ok((code, answer)) => {
            let url = format!("{}/approve/{code}", server.endpoint);
            Ok(Approval { url, code, wish: wish.clone(), answer })
        }
        Err(refusal) => {
            refused(server, wish, None, &refusal).await;
            Err(refusal)
        }
    }
}

/// Waits for the answer, at most [`LIFE`]. A refusal is in the trail when this returns.
pub async fn wait(server: &Server, approval: Approval) -> Result<Caller, SshRefusal> {
    outcome(server, approval, LIFE, SshRefusal::NotApproved).await
}

/// Takes the answer if it is there already: the client says that nobody waits for it.
pub async fn take(server: &Server, approval: Approval) -> Result<Caller, SshRefusal> {
    outcome(server, approval, Duration::ZERO, SshRefusal::NotAwaited).await
}

async fn outcome(
    server: &Server,
    approval: Approval,
    limit: Duration,
    without: SshRefusal,
) -> Result<Caller, SshRefusal> {
    let Approval { wish, answer, code, .. } = approval;
    let answered = tokio::time::timeout(limit, answer).await;
    server.ssh_approvals.forget(&code);
    let outcome = match answered {
        Ok(Ok(Answer::Approved(caller))) => Ok(*caller),
        Ok(Ok(Answer::Denied { by })) => Err(SshRefusal::ApprovalDenied(by)),
        Ok(Err(_)) | Err(_) => Err(without),
    };
    if let Err(refusal) = &outcome {
        refused(server, &wish, None, refusal).await;
    }
    outcome
}

impl Approvals {
    fn begin(&self, wish: &SshWish, now: Timestamp) -> Result<(String, oneshot::Receiver<Answer>), SshRefusal> {
        let mut state = lock(&self.0);
        state.waiting.retain(|_, waiting| now < waiting.expires && !waiting.answer.is_closed());
        let of_source = state.waiting.values().filter(|waiting| waiting.wish.source == wish.source).count();
        if state.waiting.len() >= MAX_WAITING || of_source >= MAX_OF_SOURCE || !state.may_begin(wish.source, now) {
            return Err(SshRefusal::TooManyApprovals);
        }
        let code = loop {
            let code = new_code();
            if !state.waiting.contains_key(&code) {
                break code;
            }
        };
        let (answer, received) = oneshot::channel();
        state.waiting.insert(code.clone(), Waiting { wish: wish.clone(), expires: now.plus(LIFE), answer });
        Ok((code, received))
    }

    fn forget(&self, code: &str) {
        lock(&self.0).waiting.remove(code);
    }

    /// Returns what the login with this code wants, for judging whether somebody may answer it.
    pub(crate) fn wish(&self, code: &str, now: Timestamp) -> Option<SshWish> {
        let state = lock(&self.0);
        let waiting = state.waiting.get(&read_code(code)?)?;
        (now < waiting.expires).then(|| waiting.wish.clone())
    }

    /// Returns what the login with this code wants. `by` is who asks, for the bound on wrong codes.
    pub(crate) fn look(&self, code: &str, by: &str, now: Timestamp) -> Result<SshWish, AnswerError> {
        let mut state = lock(&self.0);
        state.find(code, by, now)?;
        let found = read_code(code).and_then(|code| state.waiting.get(&code));
        found.map(|waiting| waiting.wish.clone()).ok_or(AnswerError::Unknown)
    }

    /// Answers the login with this code, which uses the code up.
    pub(crate) fn answer(&self, code: &str, by: &str, answer: Answer, now: Timestamp) -> Result<SshWish, AnswerError> {
        let mut state = lock(&self.0);
        state.find(code, by, now)?;
        let found = read_code(code).and_then(|code| state.waiting.remove(&code));
        let waiting = found.ok_or(AnswerError::Unknown)?;
        // A connection that went away meanwhile waits for nothing any more.
        waiting.answer.send(answer).map_err(|_| AnswerError::Unknown)?;
        Ok(waiting.wish)
    }
}

impl State {
    /// Counts a login that begins; tells whether it may.
    fn may_begin(&mut self, source: IpAddr, now: Timestamp) -> bool {
        let fresh = |since: &Timestamp| now < since.plus(WINDOW);
        self.begun.retain(|_, (since, _)| fresh(since));
        let places = [((source, Counted::Address), PER_ADDRESS), ((network(source), Counted::Network), PER_NETWORK)];
        let full = places.iter().any(|(place, most)| self.begun.get(place).is_some_and(|(_, count)| count >= most));
        if full || self.begun.len().saturating_add(places.len()) > MAX_COUNTED {
            return false;
        }
        for (place, _) in places {
            let counted = self.begun.entry(place).or_insert((now, 0));
            counted.1 = counted.1.saturating_add(1);
        }
        true
    }

    /// Looks for a waiting login, and counts a wrong code against who named it.
    fn find(&mut self, code: &str, by: &str, now: Timestamp) -> Result<(), AnswerError> {
        self.waiting.retain(|_, waiting| now < waiting.expires && !waiting.answer.is_closed());
        self.wrong.retain(|_, (since, _)| now < since.plus(WRONG_WINDOW));
        if self.wrong.get(by).is_some_and(|(_, count)| *count >= MAX_WRONG) {
            return Err(AnswerError::TooManyWrong);
        }
        if read_code(code).is_some_and(|code| self.waiting.contains_key(&code)) {
            return Ok(());
        }
        if self.wrong.len() >= MAX_COUNTED && !self.wrong.contains_key(by) {
            return Err(AnswerError::TooManyWrong);
        }
        let counted = self.wrong.entry(by.to_owned()).or_insert((now, 0));
        counted.1 = counted.1.saturating_add(1);
        Err(AnswerError::Unknown)
    }
}

/// Reads a code as somebody typed it: small letters, hyphens and blanks do not matter.
fn read_code(text: &str) -> Option<String> {
    let mut code = String::with_capacity(CODE_LENGTH);
    for byte in text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')) {
        let byte = byte.to_ascii_uppercase();
        if code.len() >= CODE_LENGTH || !ALPHABET.contains(&byte) {
            return None;
        }
        code.push(char::from(byte));
    }
    (code.len() == CODE_LENGTH).then_some(code)
}

fn new_code() -> String {
    let bytes: [u8; CODE_LENGTH] = random::bytes();
    bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).map(|byte| char::from(*byte)).collect()
}

/// Returns the network that an address is counted with: of 24 bits, or 64 in IPv6.
pub(super) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests;
