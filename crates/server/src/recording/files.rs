//! Where recordings lie: `YYYY/MM/DD/<session>.mjr` below one directory, found by session id alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use munjigi_core::id::SessionId;
use munjigi_core::time::Timestamp;

use crate::directory::{Access, Directory};
use crate::lock;

const SUFFIX: &str = ".mjr";

/// The directory of all recordings.
#[derive(Debug)]
pub(crate) struct Files {
    root: Directory,
    /// The days that have a directory; a session is looked for in the newest first.
    days: Mutex<BTreeSet<Day>>,
}

/// A day as its three directory names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day {
    year: String,
    month: String,
    day: String,
}

impl Day {
    /// Returns the day of an instant, in UTC; `None` outside the years 0 to 9999.
    pub(super) fn of(instant: Timestamp) -> Option<Self> {
        Self::checked(&instant.format("%Y"), &instant.format("%m"), &instant.format("%d"))
    }

    fn checked(year: &str, month: &str, day: &str) -> Option<Self> {
        let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        (digits(year, 4) && digits(month, 2) && digits(day, 2)).then(|| Self {
            year: year.to_owned(),
            month: month.to_owned(),
            day: day.to_owned(),
        })
    }

    /// Returns where a session's recording lies, relative to the directory of all.
    pub(crate) fn path(&self, session: &SessionId) -> String {
        format!("{}/{}/{}/{}", self.year, self.month, self.day, name(session))
    }
}

impl Files {
    /// Opens the directory, making it if it is missing.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Self::scan(Directory::create_path(path)?)
    }

    /// Opens the directory as it is.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::scan(Directory::open_path(path)?)
    }

    fn scan(root: Directory) -> io::Result<Self> {
        let mut days = BTreeSet::new();
        for year in root.names()?.iter().filter(|name| name.len() == 4) {
            let Ok(months) = root.child(year) else { continue };
            for month in months.names()? {
                let Ok(days_of_month) = months.child(&month) else { continue };
                days.extend(days_of_month.names()?.iter().filter_map(|day| Day::checked(year, &month, day)));
            }
        }
        Ok(Self { root, days: Mutex::new(days) })
    }

    /// Makes the file of a session; content and entry are durable only after the returned directory is synced too.
    pub(super) fn create_file(&self, day: &Day, session: &SessionId) -> io::Result<(File, Directory)> {
        let directory = self.root.create_child(&day.year)?.create_child(&day.month)?.create_child(&day.day)?;
        lock(&self.days).insert(day.clone());
        Ok((directory.create_file(&name(session))?, directory))
    }

    /// Opens the file of a session on a day.
    pub(crate) fn open_file(&self, day: &Day, session: &SessionId, access: Access) -> io::Result<File> {
        self.directory(day)?.open_file(&name(session), access)
    }

    /// Removes the file of a session that never began.
    pub(super) fn remove(&self, day: &Day, session: &SessionId) -> io::Result<()> {
        self.directory(day)?.remove_file(&name(session))
    }

    /// Finds the file of a session; `None` if there is none.
    pub(super) fn find(&self, session: &SessionId, access: Access) -> io::Result<Option<(Day, File)>> {
        let days: Vec<Day> = lock(&self.days).iter().rev().cloned().collect();
        for day in days {
            match self.open_file(&day, session, access) {
                Ok(file) => return Ok(Some((day, file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the days that have a directory, oldest first.
    pub(crate) fn days(&self) -> Vec<Day> {
        lock(&self.days).iter().cloned().collect()
    }

    /// Returns the sessions that were recorded on a day, sorted by id.
    pub(crate) fn sessions(&self, day: &Day) -> io::Result<Vec<SessionId>> {
        let names = self.directory(day)?.names()?;
        Ok(names.iter().filter_map(|name| SessionId::parse(name.strip_suffix(SUFFIX)?).ok()).collect())
    }

    fn directory(&self, day: &Day) -> io::Result<Directory> {
        self.root.child(&day.year)?.child(&day.month)?.child(&day.day)
    }
}

fn name(session: &SessionId) -> String {
    format!("{session}{SUFFIX}")
}
