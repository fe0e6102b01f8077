//! Follows both directions of SFTP, without input or output: what passes, what is asked first, what is denied, what is told.
//!
//! Request ids are given anew, so that a client's own numbers never matter. Requests that are about what is open pass as
//! they came. Those by path wait until the worker has said where the path leads and policy has judged that; one at a time, in
//! their order, since each may hang on the one before.

use std::collections::{HashMap, VecDeque};

use munjigi_core::recording::{FileAction, FileChange};
use munjigi_core::sftp::{
    Attributes, Entry, Handle, MAX_DATA, MAX_HANDLES, Request, Resolved, Response, Status, set_id,
};

use super::opened::OpenFile;
use super::pending::{Broken, Event, Passing, Pending, Resolving, failure, told, words};
use super::steps::{self, Place};
use super::{FileJudge, FileQuestion};
use crate::gateway::copying::outbox::Noted;

/// Requests that may be without their answer; no more are read from the client then (T-95).
const MAX_PENDING: usize = 1024;
/// Requests by path that may wait for the one before.
const MAX_WAITING: usize = 64;

/// Follows one connection.
pub(super) struct Follower {
    judge: FileJudge,
    connection: u64,
    /// The client is a door of the gateway, which may have patterns expanded.
    is_own: bool,
    is_greeted: bool,
    last_id: u32,
    pending: HashMap<u32, Pending>,
    files: HashMap<Handle, OpenFile>,
    resolving: Option<Resolving>,
    waiting: VecDeque<Vec<u8>>,
    /// For the node, behind what passes.
    for_node: Vec<u8>,
    /// For the client, behind what passes.
    for_client: Vec<u8>,
    events: Vec<Event>,
}

impl Follower {
    pub(super) fn new(judge: FileJudge, connection: u64) -> Self {
        Self {
            judge,
            connection,
            is_own: false,
            is_greeted: false,
            last_id: 0,
            pending: HashMap::new(),
            files: HashMap::new(),
            resolving: None,
            waiting: VecDeque::new(),
            for_node: Vec::new(),
            for_client: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Follows a client that is a door of the gateway itself.
    pub(super) fn of_door(self) -> Self {
        Self { is_own: true, ..self }
    }

    /// Tells whether further requests may be read from the client.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING && self.waiting.len() < MAX_WAITING && self.for_client.len() < MAX_DATA
    }

    /// Tells whether a request waits for something before it goes to the node.
    pub(super) fn is_holding(&self) -> bool {
        self.resolving.is_some() || !self.waiting.is_empty()
    }

    /// Takes what is to go to the node behind what passed.
    pub(super) fn take_for_node(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.for_node)
    }

    /// Tells whether there is something for the client behind what passed.
    pub(super) fn has_answers(&self) -> bool {
        !self.for_client.is_empty()
    }

    /// Takes what is to go to the client behind what passed.
    pub(super) fn take_for_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.for_client)
    }

    /// Takes what is to be written down.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Asks policy again about everything that is open: permission is not a moment (T-6).
    pub(super) fn judge_again(&self) -> Result<(), String> {
        self.files.values().try_for_each(|file| steps::opening(&self.judge, &file.path, file.flags()))
    }

    /// Nothing more comes: what is open was not closed.
    pub(super) fn end(&mut self, why: &str) {
        let mut open: Vec<_> = self.files.drain().collect();
        open.sort_by_key(|(handle, _)| *handle);
        for (_, file) in open {
            self.events.extend(file.end(self.connection, Some(why)).into_iter().map(told));
        }
        let unanswered: Vec<_> = self.pending.drain().collect();
        for (_, pending) in unanswered {
            if let Pending::Change { change, .. } | Pending::Resize { change, .. } = pending {
                self.tell(*change, why);
            }
        }
    }

    /// Looks at a whole packet of the client.
    pub(super) fn client(&mut self, packet: &mut [u8]) -> Result<Passing, Broken> {
        if !self.is_greeted {
            if Request::decode_init(packet).map_err(Broken::Client)? < munjigi_core::sftp::VERSION {
                return Err(Broken::Version);
            }
            self.is_greeted = true;
            // The client's own extensions end here.
            Request::encode_init(&mut self.for_node);
            self.pending.insert(0, Pending::Version);
            return Ok(Passing::Here);
        }
        let (client, request) = Request::decode(packet).map_err(Broken::Client)?;
        if !steps::paths(&request).is_empty() {
            if self.resolving.is_some() {
                self.waiting.push_back(packet.to_vec());
            } else {
                self.resolve(packet.to_vec())?;
            }
            return Ok(Passing::Here);
        }
        let Some(pending) = self.open_request(client, &request) else { return Ok(Passing::Here) };
        let id = self.remember(pending);
        set_id(packet, id);
        Ok(Passing::On)
    }

    /// Looks at a request about something open; `None` if it was answered, or goes on in another form.
    fn open_request(&mut self, client: u32, request: &Request<'_>) -> Option<Pending> {
        Some(match request {
            Request::Read { handle, offset, length } => {
                self.known(client, *handle)?;
                Pending::Read { client, handle: *handle, offset: *offset, length: *length }
            }
            Request::Write { handle, offset, data } => {
                self.known(client, *handle)?.is_written(*offset, data);
                Pending::Write { client, handle: *handle, offset: *offset, length: data.len() as u64 }
            }
            Request::Close { handle } => {
                if self.files.contains_key(handle) {
                    // How large it is tells whether what was transferred is all of it.
                    let size = self.remember(Pending::SizeAtClose { handle: *handle });
                    Request::Fstat { handle: *handle }.encode(size, &mut self.for_node);
                }
                let close = self.remember(Pending::Close { client, handle: *handle });
                Request::Close { handle: *handle }.encode(close, &mut self.for_node);
                return None;
            }
            Request::Fsetstat { handle, attributes } => return self.fsetstat(client, *handle, attributes),
            Request::CopyData { from, from_offset, length, to, to_offset } => {
                self.known(client, *from)?;
                self.known(client, *to)?;
                // How large the source is tells how much is copied.
                let size = self.remember(Pending::SizeAtCopy { handle: *from });
                Request::Fstat { handle: *from }.encode(size, &mut self.for_node);
                let (from, to) = ((*from, *from_offset), (*to, *to_offset));
                let copy = self.remember(Pending::CopyData { client, from, to, length: *length });
                request.encode(copy, &mut self.for_node);
                return None;
            }
            Request::Fstat { .. }
            | Request::Readdir { .. }
            | Request::Fstatvfs { .. }
            | Request::Fsync { .. }
            | Request::Limits
            | Request::UsersGroupsById { .. } => Pending::Plain { client },
            Request::Glob { .. } if self.is_own => Pending::Plain { client },
            // The rest is by path, or for the gateway's own use, or not known.
            _ => {
                self.answer(client, Status::Unsupported, "that is not known here");
                return None;
            }
        })
    }

    fn known(&mut self, client: u32, handle: Handle) -> Option<&mut OpenFile> {
        if !self.files.contains_key(&handle) {
            self.answer(client, Status::Failure, "no file is open under that handle");
        }
        self.files.get_mut(&handle)
    }

    fn fsetstat(&mut self, client: u32, handle: Handle, attributes: &Attributes) -> Option<Pending> {
        let file = self.known(client, handle)?;
        let (path, takes_data) = (file.path.clone(), file.takes_data());
        let change = Box::new(FileChange {
            connection: self.connection,
            action: FileAction::SetAttributes,
            path,
            detail: steps::told(attributes),
            bytes: 0,
            why: String::new(),
        });
        // Opened to be written it was judged for that.
        if !takes_data && let Err(why) = (self.judge)(FileQuestion::Upload(&change.path)) {
            self.deny(client, Noted::Changed(FileChange { why: why.clone(), ..*change }), &why);
            return None;
        }
        Some(match attributes.size {
            Some(size) => Pending::Resize { client, handle, size, change },
            None => Pending::Change { client, change },
        })
    }

    /// Asks the worker where the paths of a request lead.
    fn resolve(&mut self, packet: Vec<u8>) -> Result<(), Broken> {
        let (client, request) = Request::decode(&packet).map_err(Broken::Client)?;
        let paths = steps::paths(&request);
        let places = vec![None; paths.len()];
        for (index, (path, last)) in paths.into_iter().enumerate() {
            let id = self.remember(Pending::Place(index));
            Request::Resolve { path, last }.encode(id, &mut self.for_node);
        }
        self.resolving = Some(Resolving { client, packet, places, failed: None });
        Ok(())
    }

    /// The worker has said where a path leads, or why it leads nowhere.
    fn resolved(&mut self, index: usize, answer: Response<'_>) -> Result<(), Broken> {
        let resolving = self.resolving.as_mut().ok_or(Broken::Node)?;
        let place = resolving.places.get_mut(index).ok_or(Broken::Node)?;
        match answer {
            Response::Extended { body } => {
                let Resolved { real, plain, kind, .. } = Resolved::decode(body).map_err(|_| Broken::Node)?;
                *place = Some(Place { real: real.to_vec(), plain: plain.to_vec(), kind });
            }
            Response::Status { status, text } if status != Status::Ok => {
                resolving.failed.get_or_insert((status, text.to_vec()));
            }
            _ => return Err(Broken::Node),
        }
        let is_other_open = self.pending.values().any(|pending| matches!(pending, Pending::Place(_)));
        if is_other_open {
            return Ok(());
        }
        let Some(Resolving { client, packet, places, failed }) = self.resolving.take() else { return Ok(()) };
        match failed {
            Some((status, text)) => {
                if status == Status::PermissionDenied {
                    let (_, request) = Request::decode(&packet).map_err(Broken::Client)?;
                    let noted = steps::not_reached(self.connection, &request, &words(status, &text));
                    self.events.extend(noted.map(told));
                }
                Response::Status { status, text: &text }.encode(client, &mut self.for_client);
            }
            None => self.proceed(client, packet, places.into_iter().flatten().collect())?,
        }
        match self.waiting.pop_front() {
            Some(next) => self.resolve(next),
            None => Ok(()),
        }
    }

    /// Goes on with a request whose paths are known.
    fn proceed(&mut self, client: u32, packet: Vec<u8>, places: Vec<Place>) -> Result<(), Broken> {
        let (_, request) = Request::decode(&packet).map_err(Broken::Client)?;
        if let Request::Realpath { .. } | Request::ExpandPath { .. } = request {
            self.real_path(client, &places);
            return Ok(());
        }
        if let Err(why) = steps::judge(&self.judge, &request, &places) {
            let told = steps::denied(self.connection, &request, &places, &why);
            self.deny(client, told, &why);
            return Ok(());
        }
        let pending = match (&request, steps::change(self.connection, &request, &places)) {
            (_, Some(change)) => Pending::Change { client, change: Box::new(change) },
            (Request::Open { .. }, None) => Pending::Open { client, request: packet.clone(), places: places.clone() },
            _ => Pending::Plain { client },
        };
        let id = self.remember(pending);
        let (_, request) = Request::decode(&packet).map_err(Broken::Client)?;
        steps::with_real_paths(request, &places).encode(id, &mut self.for_node);
        Ok(())
    }

    /// Answers with a real path; where nothing may be known of it, with what the path is without looking.
    fn real_path(&mut self, client: u32, places: &[Place]) {
        let Some(place) = places.first() else { return };
        let may = steps::looking(&self.judge, &place.text()).is_ok();
        let name = if may { place.real.clone() } else { place.plain.clone() };
        let entry = Entry { line: name.clone(), name, attributes: Attributes::default() };
        Response::Names { entries: vec![entry] }.encode(client, &mut self.for_client);
    }

    /// Looks at a whole packet of the node.
    pub(super) fn node(&mut self, packet: &mut [u8]) -> Result<Passing, Broken> {
        if let Some(Pending::Version) = self.pending.get(&0) {
            if Response::decode_version(packet) != Ok(munjigi_core::sftp::VERSION) {
                return Err(Broken::Node);
            }
            self.pending.remove(&0);
            // What is offered is what is followed here, whatever the node could do.
            Response::encode_version(&mut self.for_client);
            return Ok(Passing::Here);
        }
        let (id, answer) = Response::decode(packet).map_err(|_| Broken::Node)?;
        let client = match self.pending.remove(&id).ok_or(Broken::Node)? {
            Pending::Version => return Err(Broken::Node),
            Pending::Place(index) => {
                self.resolved(index, answer)?;
                return Ok(Passing::Here);
            }
            Pending::SizeAtClose { handle } => {
                if let (Response::Attributes { attributes }, Some(file)) = (&answer, self.files.get_mut(&handle))
                    && let Some(size) = attributes.size
                {
                    file.closes_with(size);
                }
                return Ok(Passing::Here);
            }
            Pending::SizeAtCopy { handle } => {
                if let (Response::Attributes { attributes }, Some(file)) = (&answer, self.files.get_mut(&handle)) {
                    file.copies_from(attributes.size.unwrap_or_default());
                }
                return Ok(Passing::Here);
            }
            Pending::Plain { client } => client,
            Pending::Open { client, request, places } => {
                self.opened(&request, &places, &answer)?;
                client
            }
            Pending::Read { client, handle, offset, length } => {
                self.read(handle, offset, length, &answer)?;
                client
            }
            Pending::Write { client, handle, offset, length } => {
                if let Some(file) = self.files.get_mut(&handle) {
                    match failure(&answer)? {
                        None => file.was_written(offset, length),
                        Some(why) => file.failed(&why),
                    }
                }
                client
            }
            Pending::CopyData { client, from, to, length } => {
                self.copied(from, to, length, failure(&answer)?);
                client
            }
            Pending::Close { client, handle } => {
                let why = failure(&answer)?;
                if let Some(file) = self.files.remove(&handle) {
                    let noted = file.end(self.connection, why.as_deref());
                    self.events.extend(noted.into_iter().map(told));
                }
                client
            }
            Pending::Resize { client, handle, size, change } => {
                let why = failure(&answer)?;
                if let (None, Some(file)) = (&why, self.files.get_mut(&handle)) {
                    file.was_resized(size);
                }
                self.tell(*change, why.as_deref().unwrap_or_default());
                client
            }
            Pending::Change { client, change } => {
                self.tell(*change, failure(&answer)?.as_deref().unwrap_or_default());
                client
            }
        };
        set_id(packet, client);
        Ok(Passing::On)
    }

    fn opened(&mut self, request: &[u8], places: &[Place], answer: &Response<'_>) -> Result<(), Broken> {
        let (_, Request::Open { flags, .. }) = Request::decode(request).map_err(Broken::Client)? else {
            return Err(Broken::Node);
        };
        match answer {
            Response::Handle { handle } => {
                let existed =
                    places.first().is_some_and(|place| place.kind != munjigi_core::sftp::ResolvedKind::Nothing);
                let path = places.first().map(Place::text).unwrap_or_default();
                let is_known = self.files.insert(*handle, OpenFile::new(path, flags, existed)).is_some();
                if is_known || self.files.len() > MAX_HANDLES { Err(Broken::Node) } else { Ok(()) }
            }
            answer => {
                let why = failure(answer)?.ok_or(Broken::Node)?;
                self.events.push(told(steps::not_opened(self.connection, places, flags, &why)));
                Ok(())
            }
        }
    }

    fn read(&mut self, handle: Handle, offset: u64, length: u32, answer: &Response<'_>) -> Result<(), Broken> {
        let most = usize::try_from(length).unwrap_or(MAX_DATA);
        let Some(file) = self.files.get_mut(&handle) else { return Ok(()) };
        match answer {
            Response::Data { data } if data.len() <= most => file.was_read(offset, data),
            Response::Status { status: Status::Eof, .. } => file.saw_end(offset),
            answer => file.failed(&failure(answer)?.ok_or(Broken::Node)?),
        }
        Ok(())
    }

    fn copied(&mut self, from: (Handle, u64), to: (Handle, u64), length: u64, why: Option<String>) {
        let available = self.files.get(&from.0).map_or(0, OpenFile::size_at_copy).saturating_sub(from.1);
        let length = if length == 0 { available } else { available.min(length) };
        for ((handle, offset), is_source) in [(from, true), (to, false)] {
            if let Some(file) = self.files.get_mut(&handle) {
                match &why {
                    Some(why) => file.failed(why),
                    None => file.was_copied(offset, length, is_source),
                }
            }
        }
    }

    fn remember(&mut self, pending: Pending) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            // 0 is the greeting's.
            if self.last_id != 0 && !self.pending.contains_key(&self.last_id) {
                self.pending.insert(self.last_id, pending);
                return self.last_id;
            }
        }
    }

    fn answer(&mut self, client: u32, status: Status, text: &str) {
        Response::Status { status, text: text.as_bytes() }.encode(client, &mut self.for_client);
    }

    fn deny(&mut self, client: u32, what: Noted, why: &str) {
        let mut answer = Vec::new();
        let text = why.as_bytes();
        Response::Status { status: Status::PermissionDenied, text }.encode(client, &mut answer);
        self.events.push(Event { what, denied: Some(answer) });
    }

    fn tell(&mut self, mut change: FileChange, why: &str) {
        why.clone_into(&mut change.why);
        self.events.push(told(Noted::Changed(change)));
    }
}
