//! A file of keys or of a token: short, and a file.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

/// Longest, in bytes.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// Its text. Blocks, but not for ever, as a pipe might.
///
/// # Errors
/// It cannot be read, is no file, or too long.
pub(super) fn text(path: &Path) -> Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > BYTES_MAX {
        true => Err(Error::new(ErrorKind::InvalidData, format!("it is longer than {BYTES_MAX} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_short_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let refused = |path: &Path| text(path).expect_err("refused").to_string();
        std::fs::write(&path, "x".repeat(1 << 20)).expect("written");
        assert_eq!(text(&path).expect("read").len(), 1 << 20);
        std::fs::write(&path, "x".repeat((1 << 20) + 1)).expect("written");
        assert!(refused(&path).contains("longer than 1048576 bytes"));
        assert_eq!(refused(Path::new("/dev/zero")), "it is no file");
        assert_eq!(refused(dir.path()), "it is no file");
        std::fs::write(&path, [0xff]).expect("written");
        assert!(refused(&path).contains("UTF-8"));
        assert!(refused(Path::new("/nowhere/file")).contains("No such file"));
    }
}
