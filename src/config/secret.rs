//! Secrets, which lie in files of their own: one line, that others can neither read nor change.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// What nobody but its owner may do with it; its group may read, for what is handed to a service that way.
const MODE_FORBIDDEN: u32 = 0o027;
/// Octets of such a file.
const SECRET_MAX: u64 = 64 << 10;

/// The secret in a file, without the end of its line. It is read anew each time that it is wanted, so that the latest holds.
///
/// # Errors
/// When it cannot be read, others may read or change it, it is empty, or longer than a secret is.
pub fn secret_line(file: &Path) -> io::Result<String> {
    let opened = OpenOptions::new().read(true).open(file)?;
    // Of the file that is read, and not of one that has taken its place.
    let mode = opened.metadata()?.permissions().mode() & 0o777;
    if mode & MODE_FORBIDDEN != 0 {
        let why = format!("it has mode {mode:03o}: others may read or change it; `chmod 600` it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut text = String::new();
    opened.take(SECRET_MAX + 1).read_to_string(&mut text)?;
    let invalid = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if text.len() as u64 > SECRET_MAX {
        return invalid("it is too long for a secret");
    }
    let length =
        text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
    text.truncate(length);
    if text.is_empty() { invalid("it is empty") } else { Ok(text) }
}

#[cfg(test)]
mod test {
    use std::{fs, io::ErrorKind};

    use super::*;

    #[test]
    fn secrets_are_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let with = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            secret_line(&file).map_err(|error| error.kind())
        };
        assert_eq!(with("abc\r\n", 0o600).as_deref(), Ok("abc"));
        assert_eq!(with(" a b ", 0o640).as_deref(), Ok(" a b "));
        assert_eq!(with("a\n\n", 0o400).as_deref(), Ok("a\n"), "which whoever uses it finds no secret");
        for mode in [0o644, 0o660, 0o601] {
            assert_eq!(with("abc", mode), Err(ErrorKind::PermissionDenied), "{mode:o}");
        }
        let long = "x".repeat(64 << 10);
        assert_eq!(with(&long, 0o600).as_deref(), Ok(&*long));
        // Not a part of one: whoever has cut it would never learn why it is wrong.
        for bad in ["", "\n", "\r\n", &(long + "x")] {
            assert_eq!(with(bad, 0o600), Err(ErrorKind::InvalidData), "{}", bad.len());
        }
    }
}
