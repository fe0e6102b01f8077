use super::*;

fn command(text: &str) -> Option<FileCommand> {
    FileCommand::of(text.as_bytes()).unwrap()
}

fn patterns(paths: &[PathPattern]) -> Vec<&str> {
    paths.iter().map(PathPattern::as_str).collect()
}

#[test]
fn calls_of_scp_are_read() {
    let Some(FileCommand::Scp(call)) = command("scp -v -r -p -d -t -- /srv/in") else { panic!() };
    assert_eq!((call.side, call.recursive, call.preserve, call.into_directory), (ScpSide::Sink, true, true, true));
    assert_eq!(patterns(&call.paths), ["/srv/in"]);
    let Some(FileCommand::Scp(call)) = command(r#"scp -pf '/a b' "c\"d" e\*f *.log ~/x '~y' ''"#) else { panic!() };
    assert_eq!((call.side, call.preserve, call.recursive), (ScpSide::Source, true, false));
    assert_eq!(patterns(&call.paths), ["/a b", "c\"d", "e\\*f", "*.log", "~/x", "\\~y", ""]);
}

#[test]
fn what_only_resembles_a_call_for_files_stays_a_command() {
    for text in [
        "",
        "scp a b",
        "scp -t -f x",
        "scp -t x; id",
        "scp -t $(id)",
        "scp -t `id`",
        "scp -t x | sh",
        "scp -t x > y",
        "scp -t \"$HOME\"",
        "scp -t x\nid",
        "scp -t 'x",
        "/usr/bin/scp -t x",
        "X=1 scp -t x",
        "rsync -a a b",
        "rsync --daemon",
        "rsync --server . x & id",
        "sudo rsync --server . x",
        "# scp -t x",
    ] {
        assert_eq!(FileCommand::of(text.as_bytes()), Ok(None), "{text}");
    }
}

#[test]
fn calls_of_rsync_are_read_and_written_again() {
    let text =
        "rsync --server --sender -vvlogDtpre.iLsfxCIvu --delete --max-size=10m --partial-dir .part . /srv/a\\ b *.x";
    let Some(FileCommand::Rsync(call)) = command(text) else { panic!() };
    assert!(call.sends());
    assert!(!call.follows_links());
    assert_eq!(patterns(call.paths()), ["/srv/a b", "*.x"]);
    assert_eq!(call.options(), ["-vvlogDtpre.iLsfxCIvu", "--delete", "--max-size=10m", "--partial-dir", ".part"]);
    assert_eq!(call.to_string().parse(), Ok(call));
    let Some(FileCommand::Rsync(call)) = command("rsync --server -LKre.iLs . ~/'a*b'") else { panic!() };
    assert!(!call.sends());
    assert!(call.follows_links());
    assert_eq!(call.to_string().parse(), Ok(call));
    let text = "rsync --server -Rre.iLs --no-implied-dirs --backup-dir=old/x --temp-dir t --link-dest ../y . /srv/a";
    assert!(FileCommand::of(text.as_bytes()).is_err());
    let Some(FileCommand::Rsync(call)) = command(&text.replace("../y", "y")) else { panic!() };
    assert!(call.follows_links(), "through links that stand where directories are implied");
    let mut directories: Vec<_> = call.directories().collect();
    directories.sort_unstable();
    assert_eq!(directories, ["old/x", "t", "y"]);
}

#[test]
fn rsync_does_nothing_that_is_not_on_the_list() {
    for (text, why) in [
        ("--server --daemon . x", "--daemon"),
        ("--server -e./sh . x", "-e./sh"),
        ("--server -re --rsh=sh . x", "--rsh=sh"),
        ("--server --log-file=/etc/passwd . x", "--log-file=/etc/passwd"),
        ("--server --config=/x . x", "--config=/x"),
        ("--server --sender --remove-source-files . x", "--remove-source-files"),
        ("--server --files-from=/etc/shadow . x", "--files-from=/etc/shadow"),
        ("--server --temp-dir /etc . x", "--temp-dir"),
        ("--server --backup-dir=../x . x", "--backup-dir=../x"),
        ("--server --write-devices . x", "--write-devices"),
        ("--server --rsync-path=sh . x", "--rsync-path=sh"),
        ("--server --password-file=x . x", "--password-file=x"),
        ("--server x", "x"),
    ] {
        let refused = FileCommandError::Option { program: "rsync", option: why.to_owned() };
        assert_eq!(FileCommand::of(format!("rsync {text}").as_bytes()), Err(refused), "{text}");
    }
    for (text, why) in [
        ("--server -se.iLs .", FileCommandError::Secluded),
        ("--server -s .", FileCommandError::Secluded),
        ("--server --sender -Re.iLs . x", FileCommandError::Relative),
        ("--server -re.iLs .", FileCommandError::Paths("rsync")),
        ("--server -re.iLs . a b", FileCommandError::Paths("rsync")),
    ] {
        assert_eq!(FileCommand::of(format!("rsync {text}").as_bytes()), Err(why), "{text}");
    }
}

#[test]
fn altered_commands_are_refused_or_read_and_can_be_written_again() {
    let seed = b"rsync --server --sender -logDtpre.iLsfxCIvu --delete '--suffix=~' . \"/a b\" \\~x c*[a-z]?";
    crate::mutate::each(seed, 3, |bytes| {
        if let Ok(Some(FileCommand::Rsync(call))) = FileCommand::of(bytes) {
            assert_eq!(call.to_string().parse(), Ok(call));
        }
    });
    crate::mutate::each(b"scp -r -p -f -- 'a b' \"c\" d\\*", 4, |bytes| drop(FileCommand::of(bytes)));
}
