//! Shells and commands at the SSH door: the hub's frames on one side, a session channel on the other.
//!
//! To the hub it is a client like any other, so that recording, limits, live view, and its end are those of every session.
//! SSH has no way back to a channel: a session ends with it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use munjigi_core::grant::{SSH_CLIENT, SSH_CONNECTION, SSH_ORIGINAL_COMMAND};
use munjigi_core::id::SessionId;
use munjigi_core::session::{EndReason, OutputStream, Signal};
use munjigi_core::ssh::login_name::LoginName;
use munjigi_core::wire::flow::{InputBuffer, OutputCursor};
use munjigi_core::wire::message::{Accepted, End};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;

use super::channel::{ChannelSender, Gone, Incoming, SshChannel};
use super::forwards::{OfferedAgent, names_no_node};
use super::{Asked, Conn};
use crate::api::operation::Service;
use crate::api::ssm::StartSession;
use crate::api::ssm::start_session::{NativeStart, StartSessionInput};
use crate::door;
use crate::door::hidden::NOT_ALLOWED_OR_ABSENT;
use crate::gateway::facts::exit_status;
use crate::gateway::launch::{Surroundings, launch};
use crate::gateway::peer::FrameStream;

/// Bytes that may wait between the hub and this adapter, each way.
const DUPLEX: usize = 64 * 1024;
/// Sizes and signals that may come before the program runs.
const MAX_EARLY: usize = 32;
/// What `ssh` exits with where no program ran or its end is not known; its own number for failures.
const NOT_RUN: i32 = 255;
/// What a jump exits with that is asked for a shell.
const NO_NODE: i32 = 1;

/// The code of AWS for a node that is not there.
const NOT_CONNECTED: &str = "TargetNotConnected";

/// Tells programs where their agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// What a client wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// The login shell.
    Shell,
    /// A command for the login shell, as it came.
    Command(Vec<u8>),
}

/// Runs a program until it ends or its client is gone.
pub(super) async fn serve(conn: Arc<Conn>, mut asked: Asked, program: Program) {
    let sender = asked.channel.sender();
    // Held to the program's end. Who may not offer an agent gets a program without, and hears why.
    let agent = if asked.agent { Some(OfferedAgent::offer(&conn).await) } else { None };
    if let Some(Ok(agent)) = &agent {
        asked.environment.insert(AGENT_VARIABLE.to_owned(), agent.path().to_owned());
    }
    match start(&conn, &asked, program).await {
        Ok((session, hub)) => {
            let mut shell = Shell {
                hub,
                session: session.clone(),
                interactive: asked.terminal.is_some(),
                channel: asked.channel,
                sender,
                accepted: false,
                early: Vec::new(),
                input: InputBuffer::default(),
                unread: Bytes::new(),
                output: OutputCursor::default(),
                sending: None,
            };
            if let Some(Err(refusal)) = &agent {
                shell.say(&format!("munjigi: your agent is not offered to the program: {refusal}"));
            }
            if let Err(left) = shell.run(&conn).await {
                left.end(&conn, &session).await;
            }
        }
        // An error means that nobody is left to be told.
        Err((text, status)) => drop(sender.refuse(&text, status).await),
    }
}

/// Starts the session: the operation of every door, with what the client asked for. `Err` is for the person.
async fn start(conn: &Arc<Conn>, asked: &Asked, program: Program) -> Result<(SessionId, FrameStream), (String, i32)> {
    let refused = |text: &str| (format!("munjigi: {text}\n"), NOT_RUN);
    let server = &conn.server;
    let LoginName { os_user, node: Some(node) } = conn.login.clone() else { return Err((help(), NO_NODE)) };
    let caller = conn.caller().ok_or_else(|| refused("what you logged in with is no longer valid"))?;
    let wished = match program {
        Program::Shell => None,
        Program::Command(bytes) => Some(String::from_utf8(bytes).map_err(|_| refused("the command is not UTF-8"))?),
    };
    let mut variables = variables(conn);
    let command = match conn.forced_command() {
        Some(forced) => {
            // There is none for a shell.
            variables.extend(wished.map(|wished| (SSH_ORIGINAL_COMMAND.to_owned(), wished)));
            Some(forced.to_owned())
        }
        None => wished,
    };
    // A proof for one OS user means that one.
    let os_user = os_user.or_else(|| caller.ssh()?.only_os_user().map(str::to_owned));
    let native = NativeStart {
        by_shell: command.is_some(),
        variables,
        command: command.into_iter().collect(),
        os_user: os_user.unwrap_or_default(),
        terminal: asked.terminal.as_ref().map(|terminal| terminal.size),
        term: asked.terminal.as_ref().map(|terminal| terminal.term.clone()).unwrap_or_default(),
        port: None,
    };
    if native.command.iter().any(String::is_empty) {
        return Err(refused("the command is empty"));
    }
    let input = StartSessionInput::native(node, String::new(), String::new(), native);
    let session = match door::call::<StartSession>(server, &caller, input, conn.request()).await {
        Ok(started) => started.session_id,
        // Only who would have been allowed hears that there is no such node. At the port it is often the person's own name;
        // elsewhere a host was named.
        Err(error) if conn.may_jump && error.code(Service::Ssm) == NOT_CONNECTED && names_no_node(conn).await => {
            return Err((help(), NO_NODE));
        }
        // The same for a node that is there: it may be meant, and the person's own name as well.
        Err(error) if conn.may_jump && error.reason() == Some(NOT_ALLOWED_OR_ABSENT) => {
            return Err((format!("munjigi: {error}\n{}", help()), NO_NODE));
        }
        Err(error) => return Err(refused(&error.to_string())),
    };
    let prepared = server.gateway.take_prepared(&session).ok_or_else(|| refused("the session was lost"))?;
    let (stream, hub) = FrameStream::pair(DUPLEX);
    let pty = asked.terminal.as_ref().map(super::terminal::Terminal::to_pty);
    launch(server, prepared, Surroundings { pty, environment: asked.environment.clone() }, hub).await;
    Ok((session, stream))
}

/// Returns what sshd would tell the program of its connection. The address that the client reached is this server's and
/// says nothing on the node, so zeros stand in its place.
fn variables(conn: &Conn) -> Vec<(String, String)> {
    let (ip, port) = (conn.peer.ip().to_canonical(), conn.peer.port());
    vec![
        (SSH_CLIENT.to_owned(), format!("{ip} {port} 22")),
        (SSH_CONNECTION.to_owned(), format!("{ip} {port} 0.0.0.0 22")),
    ]
}

fn help() -> String {
    "munjigi: you are logged in, but named no node. To get a shell on one:\n\
     \x20   ssh NODE@this-server               as the OS user that policy gives you\n\
     \x20   ssh OSUSER%NODE@this-server        as another one\n\
     \x20   ssh -J this-server OSUSER@NODE     the same, and scp, sftp and rsync with it\n"
        .to_owned()
}

/// Why the adapter stopped before the session did.
enum Left {
    /// The client closed the channel.
    Closed,
    /// The connection is gone.
    Lost,
    /// The hub gave the stream up.
    HubGone,
}

impl From<Gone> for Left {
    fn from(_: Gone) -> Self {
        Self::Lost
    }
}

impl Left {
    /// Ends the session: nobody can come back to it.
    async fn end(self, conn: &Conn, session: &SessionId) {
        let (reason, text) = match self {
            Self::Closed => (EndReason::Terminated, "the SSH client closed the channel"),
            // With what was proved the connection goes, and what runs in it.
            Self::Lost if conn.caller().is_none() => (EndReason::Revoked, EndReason::Revoked.sentence()),
            Self::Lost => (EndReason::ClientLost, "the SSH connection was lost"),
            Self::HubGone => return,
        };
        conn.server.gateway.end_session(session, reason, text).await;
    }
}

/// Everything that can happen to the adapter.
enum Happened {
    FromHub(Result<Option<Frame>, FramedError>),
    FromClient(Option<Incoming>),
    HubFlushed(Result<(), FramedError>),
    Sent(Result<(), Gone>),
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Gone>> + Send>>;

struct Shell {
    /// The stream to the hub.
    hub: FrameStream,
    session: SessionId,
    /// Whether the program has a terminal.
    interactive: bool,
    channel: SshChannel,
    sender: ChannelSender,
    /// Whether the hub accepted the stream.
    accepted: bool,
    /// Sizes and signals from before.
    early: Vec<Frame>,
    input: InputBuffer,
    /// What the client sent and the input has no room for.
    unread: Bytes,
    output: OutputCursor,
    /// What is on its way to the client; meanwhile the hub is not read, which is what stops the program.
    sending: Option<Sending>,
}

impl Shell {
    async fn run(mut self, conn: &Conn) -> Result<(), Left> {
        loop {
            self.feed_input();
            let next = conn.ended.run_until_cancelled(self.next());
            match next.await.ok_or(Left::Lost)? {
                Happened::FromHub(frame) => {
                    if let Some(end) = self.heard_hub(frame)? {
                        return self.finish(&end).await;
                    }
                }
                Happened::FromClient(incoming) => self.heard_client(incoming.ok_or(Left::Lost)?)?,
                Happened::HubFlushed(flushed) => flushed.map_err(|_| Left::HubGone)?,
                Happened::Sent(sent) => {
                    self.sending = None;
                    sent?;
                }
            }
        }
    }

    async fn next(&mut self) -> Happened {
        let allowed = if self.accepted { FrameSet::TO_CLIENT } else { FrameSet::ANSWER };
        let Self { hub, sending, channel, unread, .. } = self;
        let (reads_hub, reads_client) = (sending.is_none(), unread.is_empty());
        let flushes = !hub.writer.is_flushed();
        tokio::select! {
            biased;
            flushed = hub.writer.flush(), if flushes => Happened::HubFlushed(flushed),
            sent = async { match sending {
                Some(sending) => sending.as_mut().await,
                None => std::future::pending().await,
            } } => Happened::Sent(sent),
            incoming = async { match reads_client {
                true => channel.next().await,
                false => channel.next_but_data().await,
            } } => Happened::FromClient(incoming),
            frame = hub.reader.read(allowed), if reads_hub => Happened::FromHub(frame),
        }
    }

    /// Hands what was typed to the hub.
    fn feed_input(&mut self) {
        let taken = self.input.push(&self.unread);
        self.unread.advance(taken);
        if !self.accepted {
            return;
        }
        while self.hub.writer.pending() < DUPLEX {
            let Some(frame) = self.input.next_frame() else { break };
            self.hub.feed(&frame);
        }
    }

    fn heard_client(&mut self, incoming: Incoming) -> Result<(), Left> {
        match incoming {
            Incoming::Data(data) => self.unread = data,
            Incoming::Eof => self.input.end(),
            Incoming::Closed => return Err(Left::Closed),
            Incoming::Resize(size) if self.interactive => self.tell(Frame::Resize(size)),
            Incoming::Resize(_) => {}
            Incoming::Signal(name) => {
                if let Some(signal) = Signal::parse(&name) {
                    self.tell(Frame::Signal(signal));
                }
            }
        }
        Ok(())
    }

    /// Tells the program something beside its input, as soon as it runs.
    fn tell(&mut self, frame: Frame) {
        if self.accepted {
            self.hub.feed(&frame);
        } else if self.early.len() < MAX_EARLY {
            self.early.push(frame);
        }
    }

    /// Returns the session's end, if this is it.
    fn heard_hub(&mut self, frame: Result<Option<Frame>, FramedError>) -> Result<Option<End>, Left> {
        match frame {
            Ok(Some(Frame::Accepted(accepted))) => self.accepted(&accepted),
            Ok(Some(Frame::Refused(refused))) => {
                return Ok(Some(End { message: refused.message, ..End::default() }));
            }
            Ok(Some(Frame::Output { offset, stream, data })) => {
                let new = self.output.take(offset, data).map_err(|_| Left::HubGone)?;
                self.send(stream, new);
            }
            Ok(Some(Frame::InputAck(offset))) => {
                // A count that cannot be right changes nothing here: what is held stays held.
                let _ = self.input.confirm(offset);
            }
            Ok(Some(Frame::InputWanted(offset))) => {
                // The node lost nothing that this adapter forgot: it keeps what is not acknowledged.
                let _ = self.input.send_again_from(offset);
            }
            Ok(Some(Frame::Notice(notice))) if self.interactive => self.send_notice(&notice.text),
            Ok(Some(Frame::End(end))) => return Ok(Some(end)),
            // Sizes are for watchers; the allow-lists let nothing else through.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(Left::HubGone),
        }
        Ok(None)
    }

    fn accepted(&mut self, accepted: &Accepted) {
        tracing::debug!(session = %self.session, os_user = accepted.os_user, "a program runs for an SSH channel");
        self.accepted = true;
        // It begins at 0: the session is new.
        let _ = self.input.send_again_from(accepted.input_from);
        for frame in std::mem::take(&mut self.early) {
            self.hub.feed(&frame);
        }
    }

    fn send(&mut self, stream: OutputStream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let sender = self.sender.clone();
        self.sending = Some(match stream {
            OutputStream::Stdout => Box::pin(async move { sender.data(data).await }),
            OutputStream::Stderr => Box::pin(async move { sender.error_data(data).await }),
        });
    }

    fn send_notice(&mut self, text: &str) {
        let text: String = text.chars().filter(|c| !c.is_control()).take(512).collect();
        self.send(OutputStream::Stderr, Bytes::from(format!("\r\n[munjigi: {text}]\r\n")));
    }

    /// Says something before the program does.
    fn say(&mut self, text: &str) {
        let text: String = text.chars().filter(|c| !c.is_control()).take(512).collect();
        let end = if self.interactive { "\r\n" } else { "\n" };
        self.send(OutputStream::Stderr, Bytes::from(text + end));
    }

    /// Says how it ended. The hub has nothing more, and all before it was sent.
    async fn finish(self, end: &End) -> Result<(), Left> {
        let ordinary = end.reason == EndReason::Exited.as_str();
        let exit = end.exit.as_ref().and_then(exit_status).filter(|_| ordinary);
        let Some(exit) = exit else {
            let message: String = end.message.chars().filter(|c| !c.is_control()).take(2048).collect();
            return Ok(self.sender.refuse(&format!("munjigi: {message}\n"), NOT_RUN).await?);
        };
        self.sender.eof().await?;
        self.sender.exit(&exit).await?;
        Ok(self.sender.close().await?)
    }
}
