//! Documents as people write them, good and bad.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;

fn parse(document: &Json) -> Result<Document, DocumentError> {
    Document::parse(&document.to_string())
}

fn given(values: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    values.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect()
}

fn preferences(inputs: Json) -> Json {
    json!({ "schemaVersion": "1.0", "description": "", "sessionType": "Standard_Stream", "inputs": inputs })
}

fn command(kind: &str, parameters: Json, properties: Json) -> Json {
    json!({ "schemaVersion": "1.0", "sessionType": kind, "parameters": parameters, "properties": properties })
}

/// The document that AWS's console writes.
#[test]
fn the_preferences_of_aws_are_read() {
    let document = parse(&preferences(json!({
        "s3BucketName": "", "s3KeyPrefix": "", "s3EncryptionEnabled": true, "cloudWatchLogGroupName": "",
        "cloudWatchEncryptionEnabled": "true", "cloudWatchStreamingEnabled": false, "kmsKeyId": "",
        "runAsEnabled": true, "runAsDefaultUser": "alice", "idleSessionTimeout": "20", "maxSessionDuration": 60,
        "shellProfile": { "windows": "date", "linux": "cd /srv\nexec bash" },
    })))
    .unwrap();
    assert_eq!((document.session_type(), document.warnings()), (SessionType::StandardStream, Vec::new()));
    assert_eq!(document.platforms(), Platform::ALL);
    let resolved = document.resolve(&BTreeMap::new()).unwrap();
    assert_eq!(resolved.run, Run::Shell);
    let kept = resolved.preferences;
    assert_eq!(kept.idle, Some(Duration::from_secs(1200)));
    assert_eq!(kept.maximum, Some(Duration::from_secs(3600)));
    assert_eq!((kept.run_as, kept.run_as_user.as_str()), (true, "alice"));
    assert_eq!(kept.profile, "cd /srv\nexec bash");
    assert!(kept.log_encryption && kept.s3_encryption && !kept.log_streaming);
    let bare = parse(&preferences(json!({}))).unwrap().resolve(&BTreeMap::new()).unwrap().preferences;
    assert!(bare.s3_encryption && bare.log_encryption && !bare.run_as, "encryption is demanded unless it is waived");
    assert_eq!((bare.idle, bare.maximum), (None, None));
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let one = |inputs: Json| preferences(inputs);
    let parameter = |parameter: Json| {
        command("InteractiveCommands", json!({ "a": parameter }), json!({ "linux": { "commands": "x {{ a }}" } }))
    };
    let linux = |kind: &str, linux: Json| command(kind, json!({}), json!({ "linux": linux }));
    let port = |properties: Json| command("Port", json!({}), properties);
    let cases = [
        (one(json!({ "idleSesionTimeout": "20" })), "$.inputs.idleSesionTimeout", "no field"),
        (one(json!({ "idleSessionTimeout": "0" })), "$.inputs.idleSessionTimeout", "1 to 60"),
        (one(json!({ "idleSessionTimeout": "61" })), "$.inputs.idleSessionTimeout", "1 to 60"),
        (one(json!({ "idleSessionTimeout": "+5" })), "$.inputs.idleSessionTimeout", "1 to 60"),
        (one(json!({ "idleSessionTimeout": 1.5 })), "$.inputs.idleSessionTimeout", "1 to 60"),
        (one(json!({ "maxSessionDuration": 1441 })), "$.inputs.maxSessionDuration", "1 to 1440"),
        (one(json!({ "maxSessionDuration": [] })), "$.inputs.maxSessionDuration", "a list"),
        (one(json!({ "runAsEnabled": "yes" })), "$.inputs.runAsEnabled", "true or false"),
        (one(json!({ "runAsDefaultUser": "a b" })), "$.inputs.runAsDefaultUser", "OS user"),
        (one(json!({ "s3BucketName": "ab" })), "$.inputs.s3BucketName", "less than 3"),
        (one(json!({ "s3KeyPrefix": "a".repeat(501) })), "$.inputs.s3KeyPrefix", "500"),
        (one(json!({ "kmsKeyId": null })), "$.inputs.kmsKeyId", "text, not null"),
        (one(json!({ "shellProfile": { "linux": "a".repeat(513) } })), "$.inputs.shellProfile.linux", "512"),
        (one(json!({ "shellProfile": { "bash": "" } })), "$.inputs.shellProfile.bash", "no field"),
        (one(json!({ "kmsKeyId": "{{ key }}" })), "$.inputs.kmsKeyId", "no parameter"),
        (json!([]), "$", "an object"),
        (json!({ "schemaVersion": "1.0" }), "$.sessionType", "required"),
        (json!({ "schemaVersion": "1.0", "sessionType": "Shell" }), "$.sessionType", "none of"),
        (json!({ "schemaVersion": "1.0", "sessionType": "Standard_Stream" }), "$.inputs", "required"),
        (json!({ "schemaVersion": "1.0", "sessionType": "Port" }), "$.properties", "required"),
        (json!({ "schemaVersion": "1.0", "sessionType": "Port", "mainSteps": [] }), "$.mainSteps", "no field"),
        (parameter(json!({})), "$.parameters.a.type", "required"),
        (parameter(json!({ "type": "StringList" })), "$.parameters.a.type", "String"),
        (
            parameter(json!({ "type": "String", "allowedPattern": "(a)\\1" })),
            "$.parameters.a.allowedPattern",
            "regular",
        ),
        (
            parameter(json!({ "type": "String", "allowedPattern": "a", "default": "b" })),
            "$.parameters.a.default",
            "match",
        ),
        (parameter(json!({ "type": "String", "allowedValues": [] })), "$.parameters.a.allowedValues", "1 to 256"),
        (parameter(json!({ "type": "String", "allowedValues": [1] })), "$.parameters.a.allowedValues[0]", "text"),
        (parameter(json!({ "type": "String", "minChars": 3, "maxChars": 2 })), "$.parameters.a", "minChars"),
        (
            parameter(json!({ "type": "String", "interpolationType": "SAFE" })),
            "$.parameters.a.interpolationType",
            "ENV_VAR",
        ),
        (
            command(
                "InteractiveCommands",
                json!({ "1-$": { "type": "String" } }),
                json!({ "linux": { "commands": "x" } }),
            ),
            "$.parameters.1-$",
            "name",
        ),
        (
            command(
                "NonInteractiveCommands",
                json!({ "a": { "type": "String", "interpolationType": "ENV_VAR" } }),
                json!({ "linux": { "commands": "x {{a}}" } }),
            ),
            "$.properties.linux.commands",
            "ENV_VAR",
        ),
        (linux("InteractiveCommands", json!({ "commands": " " })), "$.properties.linux.commands", "empty"),
        (linux("InteractiveCommands", json!({ "commands": ["ls"] })), "$.properties.linux.commands", "text"),
        (
            linux("InteractiveCommands", json!({ "commands": "ls", "separateOutputStream": true })),
            "$.properties.linux.separateOutputStream",
            "no field",
        ),
        (linux("NonInteractiveCommands", json!({ "commands": "ls 'a" })), "$.properties.linux.commands", "quote"),
        (
            linux("NonInteractiveCommands", json!({ "commands": "ls", "stdOutSeparatorPrefix": "a b" })),
            "$.properties.linux.stdOutSeparatorPrefix",
            "letters",
        ),
        (linux("Standard_Stream", json!({})), "$.inputs", "required"),
        (
            command("InteractiveCommands", json!({}), json!({ "macos": { "commands": "ls" } })),
            "$.properties.linux",
            "required",
        ),
        (port(json!({})), "$.properties.portNumber", "required"),
        (port(json!({ "portNumber": "0" })), "$.properties.portNumber", "1 to 65535"),
        (port(json!({ "portNumber": "65536" })), "$.properties.portNumber", "65535"),
        (port(json!({ "portNumber": "080" })), "$.properties.portNumber", "65535"),
        (
            port(json!({ "portNumber": "80", "type": "RemotePortForwarding" })),
            "$.properties.type",
            "LocalPortForwarding",
        ),
        (port(json!({ "portNumber": "80", "host": "a b" })), "$.properties.host", "host name"),
        (
            port(json!({ "portNumber": "80", "localConnectionType": "tcp" })),
            "$.properties.localConnectionType",
            "socket",
        ),
    ];
    for (document, path, part) in cases {
        match parse(&document) {
            Err(DocumentError::Content { path: found, message }) => {
                assert_eq!(found, path, "{message}");
                assert!(message.contains(part), "{path}: {message}");
            }
            other => panic!("{document}: {other:?}"),
        }
    }
    assert_eq!(parse(&json!({ "schemaVersion": "2.2" })).unwrap_err().code(), "InvalidDocumentSchemaVersion");
    assert_eq!(parse(&json!({ "schemaVersion": 1.0 })).unwrap_err().code(), "InvalidDocumentSchemaVersion");
    assert_eq!(Document::parse(&" ".repeat(MAX_BYTES + 1)).unwrap_err(), DocumentError::TooLarge);
    for (text, place) in [
        ("{", "line 1, column 2"),
        ("{\n \"a\": 1, \"a\": 2}", "line 2, column 10"),
        ("", "line 1"),
        ("schemaVersion: '1.0'", "line 1"),
    ] {
        let error = Document::parse(text).unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[test]
fn parameters_are_checked_and_put_in_once() {
    let document = parse(&command(
        "InteractiveCommands",
        json!({
            "service": { "type": "String", "allowedPattern": "[a-z-]+", "default": "nginx" },
            "lines": { "type": "String", "minChars": 1, "maxChars": 4 },
            "level": { "type": "String", "allowedValues": ["info", "warn"], "default": "info" },
            "needle": { "type": "String", "interpolationType": "ENV_VAR", "default": "" },
        }),
        json!({ "linux": { "commands": "journalctl -u {{service}} -n {{ lines }} -p {{level}} | grep {{needle}}" } }),
    ))
    .unwrap();
    assert_eq!(document.platforms(), [Platform::Linux]);
    assert_eq!(document.warnings().len(), 1, "lines takes anything");
    let resolved = document.resolve(&given(&[("lines", "{{a}"), ("needle", "$(id) '; x")])).unwrap();
    let Run::Interactive(command) = resolved.run else { panic!("{resolved:?}") };
    assert_eq!(command.commands, "journalctl -u nginx -n {{a} -p info | grep ${SSM_needle}");
    assert_eq!(resolved.variables, [("SSM_needle".to_owned(), "$(id) '; x".to_owned())]);
    assert_eq!(command.for_shell()[..2], ["/bin/sh", "-c"]);

    let refused = |values: &[(&str, &str)]| document.resolve(&given(values)).unwrap_err();
    assert_eq!(refused(&[]), ResolveError::Missing("lines".into()));
    assert_eq!(refused(&[("lines", "1"), ("line", "1")]), ResolveError::Unknown("line".into()));
    for (name, value, why) in [
        ("service", "nginx; id", "allowed pattern"),
        ("service", "nginx\n", "allowed pattern"),
        ("lines", "", "1 to 4"),
        ("lines", "가나다라마", "1 to 4"),
        ("level", "debug", "info, warn"),
        ("needle", "a\0b", "NUL"),
    ] {
        let mut values = vec![("lines", "5")];
        values.retain(|(known, _)| *known != name);
        values.push((name, value));
        let error = refused(&values).to_string();
        assert!(error.contains(name) && error.contains(why), "{error}");
        assert!(!error.contains("nginx;"), "values are not repeated");
    }
    for values in [Vec::new(), vec!["1".to_owned(), "2".to_owned()]] {
        let given = BTreeMap::from([("lines".to_owned(), values)]);
        assert_eq!(document.resolve(&given).unwrap_err(), ResolveError::NotOne("lines".into()));
    }
}

#[test]
fn parameters_keep_the_order_of_the_document() {
    let text = r#"{"schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": {"z": {"type": "String"}, "a": {"type": "String"}, "m": {"type": "String"}},
        "properties": {"linux": {"commands": "x"}}}"#;
    let document = Document::parse(text).unwrap();
    let names: Vec<&str> = document.parameters().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn placeholders_stand_for_numbers_and_flags_too_and_are_judged_when_filled() {
    let document = parse(&json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": { "idle": { "type": "String", "default": "5" }, "split": { "type": "String", "default": "true" } },
        "inputs": { "idleSessionTimeout": "{{ idle }}" },
        "properties": { "linux": { "commands": "systemctl status '{{ idle }}'", "separateOutputStream": "{{ split }}" } },
    }))
    .unwrap();
    let resolved = document.resolve(&BTreeMap::new()).unwrap();
    assert_eq!(resolved.preferences.idle, Some(Duration::from_secs(300)));
    let Run::NonInteractive(found) = resolved.run else { panic!("{resolved:?}") };
    assert_eq!(found.split().unwrap(), ["systemctl", "status", "5"]);
    assert_eq!(found.separated, Some(Separated::default()));
    for (values, path) in [
        ([("idle", "90")], "$.inputs.idleSessionTimeout"),
        ([("split", "maybe")], "$.properties.linux.separateOutputStream"),
        ([("idle", "'")], "$.properties.linux.commands"),
    ] {
        let error = document.resolve(&given(&values)).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
    let long = parse(&command(
        "InteractiveCommands",
        json!({ "a": { "type": "String" } }),
        json!({ "linux": { "commands": "{{a}}".repeat(200) } }),
    ));
    assert!(
        long.unwrap().resolve(&given(&[("a", &"x".repeat(60_000))])).unwrap_err().to_string().contains("too large")
    );
}

#[test]
fn every_built_in_document_is_good_and_does_what_its_name_says() {
    let resolve = |name: &str, values: &[(&str, &str)]| {
        let document =
            Document::parse(built_in(name).unwrap().content).unwrap_or_else(|error| panic!("{name}: {error}"));
        document.resolve(&given(values)).map(|resolved| resolved.run)
    };
    assert!(BUILT_IN.is_sorted_by_key(|document| document.name));
    for document in BUILT_IN.iter().filter(|document| document.document_type == "Session") {
        assert!(Document::parse(document.content).is_ok(), "{}", document.name);
    }
    assert!(serde_json::from_str::<Json>(built_in("AWS-RunShellScript").unwrap().content).is_ok());
    assert_eq!(built_in("AWS-Nothing"), None);

    let port = |run: Result<Run, ResolveError>| match run.unwrap() {
        Run::Port(port) => port,
        other => panic!("{other:?}"),
    };
    let ssh = port(resolve("AWS-StartSSHSession", &[]));
    assert_eq!((ssh.port, ssh.port_type), (22, PortType::Stdio));
    assert_eq!(json!(ssh.handshake()), json!({ "portNumber": "22" }));
    let forward = port(resolve("AWS-StartPortForwardingSession", &[("portNumber", "5432")]));
    assert_eq!(
        json!(forward.handshake()),
        json!({ "portNumber": "5432", "type": "LocalPortForwarding", "localPortNumber": "0" })
    );
    let remote = port(resolve(
        "AWS-StartPortForwardingSessionToRemoteHost",
        &[("host", "db.internal"), ("localPortNumber", "9999")],
    ));
    assert_eq!((remote.host.as_str(), remote.port, remote.local_port), ("db.internal", 80, 9999));
    let socket = port(resolve("AWS-StartPortForwardingSessionToSocket", &[("localUnixSocket", "/tmp/s")]));
    assert_eq!(socket.handshake()["localConnectionType"], "unix");
    let interactive = resolve("AWS-StartInteractiveCommand", &[("command", "top -d 1 | cat")]).unwrap();
    assert!(
        matches!(&interactive, Run::Interactive(command) if command.for_shell()[2] == "top -d 1 | cat" && !command.elevated)
    );
    let apart = [("command", "x"), ("separateOutputStream", "true"), ("stdErrSeparatorPrefix", "E:")];
    let Run::NonInteractive(apart) = resolve("AWS-StartNonInteractiveCommand", &apart).unwrap() else { panic!("kind") };
    assert_eq!(apart.separated, Some(Separated { stdout_prefix: String::new(), stderr_prefix: "E:".into() }));
    let Run::NonInteractive(plain) = resolve("AWS-StartNonInteractiveCommand", &[("command", "x")]).unwrap() else {
        panic!("kind")
    };
    assert_eq!(plain.separated, None);
    let reset = resolve("AWS-PasswordReset", &[("username", "alice")]).unwrap();
    assert!(matches!(&reset, Run::Interactive(command) if command.commands == "passwd alice" && command.elevated));

    for (name, values) in [
        ("AWS-StartSSHSession", [("portNumber", "0")]),
        ("AWS-StartSSHSession", [("portNumber", "65536")]),
        ("AWS-StartPortForwardingSession", [("localPortNumber", "-1")]),
        ("AWS-StartPortForwardingSessionToRemoteHost", [("host", "$(id)")]),
        ("AWS-StartPortForwardingSessionToRemoteHost", [("host", "ab")]),
        ("AWS-PasswordReset", [("username", "root; id")]),
    ] {
        assert!(matches!(resolve(name, &values), Err(ResolveError::Refused { .. })), "{name} {values:?}");
    }
}

#[test]
fn what_this_server_does_not_do_is_said() {
    let document =
        parse(&preferences(json!({ "kmsKeyId": "alias/x", "s3BucketName": "logs", "cloudWatchLogGroupName": "g" })))
            .unwrap();
    let warnings = document.warnings().join("\n");
    for part in ["kmsKeyId", "refused", "s3BucketName", "cloudWatchLogGroupName", "uploads none"] {
        assert!(warnings.contains(part), "{part}");
    }
}

/// T-119: a cheap generator, so that a failure can be repeated.
#[test]
fn a_quarter_million_mutated_documents_neither_panic_nor_grow() {
    let seeds: Vec<Vec<u8>> = BUILT_IN
        .iter()
        .map(|document| document.content.as_bytes().to_vec())
        .chain([
            preferences(json!({ "idleSessionTimeout": "20", "shellProfile": { "linux": "a" }, "runAsEnabled": "true" })).to_string().into_bytes(),
            command("InteractiveCommands", json!({ "a": { "type": "String", "allowedPattern": "[a-z]{1,9}", "allowedValues": ["a"], "interpolationType": "ENV_VAR" } }), json!({ "linux": { "commands": "{{ a }} 'b' \"c\" \\d" } })).to_string().into_bytes(),
        ])
        .collect();
    let mut state = 0x6d75_6e6a_6967_6921_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap_or(0)
    };
    let values = given(&[("a", "a"), ("command", "x"), ("host", "a.b"), ("username", "u"), ("localUnixSocket", "/s")]);
    let mut good = 0_u32;
    for round in 0..(1 << 18) {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + next() % 3 {
            let at = next() % bytes.len();
            match next() % 4 {
                0 => bytes[at] = b"{}[]\":,\\ 0a\n-"[next() % 13],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]\":,\\ 09$(*"[next() % 14]),
                _ => bytes.swap(at, next() % seeds[round % seeds.len()].len().min(at + 1)),
            }
        }
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        if let Ok(document) = Document::parse(text) {
            good += 1;
            let _ = document.warnings();
            if let Ok(resolved) = document.resolve(&values) {
                assert!(format!("{resolved:?}").len() < 2 * MAX_RESOLVED_BYTES);
            }
        }
    }
    assert!(good > 1000, "most mutations inside texts leave a good document: {good}");
}
