//! Forwards in the background: started by this program as a copy of itself, listed, ended.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use munjigi_core::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::Arguments;
use crate::cli::Format;
use crate::client::children::{Helper, Life};
use crate::client::clock;
use crate::client::context::{Context, Surroundings};
use crate::client::forward::Up;
use crate::client::forward::background::{Directory, Entry, Listed, Listening, ListeningKind, Process};
use crate::client::table;
use crate::client::text::{duration, escaped};
use crate::command::{Finish, note, print, print_json};

/// What a forward in the background says when it serves.
const READY: &str = "ready";
/// Stands for every forward.
const ALL: &str = "all";
const HEADER: [&str; 6] = ["ID", "NODE", "LISTENS", "LEADS TO", "SINCE", "SESSION"];

/// Finds the directory of the forwards that this person has in the background.
pub(crate) fn directory() -> anyhow::Result<Directory> {
    let path = Surroundings::of_process().forwards_dir();
    Directory::open(path.context("there is no place for what runs in the background: set HOME or XDG_STATE_HOME")?)
}

/// Starts a copy of this program with the same arguments, and returns when it serves.
pub(super) async fn start(format: Format) -> anyhow::Result<Finish> {
    let directory = directory()?;
    let id: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.extend(["--kept".into(), id.clone().into()]);
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let log = directory.log(&id);
    let started = Helper::start("forward", &arguments, Life::Background, &log, READY).await;
    let helper = match started {
        Ok(helper) => helper,
        Err(error) => {
            directory.remove(&id);
            return Err(error);
        }
    };
    let entry = directory.get(&id)?;
    print(&text(&entry, format)?)?;
    if format == Format::Table {
        note(&format!("munjigi: runs in the background; `munjigi forward --stop {id}` ends it"));
    }
    helper.leave().await?;
    Ok(Finish::Done)
}

/// Describes this forward.
pub(super) fn entry(
    arguments: &Arguments,
    context: &Context,
    up: &Up,
    forwards: Vec<Listening>,
    id: &str,
) -> anyhow::Result<Entry> {
    Ok(Entry {
        id: id.to_owned(),
        target: arguments.target.clone().unwrap_or_default(),
        node: up.node.clone(),
        server: context.endpoint_text().to_owned(),
        session_id: up.session_id.clone(),
        since: clock::now().to_iso_seconds(),
        forwards,
        process: Process::own()?,
    })
}

/// Writes the forward's file and tells whoever started it that it serves.
pub(super) fn announce(entry: &Entry) -> anyhow::Result<Listed> {
    let listed = directory()?.add(entry)?;
    print(&format!("{READY}\n"))?;
    Ok(listed)
}

/// Shows where a forward listens: a line for each place, or one JSON object on a line.
pub(super) fn text(entry: &Entry, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        let Entry { target, node, session_id, forwards, id, .. } = entry;
        let mut object = json!({ "Target": target, "Node": node, "SessionId": session_id, "Forwards": forwards });
        if let (Some(object), false) = (object.as_object_mut(), id.is_empty()) {
            object.insert("Id".to_owned(), json!(id));
        }
        return Ok(format!("{object}\n"));
    }
    let mut text = String::new();
    for forward in &entry.forwards {
        let place = match forward.kind {
            ListeningKind::Reverse => format!("{} on {}", forward.local, entry.node),
            ListeningKind::Forward | ListeningKind::Proxy => forward.local.clone(),
        };
        writeln!(text, "{} -> {}", escaped(&place), escaped(&leads_to(entry, forward)))?;
    }
    Ok(text)
}

fn leads_to(entry: &Entry, forward: &Listening) -> String {
    match forward.kind {
        ListeningKind::Proxy => "wherever programs ask (SOCKS5, HTTP CONNECT)".to_owned(),
        ListeningKind::Forward | ListeningKind::Reverse if forward.remote.is_empty() => entry.target.clone(),
        ListeningKind::Forward | ListeningKind::Reverse => forward.remote.clone(),
    }
}

/// `--list`.
pub(super) fn list(format: Format) -> anyhow::Result<Finish> {
    let entries = directory()?.list()?;
    if format == Format::Json {
        print_json(&entries)?;
        return Ok(Finish::Done);
    }
    let rows: Vec<Vec<String>> = entries.iter().flat_map(rows).collect();
    print(&table::render(&HEADER, &rows))?;
    Ok(Finish::Done)
}

/// A row for each place that listens; what they have in common stands in the first.
fn rows(entry: &Entry) -> Vec<Vec<String>> {
    let since = Timestamp::parse_iso(&entry.since).map(|since| duration(clock::now().since(since)));
    let common = [entry.id.clone(), entry.target.clone(), since.unwrap_or_default(), entry.session_id.clone()];
    let row = |(number, forward): (usize, &Listening)| {
        let [id, target, since, session] = if number == 0 { common.clone() } else { Default::default() };
        vec![id, target, forward.local.clone(), leads_to(entry, forward), since, session]
    };
    entry.forwards.iter().enumerate().map(row).collect()
}

/// `--stop`.
pub(super) async fn stop(wanted: &str) -> anyhow::Result<Finish> {
    let directory = directory()?;
    let entries = directory.list()?;
    for entry in chosen(&entries, wanted)? {
        entry.process.end().await?;
        directory.remove(&entry.id);
        note(&format!("munjigi: ended {} ({})", entry.id, escaped(&entry.target)));
    }
    Ok(Finish::Done)
}

/// Finds what an id, the head of one, or `all` names; without a name the only one there is.
fn chosen<'a>(entries: &'a [Entry], wanted: &str) -> anyhow::Result<Vec<&'a Entry>> {
    let named = |entry: &&Entry| wanted == ALL || entry.id.starts_with(wanted);
    let found: Vec<&Entry> = entries.iter().filter(named).collect();
    match found.len() {
        0 if wanted.is_empty() || wanted == ALL => bail!("no forward runs in the background"),
        0 => bail!("no forward in the background is called `{}`; `munjigi forward --list` lists them", escaped(wanted)),
        1 => Ok(found),
        _ if wanted == ALL => Ok(found),
        count if wanted.is_empty() => {
            bail!("{count} forwards run in the background: say which (`munjigi forward --list`), or `all`")
        }
        count => bail!("{count} forwards in the background begin with `{}`: say more of it", escaped(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Entry {
        let forward = |kind, local: &str, remote: &str| Listening {
            kind,
            local: local.to_owned(),
            port: Some(1),
            remote: remote.to_owned(),
        };
        Entry {
            id: id.to_owned(),
            target: "orders".to_owned(),
            node: "web-1".to_owned(),
            server: "https://gate".to_owned(),
            session_id: "s-1".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            forwards: vec![
                forward(ListeningKind::Forward, "127.0.0.1:8080", "db:5432"),
                forward(ListeningKind::Forward, "127.0.0.1:8081", ""),
                forward(ListeningKind::Proxy, "127.0.0.1:1080", ""),
            ],
            process: Process::own().unwrap(),
        }
    }

    #[test]
    fn a_forward_is_named_by_the_head_of_its_id_and_never_by_chance() {
        let (one, two) = (entry("aa11"), entry("ab22"));
        let both = [one.clone(), two.clone()];
        let ids = |entries: &[Entry], wanted: &str| match chosen(entries, wanted) {
            Ok(found) => found.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string().split(' ').take(2).collect::<Vec<_>>().join("-"),
        };
        for (wanted, found) in [
            ("aa11", "aa11"),
            ("ab", "ab22"),
            ("all", "aa11 ab22"),
            ("a", "2-forwards"),
            ("", "2-forwards"),
            ("x", "no-forward"),
        ] {
            assert_eq!(ids(&both, wanted), found, "{wanted}");
        }
        assert_eq!(ids(&[one], ""), "aa11");
        assert_eq!(ids(&[], ""), "no-forward");
        assert_eq!(ids(&[], "all"), "no-forward");
    }

    #[test]
    fn every_place_that_listens_is_shown() {
        let text = text(&entry(""), Format::Table).unwrap();
        assert_eq!(
            text,
            "127.0.0.1:8080 -> db:5432\n127.0.0.1:8081 -> orders\n\
             127.0.0.1:1080 -> wherever programs ask (SOCKS5, HTTP CONNECT)\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&super::text(&entry("aa11"), Format::Json).unwrap()).unwrap();
        assert_eq!((&json["Id"], &json["Forwards"][2]["Kind"]), (&"aa11".into(), &"proxy".into()));
        assert_eq!(rows(&entry("aa11")).len(), 3);
    }
}
