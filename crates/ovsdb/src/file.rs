//! The file a database is kept in: OVSDB's standalone format (ovsdb(5)), a log of records.
//!
//! Each record is a line `OVSDB JSON <length> <sha1>` and `<length>` bytes of JSON ending in a
//! newline. The first record is the schema, each other one the changes of a transaction. The file
//! only grows, until it is compacted: written anew and renamed into place.
//!
//! A record that the end of the file cuts off is what a crash during an append leaves. It was never
//! acknowledged as durable, so, as OVS does, it is left out with a warning and overwritten by the
//! next transaction. Any other damage is refused, and the file stays as it is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::db::{Change, Database};
use crate::record;
use crate::schema::DatabaseSchema;
use rustix::fs::{FlockOperation, fcntl_lock, flock};

/// The file must have grown by this much since it was last compacted to be compacted again: below
/// this, reading the log at start takes well under a second.
pub const COMPACT_MIN_GROWTH: u64 = 4 << 20;

/// And it must have this many times the size it had after the last compaction, so that the cost of
/// compactions stays a small part of that of the transactions.
pub const COMPACT_FACTOR: u64 = 2;

/// Mode of files created: the database may hold secrets.
const FILE_MODE: u32 = 0o640;

/// Why a database file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the database open.
    #[error(
        "{}: another process (a second switch or ovsdb-server) has this database open; stop it or \
         choose another file",
        path.display()
    )]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The contents are not what a database file has there. The file was not changed.
    #[error(
        "{}: line {line}, byte {byte} (record {record}): {what}; the file was left as it is: \
         restore it from a backup, or move it away to start with an empty database",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Number of the record, the schema being 0.
        record: usize,
        /// Line of the file, from 1.
        line: usize,
        /// Offset into the file, from 0.
        byte: usize,
        /// What is wrong there.
        what: String,
    },
    /// A database, but not the one wanted.
    #[error("{}: holds the database {found}, not {wanted}", path.display())]
    WrongDatabase {
        /// Which file.
        path: PathBuf,
        /// Name in the file's schema.
        found: String,
        /// Name expected.
        wanted: String,
    },
}

/// An open, locked database file.
#[derive(Debug)]
pub struct DbFile {
    path: PathBuf,
    file: File,
    /// Where the next record goes. Past it there may be a record that a crash cut off.
    end: u64,
    /// The file's size when it was last compacted, or opened.
    compacted: u64,
    /// Bytes may lie past `end` that must go before the next record is written.
    tail: bool,
    /// Held for its locks.
    lock: File,
}

impl DbFile {
    /// Opens and reads the database in `path`; creates it with `schema` if there is no such file.
    ///
    /// # Errors
    /// Any [`FileError`]; an existing file is not changed then.
    pub fn open(path: &Path, schema: &DatabaseSchema) -> Result<(Self, Database), FileError> {
        // The lock and the compacted file belong next to the file itself, not next to a link to it.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let failed = |action| {
            let path = path.clone();
            move |source| FileError::Io { path, action, source }
        };
        let lock = lock(&path)?;
        let exists = path.try_exists().map_err(failed("look for the file"))?;
        if !exists {
            write_anew(&path, &record::frame(&schema.to_json())).map_err(failed("create it"))?;
            tracing::info!("{}: created an empty database", path.display());
        }
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(failed("open it for reading and writing"))?;
        let bytes = std::fs::read(&path).map_err(failed("read it"))?;
        let log = record::read_log(&bytes).map_err(|corrupt| FileError::Corrupt {
            path: path.clone(),
            record: corrupt.record,
            line: corrupt.line,
            byte: corrupt.byte,
            what: corrupt.what,
        })?;
        let found = &log.db.schema().name;
        if *found != schema.name {
            let (found, wanted) = (found.clone(), schema.name.clone());
            return Err(FileError::WrongDatabase { path, found, wanted });
        }
        if log.end < bytes.len() {
            tracing::warn!(
                "{}: the last {} bytes are an incomplete record, as a crash leaves it; going on \
                 without it",
                path.display(),
                bytes.len() - log.end
            );
        }
        let (end, tail) = (log.end as u64, log.end < bytes.len());
        Ok((Self { path, file, end, compacted: end, tail, lock }, log.db))
    }

    /// The file's path, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of records in the file.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Appends the changes of a transaction, if any of them is to be kept. With `durable` they are
    /// on the disk when this returns.
    ///
    /// # Errors
    /// That of the operating system; the file then ends where it ended before.
    pub fn append(
        &mut self,
        schema: &DatabaseSchema,
        changes: &[Change],
        comment: Option<&str>,
        durable: bool,
    ) -> io::Result<()> {
        let Some(json) = record::transaction_json(schema, changes, comment) else {
            return if durable { self.file.sync_data() } else { Ok(()) };
        };
        let record = record::frame(&json);
        if std::mem::replace(&mut self.tail, true) {
            self.file.set_len(self.end)?;
        }
        let written = self.file.write_all_at(&record, self.end);
        let written = written.and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.end += record.len() as u64;
                self.tail = false;
            }
            // If this fails too, `tail` makes the next append try it again first.
            Err(_) => self.tail = self.file.set_len(self.end).is_err(),
        }
        written
    }

    /// True if the log has grown enough to be worth writing anew.
    pub fn wants_compaction(&self) -> bool {
        let grown = self.end.saturating_sub(self.compacted);
        grown >= COMPACT_MIN_GROWTH && self.end >= self.compacted.saturating_mul(COMPACT_FACTOR)
    }

    /// Writes the file anew with what is in `db`. A crash leaves either the old file or the new.
    ///
    /// # Errors
    /// That of the operating system; the old file stays in use then, and is not compacted before it
    /// has grown as much again.
    pub fn compact(&mut self, db: &Database) -> io::Result<()> {
        let old_size = std::mem::replace(&mut self.compacted, self.end);
        let mut bytes = record::frame(&db.schema().to_json());
        if let Some(rows) = record::snapshot_json(db) {
            bytes.extend(record::frame(&rows));
        }
        self.file = write_anew(&self.path, &bytes)?;
        self.end = bytes.len() as u64;
        self.compacted = self.end;
        self.tail = false;
        tracing::debug!("{}: compacted to {} bytes, was {old_size}", self.path.display(), self.end);
        Ok(())
    }
}

impl Drop for DbFile {
    /// Closing the file would do, but for a process that is just being forked and holds a copy of
    /// the descriptor until it runs another program.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Takes the lock that keeps two servers from writing one file. It is on a file of its own because
/// compaction replaces the database file; the name and the POSIX lock are those of ovsdb-server, the
/// `flock` is for a second server in this process, which POSIX locks do not exclude.
fn lock(path: &Path) -> Result<File, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock_path = path.with_file_name(format!(".{name}.~lock~"));
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&lock_path);
    let failed = |source| FileError::Io { path: lock_path.clone(), action: "lock it", source };
    let file = opened.map_err(failed)?;
    let operation = FlockOperation::NonBlockingLockExclusive;
    match flock(&file, operation).and_then(|()| fcntl_lock(&file, operation)) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(FileError::InUse { path: path.to_owned() })
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Puts a file with these contents in place of whatever is at `path`, in one step.
fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new_path = path.with_file_name(format!(".{name}.~new~"));
    let write = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = options.open(&new_path)?;
        if let Ok(old) = std::fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new_path, path)?;
        Ok(file)
    };
    let file = write().inspect_err(|_: &io::Error| {
        // Not left behind to fill a full disk further; nothing depends on this working.
        let _ = std::fs::remove_file(&new_path);
    })?;
    // The new name is in the directory, which is to survive a crash too. Where that fails the file
    // is in place all the same.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Err(error) = File::open(directory.unwrap_or(Path::new("."))).and_then(|d| d.sync_all()) {
        tracing::warn!("{}: cannot sync its directory: {error}", path.display());
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
