//! From a grant to the order that starts its session on AWS's agent: `interactive_shell` with a session document.
//!
//! The document says exactly what was granted: user, kind, command. Values travel as parameters, because the agent
//! looks for `{{ name }}` in the document's own text and not in the values.

use std::collections::BTreeMap;

use munjigi_core::command_line::joined;
use munjigi_core::grant::{Action, Grant, SSH_VARIABLES};
use munjigi_core::wire::aws::payload::{
    DocumentContent, InteractiveShell, ShellContent, ShellInputs, ShellProfile, json,
};
use serde_json::{Value, json};

use super::AGENTS_OWN_USER;

/// What AWS's own service writes here.
const TOPIC: &str = "aws.ssm.startSession";
/// Name of the parameter that holds the command.
const COMMAND: &str = "command";

/// What kind of session the agent is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A shell on a terminal.
    Shell,
    /// A command on a terminal.
    Interactive,
    /// A command with output, error and exit status apart; the agent takes no input for it.
    NonInteractive,
}

impl Kind {
    /// Returns the name of the session type.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Shell => "Standard_Stream",
            Self::Interactive => "InteractiveCommands",
            Self::NonInteractive => "NonInteractiveCommands",
        }
    }

    /// Tells whether the program has a terminal.
    pub(super) const fn has_terminal(self) -> bool {
        !matches!(self, Self::NonInteractive)
    }
}

/// Makes the order for a grant. `Err` says why AWS's agent cannot do what was granted.
pub(super) fn order(grant: &Grant) -> Result<(Kind, InteractiveShell), &'static str> {
    if grant.os_user == AGENTS_OWN_USER && !grant.privileged {
        return Err("ssm-user, the user that AWS's agent makes, may do everything by sudo: that needs the permission \
                    munjigi:StartPrivilegedSession; name another user with --user or the tag SSMSessionRunAs");
    }
    let mut profile = String::new();
    let (kind, command) = if let Action::Shell { profile: lines } = &grant.action {
        // What an SSH connection tells its programs is no loss.
        if grant.variables.iter().any(|(name, _)| !SSH_VARIABLES.contains(&name.as_str())) {
            return Err("AWS's agent cannot give a shell the variables of its session document");
        }
        profile.clone_from(lines);
        (Kind::Shell, None)
    } else if let Action::Command(command) = &grant.action {
        match grant.pty {
            true => (Kind::Interactive, Some(script(command, &grant.variables))),
            false => (Kind::NonInteractive, Some(words(command, &grant.variables))),
        }
    } else if let Action::ShellCommand(text) = &grant.action {
        // That agent's documents know no login shell.
        let command = ["/bin/sh", "-c", text].map(str::to_owned);
        match grant.pty {
            true => (Kind::Interactive, Some(script(&command, &grant.variables))),
            false => (Kind::NonInteractive, Some(words(&command, &grant.variables))),
        }
    } else {
        return Err("AWS's agent on this node can do no more than shells and commands");
    };
    let runs = match kind {
        Kind::Shell => Value::Null,
        Kind::Interactive => json!({ "commands": "{{ command }}", "runAsElevated": false }),
        Kind::NonInteractive => {
            json!({ "commands": "{{ command }}", "runAsElevated": false, "separateOutputStream": true })
        }
    };
    let properties = if runs.is_null() { Value::Null } else { json!({ "linux": runs, "macos": runs }) };
    let declared = command.as_ref().map_or(json!({}), |_| json!({ COMMAND: { "type": "String" } }));
    let named = grant.os_user != AGENTS_OWN_USER;
    let content = ShellContent {
        document_name: document_name(kind).to_owned(),
        document_content: DocumentContent {
            schema_version: "1.0".to_owned(),
            description: String::new(),
            session_type: kind.name().to_owned(),
            inputs: ShellInputs {
                run_as_enabled: Value::Bool(named),
                run_as_default_user: if named { grant.os_user.clone() } else { String::new() },
                shell_profile: ShellProfile { linux: profile, ..ShellProfile::default() },
                ..ShellInputs::default()
            },
            parameters: declared,
            properties,
        },
        session_id: grant.session.to_string(),
        parameters: command
            .map(|text| (COMMAND.to_owned(), Value::String(text)))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        run_as_user: if named { grant.os_user.clone() } else { String::new() },
        session_owner: grant.subject.clone(),
    };
    let order = InteractiveShell {
        content: String::from_utf8_lossy(&json(&content)).into_owned(),
        task_id: grant.session.to_string(),
        topic: TOPIC.to_owned(),
        schema_version: 1,
    };
    Ok((kind, order))
}

const fn document_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Shell => "SSM-SessionManagerRunShell",
        Kind::Interactive => "AWS-StartInteractiveCommand",
        Kind::NonInteractive => "AWS-StartNonInteractiveCommand",
    }
}

/// Writes a command for a shell, which the agent puts before it. What is a script for `sh` already stays as it is.
fn script(command: &[String], variables: &[(String, String)]) -> String {
    match (command, variables) {
        ([sh, flag, text], []) if (sh == "/bin/sh" || sh == "sh") && flag == "-c" => text.clone(),
        _ => format!("exec {}", words(command, variables)),
    }
}

/// Writes a command as words that a shell, or the agent's own splitting, reads as exactly these arguments.
fn words(command: &[String], variables: &[(String, String)]) -> String {
    let set = variables.iter().map(|(name, value)| format!("{name}={value}"));
    let env = (!variables.is_empty()).then(|| "env".to_owned());
    let all: Vec<String> = env.into_iter().chain(set).chain(command.iter().cloned()).collect();
    joined(&all)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use munjigi_core::id::{NodeId, SessionId};
    use munjigi_core::time::Timestamp;

    use super::*;

    fn grant(action: Action, pty: bool) -> Grant {
        Grant {
            id: [0; 16],
            session: SessionId::parse("alice-0123456789abcdef0").unwrap(),
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            epoch: [0; 32],
            subject: "arn:aws:iam::123456789012:user/alice".to_owned(),
            client: [0; 32],
            os_user: "app".to_owned(),
            action,
            variables: Vec::new(),
            pty,
            strict_recording: false,
            privileged: false,
            policy_version: 1,
            not_before: Timestamp(0),
            expires: Timestamp(1),
        }
    }

    fn content(grant: &Grant) -> (Kind, Value) {
        let (kind, order) = order(grant).unwrap();
        assert_eq!((order.task_id.as_str(), order.schema_version), ("alice-0123456789abcdef0", 1));
        (kind, serde_json::from_str(&order.content).unwrap())
    }

    #[test]
    fn the_document_says_what_was_granted() {
        let shell = grant(Action::Shell { profile: "cd /srv".to_owned() }, true);
        let (kind, document) = content(&shell);
        assert_eq!(kind, Kind::Shell);
        assert_eq!(document["DocumentContent"]["sessionType"], "Standard_Stream");
        assert_eq!(document["DocumentContent"]["schemaVersion"], "1.0");
        let inputs = &document["DocumentContent"]["inputs"];
        assert_eq!((&inputs["runAsEnabled"], &inputs["runAsDefaultUser"]), (&json!(true), &json!("app")));
        assert_eq!(inputs["shellProfile"]["linux"], "cd /srv");
        assert_eq!((&document["RunAsUser"], &document["SessionOwner"]), (&json!("app"), &json!(shell.subject)));

        let command = Action::Command(vec!["/bin/sh".into(), "-c".into(), "echo {{ x }} '$HOME'".into()]);
        let (kind, document) = content(&grant(command.clone(), true));
        assert_eq!((kind, &document["Parameters"]["command"]), (Kind::Interactive, &json!("echo {{ x }} '$HOME'")));
        assert_eq!(document["DocumentContent"]["properties"]["linux"]["commands"], "{{ command }}");
        let (kind, document) = content(&grant(Action::ShellCommand("exit 3".to_owned()), true));
        assert_eq!((kind, &document["Parameters"]["command"]), (Kind::Interactive, &json!("exit 3")));
        let (kind, document) = content(&grant(command, false));
        assert_eq!(kind, Kind::NonInteractive);
        assert_eq!(document["Parameters"]["command"], r"/bin/sh -c 'echo {{ x }} '\''$HOME'\'''");
        assert_eq!(document["DocumentContent"]["properties"]["linux"]["separateOutputStream"], true);
    }

    #[test]
    fn the_agents_own_user_needs_the_right_to_be_privileged() {
        let mut own = grant(Action::Shell { profile: String::new() }, true);
        own.os_user = AGENTS_OWN_USER.to_owned();
        assert!(order(&own).unwrap_err().contains("munjigi:StartPrivilegedSession"));
        own.privileged = true;
        let (_, document) = content(&own);
        assert_eq!(
            (&document["RunAsUser"], &document["DocumentContent"]["inputs"]["runAsEnabled"]),
            (&json!(""), &json!(false))
        );
        own.variables.push(("SSM_x".into(), "1".into()));
        assert!(order(&own).unwrap_err().contains("variables"));
    }

    #[test]
    fn a_shell_reads_exactly_the_arguments_that_were_meant() {
        let command: Vec<String> =
            ["printf", "%s\\n", "a b", "'", "\"$HOME\"", "`id`", "", "*", "\\", "웹", "a;b", "-n"]
                .map(String::from)
                .into();
        let variables = vec![("SSM_x".to_owned(), "it's $1".to_owned())];
        for (variables, script) in [(&[][..], words(&command, &[])), (&variables[..], script(&command, &variables))] {
            let printed = Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap();
            let expected: String = command[2..].iter().map(|word| format!("{word}\n")).collect();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), expected, "{variables:?}");
        }
        let env = script(&["/bin/sh".into(), "-c".into(), "echo \"$SSM_x\"".into()], &variables);
        let printed = Command::new("/bin/sh").arg("-c").arg(&env).output().unwrap();
        assert_eq!(printed.stdout, b"it's $1\n");
    }
}
