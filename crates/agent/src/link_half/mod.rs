//! The link half: dials the server, carries sessions, and can start nothing (T-74).
//!
//! It is a process of its own without privileges. What it knows of the node comes from the privileged half, over its
//! standard input; what it may ask for stands in [`crate::halves`].

mod account_changes;
mod accounts;
mod aws_keys;
mod dialing;
mod lines;
mod listening;
mod logins;
mod near;
mod port;
mod program;
mod reach;
mod session;
mod spawn_client;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use munjigi_core::id::SessionId;
use munjigi_link::Opener;
use tokio::task::JoinSet;

use crate::halves::{self, Channel, ChannelError, ToLink, ToSpawn};
use crate::ring::Ring;
use crate::{confine, sys};

use account_changes::AccountChanges;
use logins::Logins;
use program::Program;
use session::{Ended, Event, Handle, Session};
use spawn_client::{SpawnClient, StartRefused};

/// How long sessions may report their end once the privileged half is gone. The keeper ends this half after 2 s.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// The sessions that this half carries, by id.
#[derive(Default)]
struct Sessions {
    list: Mutex<BTreeMap<SessionId, Handle>>,
}

impl Sessions {
    fn all(&self) -> Vec<(SessionId, Handle)> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|(id, handle)| (id.clone(), handle.clone())).collect()
    }

    fn insert(&self, id: SessionId, handle: Handle) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).insert(id, handle);
    }

    fn remove(&self, id: &SessionId) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn get(&self, id: &SessionId) -> Option<Handle> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Tells every session about a new link.
    async fn reconnect(&self, opener: &Opener) {
        for (_, handle) in self.all() {
            handle.tell(Event::Reconnect(opener.clone())).await;
        }
    }
}

/// Runs the link half; the process does nothing else. Returns when the privileged half is gone.
pub(crate) fn run() -> anyhow::Result<()> {
    let channel = sys::inherited(0).context("the link half is started by `munjigi agent run` only")?;
    // Before anything from outside is read, and while there is one thread.
    confine::confine(&[])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the link half's runtime")?;
    // With its type erased, or the runtime would hold three copies of it.
    let serving: Pin<Box<dyn Future<Output = anyhow::Result<()>>>> = Box::pin(serve(Channel::from_fd(channel)));
    runtime.block_on(serving)
}

async fn serve(channel: Channel) -> anyhow::Result<()> {
    let spawn = Arc::new(SpawnClient::new(channel).context("failed to use the channel to the privileged half")?);
    let (ToLink::Configure(configure), _) = spawn.receive().await.context("the privileged half said nothing")? else {
        bail!("the privileged half began with another message than its configuration");
    };
    let sessions = Arc::new(Sessions::default());
    let logins = Logins::start();
    let changes = AccountChanges::start();
    let mut tasks = JoinSet::new();
    for _ in 0..configure.sessions {
        let (message, descriptors) = spawn.receive().await.context("a session to be carried on did not come")?;
        take(message, descriptors, &spawn, &sessions, &logins, &changes, &mut tasks);
    }
    let dialing =
        dialing::keep_dialing(configure, Arc::clone(&spawn), Arc::clone(&sessions), Arc::clone(&logins), &changes);
    tokio::select! {
        result = dialing => result,
        () = dispatch(&spawn, &sessions, &logins, &changes, &mut tasks) => {
            // The dialling stops here, but the link lives until its sessions have said what became of them.
            Ok(())
        }
    }
}

/// Takes messages of the privileged half until it is gone, then lets the sessions report and end.
async fn dispatch(
    spawn: &Arc<SpawnClient>,
    sessions: &Arc<Sessions>,
    logins: &Arc<Logins>,
    changes: &AccountChanges,
    tasks: &mut JoinSet<SessionId>,
) {
    loop {
        tokio::select! {
            received = spawn.receive() => match received {
                Ok((message, descriptors)) => take(message, descriptors, spawn, sessions, logins, changes, tasks),
                Err(error) => {
                    if !matches!(error, ChannelError::Closed) {
                        tracing::error!(%error, "the link half ends");
                    }
                    break;
                }
            },
            Some(Ok(id)) = tasks.join_next(), if !tasks.is_empty() => sessions.remove(&id),
        }
    }
    for (_, handle) in sessions.all() {
        let detail = "the privileged half of the node's agent died".to_owned();
        handle.tell(Event::Ended(Ended { status: None, detail })).await;
    }
    let all_done = async { while tasks.join_next().await.is_some() {} };
    // The server learns of it by the new epoch if this is too short.
    let _ = tokio::time::timeout(LAST_WORDS, all_done).await;
}

fn take(
    message: ToLink,
    mut descriptors: Vec<OwnedFd>,
    spawn: &Arc<SpawnClient>,
    sessions: &Arc<Sessions>,
    logins: &Arc<Logins>,
    changes: &AccountChanges,
    tasks: &mut JoinSet<SessionId>,
) {
    match message {
        ToLink::Configure(_) => {}
        ToLink::Signature { request, signature } => spawn.signed(request, signature),
        ToLink::Refused { request, code, message, reason } => {
            let refused = StartRefused { code, message, reason };
            let refused = spawn.answered(request, Err(refused));
            if let Some(refused) = refused.and_then(|refused| spawn.reported(request, Err(refused))) {
                spawn.started(request, Err(refused));
            }
        }
        ToLink::LoginLog { kind } => {
            if let Some(descriptor) = descriptors.pop() {
                logins.read(kind, descriptor);
            }
        }
        ToLink::AwsKey { report } => logins.told_by_aws(&report),
        ToLink::AccountsApplied { request, report } => drop(spawn.reported(request, Ok(report))),
        ToLink::AccountsChanged { report } => changes.tell(report),
        ToLink::KeyTaken { request } | ToLink::Reached { request } => {
            drop(spawn.answered(request, Ok(descriptors)));
        }
        ToLink::Session(description) => match begin(&description, descriptors, spawn) {
            Ok((session, handle)) => {
                let id = description.session.clone();
                sessions.insert(id.clone(), handle.clone());
                tasks.spawn(async move {
                    session.run().await;
                    id
                });
                if let Some(request) = description.request {
                    spawn.started(request, Ok((description, handle)));
                }
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), session = %description.session, "a session is lost");
                let spawn = Arc::clone(spawn);
                tasks.spawn(async move {
                    let session = description.session;
                    // It cannot be carried on, so it must not live on unseen.
                    let _ = spawn.send(&ToSpawn::Forget { session: session.clone() }).await;
                    if let Some(request) = description.request {
                        let message = format!("the node could not carry the session: {error:#}");
                        let (code, reason) = ("InternalServerError".to_owned(), "SessionUnusable".to_owned());
                        spawn.started(request, Err(StartRefused { code, message, reason }));
                    }
                    session
                });
            }
        },
        ToLink::Exited { session, status, detail } => {
            if let Some(handle) = sessions.get(&session) {
                // Never waits: the session's queue has room for its few events.
                tokio::spawn(async move { handle.tell(Event::Ended(Ended { status: Some(status), detail })).await });
            }
        }
    }
}

fn begin(
    description: &halves::Session,
    mut descriptors: Vec<OwnedFd>,
    spawn: &Arc<SpawnClient>,
) -> anyhow::Result<(Session, Handle)> {
    if descriptors.is_empty() {
        bail!("its memory did not come along");
    }
    let ring = Ring::open(descriptors.remove(0))?;
    let program = if descriptors.is_empty() {
        Program::none()
    } else {
        Program::new(description.terminal, description.input, descriptors).context("its descriptors cannot be used")?
    };
    let ended =
        description.exit.clone().map(|status| Ended { status: Some(status), detail: description.detail.clone() });
    let (id, endpoints) = (description.session.clone(), description.endpoints.clone());
    Ok(Session::new(id, ring, program, ended, Arc::clone(spawn), endpoints))
}
