//! The keys that people registered, as far as the caller may list them: with the caller's own rights and no others.

use munjigi_core::ssh::PublicKey;

use super::{Keys, Known};
use crate::client::api::{Api, CallContext as _, CallError};
use crate::command::user::{iam, pages};

/// Most users whose keys are asked for; beyond them the report says that it is not whole.
const MAX_USERS: usize = 10_000;

/// Asks for all keys of all users that the caller may list. Returns them, and what could not be asked.
pub(super) async fn keys(api: &mut Api) -> anyhow::Result<(Keys, Vec<String>)> {
    let users = pages(api, "ListUsers", &[], "Users").await.doing(api.context(), "cannot list the users")?;
    let mut names: Vec<String> =
        users.iter().filter_map(|user| user.text_at(&["UserName"])).map(str::to_owned).collect();
    let (mut keys, mut remarks, mut denied) = (Keys::new(), Vec::new(), Vec::new());
    if names.len() > MAX_USERS {
        remarks.push(format!("there are {} users; only the first {MAX_USERS} were asked about", names.len()));
        names.truncate(MAX_USERS);
    }
    for name in names {
        match of_user(api, &name).await {
            Ok(found) => keys.extend(found),
            Err(CallError::Refused(refusal)) if is_denial(&refusal.code) => denied.push(name),
            // Deleted meanwhile.
            Err(CallError::Refused(refusal)) if refusal.code.starts_with("NoSuchEntity") => {}
            Err(error) => return Err(error).doing(api.context(), "cannot list the keys of a user"),
        }
    }
    if !denied.is_empty() {
        let count = denied.len();
        denied.truncate(5);
        let named = denied.join(", ");
        remarks.push(format!(
            "you may not list the keys of {count} users ({named}{}), so theirs show as unknown; that needs \
             iam:ListSSHPublicKeys and iam:GetSSHPublicKey",
            if count > denied.len() { ", …" } else { "" }
        ));
    }
    Ok((keys, remarks))
}

async fn of_user(api: &mut Api, name: &str) -> Result<Keys, CallError> {
    let mut keys = Keys::new();
    for key in pages(api, "ListSSHPublicKeys", &[("UserName", name)], "SSHPublicKeys").await? {
        let Some(id) = key.text_at(&["SSHPublicKeyId"]) else { continue };
        let wish = [("UserName", name), ("SSHPublicKeyId", id), ("Encoding", "SSH")];
        let answer = iam(api, "GetSSHPublicKey", &wish).await?;
        let body = answer.text_at(&["SSHPublicKey", "SSHPublicKeyBody"]).unwrap_or_default();
        let Ok(public) = PublicKey::parse(body) else { continue };
        let active = key.text_at(&["Status"]) == Some("Active");
        let known = Known::Registered { user: name.to_owned(), key_id: id.to_owned(), active };
        keys.insert(public.fingerprint().to_string(), known);
    }
    Ok(keys)
}

fn is_denial(code: &str) -> bool {
    code == "AccessDenied" || code == "AccessDeniedException"
}
