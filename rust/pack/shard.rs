//! One shard file of a pack: its bytes, in memory or read as needed, and whether it is still the same file.
//!
//! Not memory-mapped: reading a mapped file after another process has truncated it raises SIGBUS, and checking its
//! length first leaves a race. A copy in memory cannot change, and reading from a truncated file is an error.
//!
//! Nothing is handed out whose SHA-256 was not compared with that of pack.json: a copy in memory is compared when it is
//! made, a shard that is read as needed when it is first read from, as a whole.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use safetensors::tensor::Metadata as Header;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The largest safetensors header accepted; ours have a few hundred bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Bytes read at once to compute a checksum.
const CHUNK: usize = 1 << 20;
/// A file of more bytes than this must not be mostly holes, which cost nothing to make and fill the memory when read.
const MAX_SPARSE_BYTES: u64 = 64 << 20;

#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    File(File),
}

/// Identifies a file, to notice when another takes its place or when it is written to. The modification time alone is too
/// coarse on some file systems, and can be set back (cp -p, rsync -t); the time of the last change of status cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64),
    #[cfg(unix)]
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (metadata.dev(), metadata.ino()),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// An open shard.
#[derive(Debug)]
pub(super) struct ShardFile {
    path: PathBuf,
    length: u64,
    sha256: String,
    content: Content,
    /// Behind a lock because it is updated when a copy of the same content takes the file's place.
    identity: Mutex<Identity>,
    /// What came of comparing the checksum of a shard that is read as needed: nothing, or the complaint.
    compared: OnceLock<Option<String>>,
    /// Whether opening is over, from where on nothing is read that was not compared.
    open: bool,
}

impl ShardFile {
    /// Opens a shard and reads its header; then the rest, if the header describes the whole file.
    ///
    /// `path` is used in errors and for later checks, `real` is the path it resolves to. With `memory` the content is
    /// copied to memory. Returns the header too, and the offset of the data after it.
    pub(super) fn open(
        path: &Path,
        real: &Path,
        length: u64,
        sha256: &str,
        memory: bool,
    ) -> Result<(Self, Header, usize)> {
        let unreadable = |error: std::io::Error| Error::data(path, format!("cannot be opened: {error}"));
        let file = File::open(real).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.len() != length {
            let message = format!("must have {length} bytes as pack.json says, got {}", metadata.len());
            return Err(Error::data(path, message));
        }
        refuse_holes(&file, &metadata, path)?;
        let (header, data_at) = read_header(&file, path, length)?;
        let content = if memory { Content::Memory(read_all(&file, path, length)?) } else { Content::File(file) };
        let (path, sha256) = (path.to_path_buf(), sha256.to_ascii_lowercase());
        let identity = Mutex::new(Identity::of(&metadata));
        let shard = Self { path, length, sha256, content, identity, compared: OnceLock::new(), open: false };
        Ok((shard, header, data_at))
    }

    /// Ends the opening. A copy in memory is compared with its checksum; with `verify`, so is a shard that stays in its file.
    pub(super) fn finish(&mut self, verify: bool) -> Result<()> {
        self.open = true;
        if verify || matches!(self.content, Content::Memory(_)) { self.compare() } else { Ok(()) }
    }

    /// Whether the shard is read from its file as needed.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Compares the checksum of the content with that of pack.json, once.
    fn compare(&self) -> Result<()> {
        let complaint = self.compared.get_or_init(|| {
            let found = match &self.content {
                Content::Memory(bytes) => hex(&Sha256::digest(bytes)),
                Content::File(file) => match self.checksum(file) {
                    Ok(found) => found,
                    Err(error) => return Some(format!("cannot be compared with its checksum: {error}")),
                },
            };
            (found != self.sha256).then(|| format!("sha256 must be {}, got {found}", self.sha256))
        });
        complaint.as_ref().map_or(Ok(()), |complaint| Err(Error::data(&self.path, complaint.clone())))
    }

    /// The error of a shard whose content is not what it was when it was opened.
    pub(super) fn changed(&self, what: &dyn std::fmt::Display) -> Error {
        Error::data(&self.path, format!("changed while in use: {what}"))
    }

    /// The bytes of a range, which must be inside the shard.
    pub(super) fn bytes(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match &self.content {
            Content::Memory(bytes) => Ok(Cow::Borrowed(&bytes[range])),
            Content::File(file) => {
                if self.open {
                    self.compare()?;
                }
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(range.len()).map_err(|error| Error::data(&self.path, error.to_string()))?;
                bytes.resize(range.len(), 0);
                read_at(file, &mut bytes, range.start as u64).map_err(|error| self.changed(&error))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Refuses a shard that is no longer the file that was opened: truncated, replaced, deleted or made unreadable. A copy
    /// of the same content in its place is accepted.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let changed = |what: String| self.changed(&what);
        let metadata = std::fs::metadata(&self.path).map_err(|error| changed(error.to_string()))?;
        if metadata.len() != self.length {
            return Err(changed(format!("it had {} bytes, now {}", self.length, metadata.len())));
        }
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::mode(&metadata) & 0o444 == 0 {
            return Err(changed("it can no longer be read: nobody has the permission".to_owned()));
        }
        let now = Identity::of(&metadata);
        let mut known = self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now != *known {
            let file = File::open(&self.path).map_err(|error| changed(error.to_string()))?;
            let found = self.checksum(&file)?;
            if found != self.sha256 {
                return Err(changed(format!("its sha256 was {}, now {found}", self.sha256)));
            }
            *known = now;
        }
        Ok(())
    }

    fn checksum(&self, mut file: &File) -> Result<String> {
        let failed = |error: std::io::Error| Error::data(&self.path, format!("cannot be read: {error}"));
        let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        loop {
            match file.read(&mut chunk).map_err(failed)? {
                0 => return Ok(hex(&digest.finalize())),
                count => digest.update(&chunk[..count]),
            }
        }
    }
}

/// Refuses a large file that is mostly holes.
#[cfg(unix)]
fn refuse_holes(file: &File, metadata: &Metadata, path: &Path) -> Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use std::os::unix::fs::MetadataExt;
    let (length, held) = (metadata.len(), metadata.blocks().saturating_mul(512));
    // A file system that compresses holds less than the length, too, but tells of no holes.
    if length > MAX_SPARSE_BYTES && held < length / 4 && seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < length) {
        return Err(Error::data(
            path,
            format!("has {length} bytes, of which only {held} are there: it is mostly holes"),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on other systems")]
fn refuse_holes(_: &File, _: &Metadata, _: &Path) -> Result<()> {
    Ok(())
}

fn read_header(mut file: &File, path: &Path, length: u64) -> Result<(Header, usize)> {
    let failed = |error: std::io::Error| Error::data(path, format!("cannot be read: {error}"));
    if length < 8 {
        return Err(Error::data(path, format!("is not a safetensors file: it has {length} bytes")));
    }
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(failed)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER_BYTES {
        return Err(Error::data(
            path,
            format!("safetensors header must be at most {MAX_HEADER_BYTES} bytes, got {size}"),
        ));
    }
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text).map_err(failed)?;
    let header: Header = serde_json::from_slice(&text)
        .map_err(|error| Error::data(path, format!("is not a valid safetensors file: {error}")))?;
    // Deserializing has checked that there are no gaps between tensors.
    let end = (header.data_len() as u64).saturating_add(8 + size);
    if text.len() as u64 != size || end != length {
        return Err(Error::data(
            path,
            format!("is not a valid safetensors file: its tensors end at {end} of {length}"),
        ));
    }
    Ok((header, 8 + text.len()))
}

fn read_all(mut file: &File, path: &Path, length: u64) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| Error::data(path, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    file.take(length).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 != length {
        let message = format!("changed while it was opened: {length} bytes, then {}", bytes.len());
        return Err(Error::data(path, message));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                let rest = bytes;
                (bytes, offset) = (&mut rest[count..], offset + count as u64);
            }
        }
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
