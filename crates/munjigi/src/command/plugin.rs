//! `munjigi plugin`: makes this program the `session-manager-plugin` that `aws ssm start-session` runs.
//!
//! Only the link's place is handled here; what the program does under that name is in `plugin`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Finish, note, print, print_json};
use crate::cli::{Format, Output};
use crate::client::context::Surroundings;
use crate::client::text::{escaped, shell_quoted};
use crate::plugin::{NAME, VERSION};

/// Where programs of a single user are, below the home directory.
const USUAL_DIR: &str = ".local/bin";

/// Be the session-manager-plugin of the AWS command line
#[derive(Debug, Args)]
#[command(
    after_help = "Example: munjigi plugin install; eval \"$(munjigi env)\"; aws ssm start-session --target web-1\n\n\
    Under the name session-manager-plugin this program serves AWS's service as the original does, and a server of ours\n\
    over its link: with the program's exit status, and through broken connections. MUNJIGI_PLUGIN_MODE=aws keeps to\n\
    AWS's protocol, MUNJIGI_PLUGIN_MODE=link to the link; without it the plugin finds out by itself."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Put a link named session-manager-plugin to this program into a directory
    #[command(after_help = "Example: munjigi plugin install --dir /usr/local/bin")]
    Install {
        #[command(flatten)]
        place: Place,
    },
    /// Show which session-manager-plugin the AWS command line finds
    #[command(after_help = "Example: munjigi plugin status; the exit status is 0 only if it is this program")]
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Remove the link, and nothing else
    #[command(after_help = "Example: munjigi plugin remove")]
    Remove {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Directory of the link [default: ~/.local/bin]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let around = Surroundings::of_process();
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    match arguments.command {
        PluginCommand::Install { place } => install(&place.link(&around)?, &own, &around),
        PluginCommand::Status { output } => status(output.output, &own, &around),
        PluginCommand::Remove { place } => remove(&place.link(&around)?, &own),
    }
}

impl Place {
    fn link(self, around: &Surroundings) -> anyhow::Result<PathBuf> {
        let dir = match self.dir {
            Some(dir) => std::path::absolute(dir).context("cannot tell the working directory")?,
            None => {
                Path::new(around.variable("HOME").context("HOME is not set: say where with --dir DIR")?).join(USUAL_DIR)
            }
        };
        Ok(dir.join(NAME))
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Nothing,
    /// A link to this program, or to one of its name that was there once.
    Ours,
    Foreign,
}

fn standing(link: &Path, own: &Path) -> anyhow::Result<Standing> {
    let target = match fs::read_link(link) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        // Not a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Standing::Foreign),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", link.display())),
    };
    let same_file = matches!((fs::canonicalize(link), fs::canonicalize(own)), (Ok(a), Ok(b)) if a == b);
    let same_name = target.file_name() == Some(OsStr::new("munjigi"));
    Ok(if same_file || same_name { Standing::Ours } else { Standing::Foreign })
}

fn install(link: &Path, own: &Path, around: &Surroundings) -> anyhow::Result<Finish> {
    let dir = link.parent().context("the link has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if standing(link, own)? == Standing::Foreign {
        bail!(
            "{} is there already and is not ours: remove it yourself if you want this program in its place, or choose \
             another directory with --dir that comes before it in PATH",
            link.display()
        );
    }
    // Made beside and moved over: at no moment is there no plugin.
    let fresh = dir.join(format!(".{NAME}.{}", std::process::id()));
    symlink(own, &fresh)
        .and_then(|()| {
            fs::rename(&fresh, link).inspect_err(|_| {
                // What is left of it is of no use; the first error is the one to tell.
                let _ = fs::remove_file(&fresh);
            })
        })
        .with_context(|| format!("cannot put a link into {}", dir.display()))?;
    print(&format!("{} -> {}\n", escaped(&link.to_string_lossy()), escaped(&own.to_string_lossy())))?;
    match found_in_path(around) {
        Some(found) if found == link => {}
        Some(other) => note(&format!(
            "munjigi: {} comes first in PATH and is used instead; put {} before {} in PATH",
            other.display(),
            dir.display(),
            other.parent().unwrap_or(&other).display()
        )),
        None => note(&format!(
            "munjigi: {} is not in PATH, so `aws` does not find it yet: export PATH={}:\"$PATH\" (and put that line into \
             ~/.profile)",
            dir.display(),
            shell_quoted(&dir.to_string_lossy())
        )),
    }
    Ok(Finish::Done)
}

/// What `munjigi plugin status` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// The first session-manager-plugin of PATH.
    path: Option<PathBuf>,
    /// Whether it is this program.
    ours: bool,
    /// The version that this program gives under that name.
    version: &'static str,
}

fn status(format: Format, own: &Path, around: &Surroundings) -> anyhow::Result<Finish> {
    let path = found_in_path(around);
    let ours = match &path {
        Some(path) => standing(path, own)? == Standing::Ours && path.exists(),
        None => false,
    };
    let status = Status { path, ours, version: VERSION };
    match (format, &status.path) {
        (Format::Json, _) => print_json(&status)?,
        (Format::Table, Some(path)) if ours => {
            print(&format!("{} is this program, as version {VERSION}\n", escaped(&path.to_string_lossy())))?;
        }
        (Format::Table, Some(path)) => {
            print(&format!(
                "{} is another program; `munjigi plugin install --dir DIR` with a directory before it in PATH \
                puts ours first\n",
                escaped(&path.to_string_lossy())
            ))?;
        }
        (Format::Table, None) => print("no session-manager-plugin in PATH; `munjigi plugin install` makes one\n")?,
    }
    Ok(if ours { Finish::Done } else { Finish::Problems })
}

fn remove(link: &Path, own: &Path) -> anyhow::Result<Finish> {
    match standing(link, own)? {
        Standing::Nothing => note(&format!("munjigi: {} is not there", link.display())),
        Standing::Foreign => bail!("{} is not ours: it stays where it is", link.display()),
        Standing::Ours => fs::remove_file(link).with_context(|| format!("cannot remove {}", link.display()))?,
    }
    Ok(Finish::Done)
}

/// Returns the plugin that a program finds: the first of that name in PATH that may be run.
fn found_in_path(around: &Surroundings) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    std::env::split_paths(around.variable("PATH")?).map(|dir| dir.join(NAME)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(path: &Path) -> Surroundings {
        let variables = [("PATH".to_owned(), format!("/nowhere:{}", path.display()))];
        Surroundings { variables: variables.into_iter().collect() }
    }

    /// A directory with a program of ours, and the link's place in another.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("built-as-something");
        fs::write(&own, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let link = root.path().join("bin").join(NAME);
        (root, own, link)
    }

    #[test]
    fn installing_twice_and_removing_leaves_nothing() {
        let (_root, own, link) = place();
        let around = around(link.parent().unwrap());
        for _ in 0..2 {
            install(&link, &own, &around).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), own);
            assert_eq!(found_in_path(&around), Some(link.clone()));
        }
        assert!(matches!(status(Format::Table, &own, &around), Ok(Finish::Done)));
        assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
        remove(&link, &own).unwrap();
        assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 0);
        remove(&link, &own).unwrap();
        assert!(matches!(status(Format::Table, &own, &around), Ok(Finish::Problems)));
    }

    #[test]
    fn a_foreign_plugin_is_neither_replaced_nor_removed() {
        let (root, own, link) = place();
        let other = root.path().join("other-program");
        fs::write(&other, "").unwrap();
        fs::create_dir(link.parent().unwrap()).unwrap();
        let around = around(link.parent().unwrap());
        for make in [&(|| fs::write(&link, "x")) as &dyn Fn() -> io::Result<()>, &|| symlink(&other, &link)] {
            make().unwrap();
            let said = install(&link, &own, &around).unwrap_err().to_string();
            assert!(said.contains("is not ours"), "{said}");
            assert!(remove(&link, &own).unwrap_err().to_string().contains("is not ours"));
            assert!(fs::symlink_metadata(&link).is_ok());
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_link_to_a_program_of_ours_that_has_moved_is_replaced() {
        let (_root, own, link) = place();
        fs::create_dir(link.parent().unwrap()).unwrap();
        symlink("/gone/munjigi", &link).unwrap();
        install(&link, &own, &around(link.parent().unwrap())).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), own);
    }
}
