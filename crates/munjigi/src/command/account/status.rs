//! `munjigi account status`: for monitoring on the machine itself; asks no server.

use std::path::Path;

use munjigi_agent::{AccountHealth, Health, account_health};

use crate::cli::Format;
use crate::client::text::escaped;
use crate::command::{Finish, note, print, print_json};

/// Says how the accounts are doing; what cannot be read is broken.
pub(super) fn run(agent_dir: &Path, format: Format) -> anyhow::Result<Finish> {
    let found = match account_health(agent_dir) {
        Ok(found) => found,
        Err(error) => {
            note(&format!("broken: {error:#}"));
            return Ok(Finish::Status(Health::Broken as u8));
        }
    };
    match format {
        Format::Json => print_json(&found)?,
        Format::Table => print(&text(&found))?,
    }
    Ok(Finish::Status(found.health as u8))
}

fn text(found: &AccountHealth) -> String {
    let health = match found.health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Broken => "broken",
    };
    let source = if found.online { "the server is there" } else { "the server is away" };
    let list = match (found.cache_age_seconds, &found.keys_good_until) {
        (Some(age), Some(until)) => format!("{age} s old, its keys are good until {until}"),
        _ => "none yet".to_owned(),
    };
    let managed = match found.manages_accounts {
        true => format!("{} in use, {} locked", found.active, found.locked),
        false => "not managed here (manage_accounts in agent.toml)".to_owned(),
    };
    let last = found.last_sync.as_deref().unwrap_or("never");
    let mut text = format!(
        "health     {health}\nsource     {source}\nlist       {list}\nlast sync  {last}\naccounts   {managed}\n"
    );
    for reason in &found.reasons {
        text.push_str(&format!("reason     {}\n", escaped(reason)));
    }
    for problem in &found.problems {
        let (user, what, detail) = (escaped(&problem.os_user), escaped(&problem.what), escaped(&problem.detail));
        text.push_str(&format!("problem    {user} {what}: {detail}\n"));
    }
    text
}
