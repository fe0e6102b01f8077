//! The configuration of aws-ec2-ssh, both widdix' and andromedarabbit's: lines of `KEY="value"` that the old scripts ran as
//! shell, read here as data (L14).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use munjigi_core::account::bundle::{valid_group, valid_shell};
use munjigi_core::account::rule::{Mode, NameForm, Place, RuleSettings, Who};

use super::{Findings, PutRule};
use crate::client::credentials::read_bounded;

/// Where both keep it.
const FILE: &str = "etc/aws-ec2-ssh.conf";
/// The name under which `SUDOERS_GROUPS` means everybody.
const ALL: &str = "##ALL##";
/// Shell of `USERADD_ARGS` where it names none.
const SHELL: &str = "/bin/bash";

/// Reads the configuration below a root and says what it means here.
pub(super) fn read(root: &Path, nodes: &[Place]) -> anyhow::Result<Findings> {
    let path = root.join(FILE);
    let text = read_bounded(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let (values, notes) = parse(&text);
    Ok(translate(&values, notes, nodes))
}

/// Reads the lines; the last of a key counts. What is no plain value is left out and noted.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut values, mut notes) = (BTreeMap::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Some((key, value)) => drop(values.insert(key, value)),
            None => notes.push(format!("line {} of {FILE} is shell code and was not taken over", number + 1)),
        }
    }
    (values, notes)
}

/// Reads `KEY=value`, `KEY="value"` or `KEY='value'` without anything that a shell would do more with.
fn assignment(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    let good = !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let quoted = |mark: char| {
        let rest = value.strip_prefix(mark)?;
        let (inner, behind) = rest.split_once(mark)?;
        let behind = behind.trim();
        (behind.is_empty() || behind.starts_with('#')).then_some(inner)
    };
    let value = match value.chars().next() {
        Some('"') => quoted('"').filter(|inner| !inner.contains(['$', '`', '\\']))?,
        Some('\'') => quoted('\'')?,
        _ => {
            let bare = value.split_whitespace().next().unwrap_or_default();
            let rest = value.strip_prefix(bare).unwrap_or_default().trim();
            let plain = !bare.contains(['$', '`', '\\', '"', '\'', ';', '&', '|', '<', '>', '(', ')'])
                && (rest.is_empty() || rest.starts_with('#'));
            plain.then_some(bare)?
        }
    };
    good.then(|| (key.to_owned(), value.to_owned()))
}

fn translate(values: &BTreeMap<String, String>, notes: Vec<String>, nodes: &[Place]) -> Findings {
    let value = |key: &str| values.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let list = |key: &str| -> Vec<&str> {
        value(key).into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()).collect()
    };
    let mut findings = Findings { notes, ..Findings::default() };
    let mut note = |text: String| findings.notes.push(text);
    let groups: Vec<Who> = list("IAM_AUTHORIZED_GROUPS").into_iter().map(|name| Who::Group(name.to_owned())).collect();
    let who = if groups.is_empty() { vec![Who::All] } else { groups };
    let (local, odd): (Vec<&str>, Vec<&str>) = list("LOCAL_GROUPS").into_iter().partition(|name| valid_group(name));
    for name in odd {
        note(format!("LOCAL_GROUPS names `{name}`, which is no name of a group here"));
    }
    let sudoers = if value("SUDOERS_GROUPS").is_some() { list("SUDOERS_GROUPS") } else { list("SUDOERSGROUP") };
    let everybody = sudoers.contains(&ALL);
    for key in ["IAM_AUTHORIZED_GROUPS_TAG", "SUDOERS_GROUPS_TAG"] {
        if let Some(tag) = value(key) {
            note(format!(
                "{key} let the instance tag `{tag}` name groups; make a rule for each group with --nodes and a node tag instead"
            ));
        }
    }
    if let Some(role) = value("ASSUMEROLE") {
        note(format!(
            "ASSUMEROLE was {role}: people are users of Munjigi now, and no node needs a role to look them up"
        ));
    }
    let arguments: Vec<&str> = value("USERADD_ARGS").into_iter().flat_map(str::split_whitespace).collect();
    let shell = arguments
        .iter()
        .position(|word| ["--shell", "-s"].contains(word))
        .and_then(|at| arguments.get(at + 1).copied())
        .or_else(|| arguments.iter().find_map(|word| word.strip_prefix("--shell=")));
    let known = ["--user-group", "-U", "--create-home", "-m", "--shell", "-s"];
    for word in
        arguments.iter().filter(|word| word.starts_with('-') && !known.contains(word) && !word.starts_with("--shell="))
    {
        note(format!("USERADD_ARGS has `{word}`, for which there is no setting"));
    }
    if value("USERDEL_ARGS").is_none_or(|text| text.split_whitespace().any(|word| ["--remove", "-r"].contains(&word))) {
        note(
            "homes were deleted with their accounts; now they are archived (--remove-home of a rule deletes them)"
                .to_owned(),
        );
    }
    for key in ["USERADD_PROGRAM", "USERDEL_PROGRAM"] {
        if let Some(program) =
            value(key).filter(|program| !program.ends_with("/useradd") && !program.ends_with("/userdel"))
        {
            note(format!("{key} was {program}, which is not run any more"));
        }
    }
    let rule = |who: Vec<Who>, among: Vec<Who>, groups: &[&str], sudo: bool| RuleSettings {
        who,
        among,
        nodes: nodes.to_vec(),
        mode: Mode::Synchronised,
        os_user: NameForm::Name,
        lowercase: true,
        shorten: false,
        groups: groups.iter().map(|name| (*name).to_owned()).collect(),
        sudo: if sudo { vec!["ALL".to_owned()] } else { Vec::new() },
        shell: shell.filter(|path| valid_shell(path)).unwrap_or(SHELL).to_owned(),
        grace_days: 7,
        remove_home: false,
    };
    if value("DONOTSYNC") == Some("1") {
        note(
            "DONOTSYNC was 1: no accounts were made, so no rule is; registered keys work for accounts that are there"
                .to_owned(),
        );
        return findings;
    }
    let marker = value("LOCAL_MARKER_GROUP").unwrap_or("iam-synced-users");
    match valid_group(marker) {
        true => findings.adopt_group = Some(marker.to_owned()),
        false => findings.notes.push(format!(
            "LOCAL_MARKER_GROUP is `{marker}`, which is no name of a group here; its members are not taken over"
        )),
    }
    findings
        .rules
        .push(PutRule { name: "imported-accounts".to_owned(), rule: rule(who.clone(), Vec::new(), &local, everybody) });
    if !sudoers.is_empty() && !everybody {
        let rights = sudoers.iter().map(|name| Who::Group((*name).to_owned())).collect();
        // Only who was imported had sudo.
        let among = if who == [Who::All] { Vec::new() } else { who };
        findings.rules.push(PutRule { name: "imported-sudo".to_owned(), rule: rule(rights, among, &local, true) });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Findings {
        let (values, notes) = parse(text);
        translate(&values, notes, &[Place::All])
    }

    #[test]
    fn every_key_of_the_old_table_is_taken_over_or_said() {
        let found = read_text(
            "# comment\nIAM_AUTHORIZED_GROUPS=\"dev,ops\"\nSUDOERS_GROUPS=\"ops\"\nLOCAL_MARKER_GROUP=\"people\"\n\
             LOCAL_GROUPS='docker, adm'\nASSUMEROLE=\"arn:aws:iam::1:role/x\"\nUSERADD_ARGS=\"--user-group --create-home \
             --shell /bin/zsh --btrfs\"\nUSERDEL_ARGS=\"--force\"\nDONOTSYNC=0\nSUDOERSGROUP=old\nIAM_AUTHORIZED_GROUPS_TAG=Who\n",
        );
        assert_eq!(found.adopt_group.as_deref(), Some("people"));
        let [accounts, sudo] = found.rules.as_slice() else { panic!("{:?}", found.rules) };
        assert_eq!(accounts.rule.who, [Who::Group("dev".into()), Who::Group("ops".into())]);
        assert_eq!((accounts.rule.shell.as_str(), accounts.rule.sudo.len()), ("/bin/zsh", 0));
        assert_eq!(accounts.rule.groups, ["docker", "adm"]);
        assert_eq!((&sudo.rule.who, &sudo.rule.among), (&vec![Who::Group("ops".into())], &accounts.rule.who));
        assert_eq!(sudo.rule.sudo, ["ALL"]);
        for word in ["ASSUMEROLE", "--btrfs", "IAM_AUTHORIZED_GROUPS_TAG"] {
            assert!(found.notes.iter().any(|note| note.contains(word)), "{word}: {:?}", found.notes);
        }
        assert!(found.rules.iter().all(|rule| rule.rule.check().is_ok()));
    }

    #[test]
    fn defaults_are_those_of_the_old_scripts() {
        let found = read_text("");
        assert_eq!(found.adopt_group.as_deref(), Some("iam-synced-users"));
        assert_eq!(found.rules.len(), 1);
        assert_eq!(found.rules[0].rule.who, [Who::All]);
        let all = read_text("SUDOERS_GROUPS=\"##ALL##\"\nSUDOERS_GROUPS='##ALL##'");
        assert_eq!((all.rules.len(), all.rules[0].rule.sudo.len()), (1, 1));
        assert!(read_text("DONOTSYNC=1").rules.is_empty());
        let odd = read_text("LOCAL_MARKER_GROUP=\"it's\"");
        assert!(odd.adopt_group.is_none() && odd.notes.iter().any(|note| note.contains("it's")), "{:?}", odd.notes);
    }

    #[test]
    fn shell_code_is_never_run_nor_taken_for_a_value() {
        for line in [
            "IAM_AUTHORIZED_GROUPS=$(touch /tmp/x)",
            "IAM_AUTHORIZED_GROUPS=\"$GROUPS\"",
            "IAM_AUTHORIZED_GROUPS=`id`",
            "touch /tmp/x",
            "IAM_AUTHORIZED_GROUPS=\"a\"; touch /tmp/x",
            "if true; then",
            "IAM_AUTHORIZED_GROUPS=a b",
            "a=b",
        ] {
            let (values, notes) = parse(line);
            assert!(values.is_empty() && notes.len() == 1, "{line}: {values:?}");
        }
        let (values, notes) = parse("LOCAL_GROUPS=\"a\" # why\nexport LOCAL_GROUPS=b\nLOCAL_GROUPS=c # c");
        assert_eq!((values["LOCAL_GROUPS"].as_str(), notes.len()), ("c", 0));
    }
}
