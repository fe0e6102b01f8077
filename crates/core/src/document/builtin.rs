//! The documents that are always there (aws-api D.2): owner `Amazon`, read-only, one version.
//!
//! Names, parameters and checks are those that AWS's users know; the texts are ours.

/// A built-in document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// `Session` or `Command`.
    pub document_type: &'static str,
    /// Its text in JSON.
    pub content: &'static str,
}

/// Returns the built-in document of that name.
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|document| document.name == name)
}

/// Decimal 1 to 65535, as the documents of AWS spell it out.
macro_rules! port_pattern {
    () => {
        "^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
    };
}

/// Decimal 0 to 65535.
macro_rules! any_port_pattern {
    () => {
        "^([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
    };
}

/// All of them, by name.
pub const BUILT_IN: [BuiltIn; 8] = [
    BuiltIn {
        name: "AWS-PasswordReset",
        document_type: "Session",
        content: r#"{
  "schemaVersion": "1.0",
  "description": "Sets the password of an OS user, asked for on the terminal",
  "sessionType": "InteractiveCommands",
  "parameters": {
    "username": {
      "type": "String",
      "description": "OS user whose password is set",
      "allowedPattern": "^[a-z_][a-z0-9_.-]{0,31}$"
    }
  },
  "properties": {
    "linux": { "commands": "passwd {{ username }}", "runAsElevated": true }
  }
}
"#,
    },
    BuiltIn {
        name: "AWS-RunShellScript",
        document_type: "Command",
        content: r#"{
  "schemaVersion": "2.2",
  "description": "Runs a shell script",
  "parameters": {
    "commands": { "type": "StringList", "description": "Lines of the script", "minItems": 1, "displayType": "textarea" },
    "workingDirectory": { "type": "String", "default": "", "description": "Where the script runs", "maxChars": 4096 },
    "executionTimeout": {
      "type": "String",
      "default": "3600",
      "description": "Seconds until the script is ended, 1 to 172800",
      "allowedPattern": "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)"
    }
  },
  "mainSteps": [
    {
      "action": "aws:runShellScript",
      "name": "runShellScript",
      "precondition": { "StringEquals": ["platformType", "Linux"] },
      "inputs": {
        "runCommand": "{{ commands }}",
        "workingDirectory": "{{ workingDirectory }}",
        "timeoutSeconds": "{{ executionTimeout }}"
      }
    }
  ]
}
"#,
    },
    BuiltIn {
        name: "AWS-StartInteractiveCommand",
        document_type: "Session",
        content: r#"{
  "schemaVersion": "1.0",
  "description": "Runs one command on a terminal",
  "sessionType": "InteractiveCommands",
  "parameters": {
    "command": { "type": "String", "description": "The command, for /bin/sh", "displayType": "textarea" }
  },
  "properties": {
    "windows": { "commands": "{{ command }}", "runAsElevated": false },
    "linux": { "commands": "{{ command }}", "runAsElevated": false },
    "macos": { "commands": "{{ command }}", "runAsElevated": false }
  }
}
"#,
    },
    BuiltIn {
        name: "AWS-StartNonInteractiveCommand",
        document_type: "Session",
        content: r#"{
  "schemaVersion": "1.0",
  "description": "Runs one command without a terminal",
  "sessionType": "NonInteractiveCommands",
  "parameters": {
    "command": { "type": "String", "description": "The command, for /bin/sh", "displayType": "textarea" },
    "separateOutputStream": {
      "type": "String",
      "description": "Whether errors and the exit code are told apart from the output",
      "allowedValues": ["true", "false"],
      "default": "false"
    },
    "stdOutSeparatorPrefix": { "type": "String", "description": "Stands before output then", "default": "" },
    "stdErrSeparatorPrefix": { "type": "String", "description": "Stands before errors then", "default": "" }
  },
  "properties": {
    "windows": { "commands": "{{ command }}", "runAsElevated": false },
    "linux": {
      "commands": "{{ command }}",
      "runAsElevated": false,
      "separateOutputStream": "{{ separateOutputStream }}",
      "stdOutSeparatorPrefix": "{{ stdOutSeparatorPrefix }}",
      "stdErrSeparatorPrefix": "{{ stdErrSeparatorPrefix }}"
    },
    "macos": { "commands": "{{ command }}", "runAsElevated": false }
  }
}
"#,
    },
    BuiltIn {
        name: "AWS-StartPortForwardingSession",
        document_type: "Session",
        content: concat!(
            r#"{
  "schemaVersion": "1.0",
  "description": "Forwards a local port to a port of the node",
  "sessionType": "Port",
  "parameters": {
    "portNumber": {
      "type": "String",
      "description": "Port on the node",
      "allowedPattern": ""#,
            port_pattern!(),
            r#"",
      "default": "80"
    },
    "localPortNumber": {
      "type": "String",
      "description": "Local port; 0 for any that is free",
      "allowedPattern": ""#,
            any_port_pattern!(),
            r#"",
      "default": "0"
    }
  },
  "properties": {
    "portNumber": "{{ portNumber }}",
    "type": "LocalPortForwarding",
    "localPortNumber": "{{ localPortNumber }}"
  }
}
"#
        ),
    },
    BuiltIn {
        name: "AWS-StartPortForwardingSessionToRemoteHost",
        document_type: "Session",
        content: concat!(
            r#"{
  "schemaVersion": "1.0",
  "description": "Forwards a local port to a port of a host that the node reaches",
  "sessionType": "Port",
  "parameters": {
    "host": {
      "type": "String",
      "description": "Name or address of the host, as the node knows it",
      "allowedPattern": "^[^,$^&()!;'\"<>`{}\\[\\]|#=]{3,}$"
    },
    "portNumber": {
      "type": "String",
      "description": "Port on that host",
      "allowedPattern": ""#,
            port_pattern!(),
            r#"",
      "default": "80"
    },
    "localPortNumber": {
      "type": "String",
      "description": "Local port; 0 for any that is free",
      "allowedPattern": ""#,
            any_port_pattern!(),
            r#"",
      "default": "0"
    }
  },
  "properties": {
    "host": "{{ host }}",
    "portNumber": "{{ portNumber }}",
    "type": "LocalPortForwarding",
    "localPortNumber": "{{ localPortNumber }}"
  }
}
"#
        ),
    },
    BuiltIn {
        name: "AWS-StartPortForwardingSessionToSocket",
        document_type: "Session",
        content: concat!(
            r#"{
  "schemaVersion": "1.0",
  "description": "Forwards a local unix socket to a port of the node",
  "sessionType": "Port",
  "parameters": {
    "portNumber": {
      "type": "String",
      "description": "Port on the node",
      "allowedPattern": ""#,
            port_pattern!(),
            r#"",
      "default": "80"
    },
    "localUnixSocket": {
      "type": "String",
      "description": "Path of the local socket",
      "minChars": 1,
      "maxChars": 107
    }
  },
  "properties": {
    "portNumber": "{{ portNumber }}",
    "type": "LocalPortForwarding",
    "localUnixSocket": "{{ localUnixSocket }}",
    "localConnectionType": "socket"
  }
}
"#
        ),
    },
    BuiltIn {
        name: "AWS-StartSSHSession",
        document_type: "Session",
        content: concat!(
            r#"{
  "schemaVersion": "1.0",
  "description": "Connects standard input and output to the SSH port of the node",
  "sessionType": "Port",
  "parameters": {
    "portNumber": {
      "type": "String",
      "description": "SSH port on the node",
      "allowedPattern": ""#,
            port_pattern!(),
            r#"",
      "default": "22"
    }
  },
  "properties": { "portNumber": "{{ portNumber }}" }
}
"#
        ),
    },
];
