//! `munjigi rdp`: a desktop target in the client that is found here, or in a file that any client opens.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use munjigi_core::target::TargetKind;
use tokio::process::Command;

use super::Finish;
use super::beside::{self, Stage, note};
use crate::cli::Where;
use crate::client::targets::Target;

/// Clients that are given the address as FreeRDP has it, the newest first.
const FREERDP: [&str; 5] = ["xfreerdp3", "sdl-freerdp3", "xfreerdp", "wlfreerdp3", "wlfreerdp"];
/// Clients that open a file: Microsoft's, on Windows' own subsystem for Linux, and Remmina.
const WITH_FILE: [&str; 2] = ["mstsc.exe", "remmina"];
/// macOS' program that opens files, and what it finds a client by.
const OPEN: &str = "/usr/bin/open";
/// Windows App, earlier called Microsoft Remote Desktop.
const WINDOWS_APP: &str = "com.microsoft.rdc.macos";

/// Open a desktop target in the RDP client that is found here
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi rdp desk\n  munjigi rdp desk --user alice -- /f /clipboard\n  \
    munjigi rdp desk --file desk.rdp --port 13389\n\n\
    Who may use the desktop is the desktop's own business: its client asks for the password.")]
pub(crate) struct Arguments {
    /// The target
    #[arg(value_name = "TARGET")]
    name: String,
    /// Write a file for any client (Windows App, mstsc, Remmina) instead, and keep the forward open until Ctrl-C
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Another FreeRDP
    #[arg(long, value_name = "PROGRAM", conflicts_with = "file")]
    client: Option<OsString>,
    /// The user to log in as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The local port; without it the target's own or a free one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    place: Where,
    /// Arguments for the client
    #[arg(last = true, value_name = "ARGS", conflicts_with = "file")]
    arguments: Vec<OsString>,
}

/// What is started.
#[derive(Debug, PartialEq, Eq)]
enum Client {
    /// With the address among its arguments.
    FreeRdp(OsString),
    /// With a file.
    WithFile(OsString),
    /// By macOS, which finds it.
    WindowsApp,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let target = beside::look_up(&arguments.place, &arguments.name).await?;
    if ![TargetKind::Rdp, TargetKind::Tcp].contains(&target.kind) {
        bail!(
            "the target {} is of the kind {}, no desktop: use `munjigi forward {}`",
            target.name,
            target.kind,
            target.name
        );
    }
    let client = match (&arguments.file, arguments.client) {
        (Some(_), _) => None,
        (None, Some(program)) => Some(Client::FreeRdp(program)),
        (None, None) => Some(found().context(
            "no RDP client was found here: install FreeRDP (xfreerdp), or write a file for another with --file desk.rdp",
        )?),
    };
    let user = arguments.user.or_else(|| target.user_name.clone());
    let (listener, port) = beside::loopback(&target, arguments.port.unwrap_or(0)).await?;
    let standing = match beside::open(&arguments.place, &target, "rdp", arguments.reason).await? {
        Ok(standing) => standing,
        Err(finish) => return Ok(finish),
    };
    let text = file(port, user.as_deref());
    match client {
        None => {
            let path = arguments.file.unwrap_or_default();
            beside::write_private(&path, &text)?;
            note(&format!("open {} with your client; Ctrl-C ends the forward", path.display()));
            beside::stay(standing, listener).await
        }
        Some(Client::FreeRdp(program)) => {
            let mut command = Command::new(program);
            command.args(freerdp(&target, port, user.as_deref())).args(arguments.arguments);
            beside::run(standing, listener, command).await
        }
        Some(Client::WithFile(program)) => {
            let stage = Stage::new()?;
            let mut command = Command::new(program);
            command.arg(stage.write("target.rdp", &text)?).args(arguments.arguments);
            beside::run(standing, listener, command).await
        }
        Some(Client::WindowsApp) => {
            let stage = Stage::new()?;
            let mut command = Command::new(OPEN);
            // It returns when the program ends.
            command.args(["-W", "-b", WINDOWS_APP]).arg(stage.write("target.rdp", &text)?);
            beside::run(standing, listener, command).await
        }
    }
}

/// Looks for a client.
fn found() -> Option<Client> {
    let freerdp = beside::first_installed(&FREERDP).map(Client::FreeRdp);
    let with_file = || beside::first_installed(&WITH_FILE).map(Client::WithFile);
    let windows_app = || (cfg!(target_os = "macos") && Path::new(OPEN).exists()).then_some(Client::WindowsApp);
    freerdp.or_else(with_file).or_else(windows_app)
}

/// Returns the arguments that FreeRDP needs. Its password it asks for, or reads with `/from-stdin`.
fn freerdp(target: &Target, port: u16, user: Option<&str>) -> Vec<String> {
    let mut arguments = vec![format!("/v:127.0.0.1:{port}"), format!("/t:{}", target.name)];
    arguments.extend(user.map(|user| format!("/u:{user}")));
    // The certificate is for the desktop's name, and this end of the forward has another one.
    arguments.extend(target.tls.server_name.as_ref().map(|name| format!("/cert:name:{name}")));
    arguments
}

/// Writes an `.rdp` file (Microsoft's "Supported RDP properties"): lines of name, type and value.
fn file(port: u16, user: Option<&str>) -> String {
    // 1: refuse a certificate that is not valid, 2: warn. It is for another name than this end's, so that it never is.
    let mut lines = vec![
        format!("full address:s:127.0.0.1:{port}"),
        "prompt for credentials:i:1".to_owned(),
        "authentication level:i:2".to_owned(),
        "enablecredsspsupport:i:1".to_owned(),
        // Never around the forward by a gateway that the client remembers.
        "gatewayusagemethod:i:0".to_owned(),
        "autoreconnection enabled:i:1".to_owned(),
    ];
    lines.extend(user.map(|user| format!("username:s:{}", one_line(user))));
    // Windows' line ends, which its own client insists on.
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// Leaves out what would begin another property.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target() -> Target {
        serde_json::from_value(json!({
            "Name": "desk", "Arn": "arn:aws:munjigi:r:1:target/desk", "Address": "desk.internal:3389", "Kind": "rdp",
            "Tls": { "Mode": "require", "ServerName": "desk.example" }, "CreatedAt": 0, "UpdatedAt": 0,
        }))
        .unwrap()
    }

    #[test]
    fn freerdp_gets_address_user_and_the_certificates_name() {
        let expected = ["/v:127.0.0.1:13389", "/t:desk", "/u:alice", "/cert:name:desk.example"];
        assert_eq!(freerdp(&target(), 13389, Some("alice")), expected);
    }

    #[test]
    fn a_file_has_a_property_per_line_whatever_the_user_is_called() {
        let text = file(13389, Some("EXAMPLE\\alice\r\nfull address:s:evil"));
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.first(), Some(&"full address:s:127.0.0.1:13389"));
        assert_eq!(lines.iter().filter(|line| line.starts_with("full address")).count(), 1, "{text}");
        assert!(lines.contains(&"username:s:EXAMPLE\\alicefull address:s:evil"), "{text}");
        assert!(!lines.iter().any(|line| line.starts_with("password")), "{text}");
    }
}
