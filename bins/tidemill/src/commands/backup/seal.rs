//! Encryption around a backup, in the format of `age`: whoever has that program can open one without Tidemill.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, Recipient, x25519};

use super::files::{self, Draft};
use crate::error::{Error, Outcome};

/// What an encrypted file begins with.
const MARK: &[u8] = b"age-encryption.org/";

/// For whom a backup is encrypted
#[derive(Debug, clap::Args)]
pub(super) struct SealArguments {
    /// Encrypt for this public key (`age1…`); may be repeated
    #[arg(long, value_name = "KEY")]
    recipient: Vec<String>,
    /// Encrypt for the public keys in this file, one a line
    #[arg(long, value_name = "FILE")]
    recipients_file: Option<PathBuf>,
    /// Encrypt with the passphrase in this file (its first line)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "recipients_file"])]
    passphrase_file: Option<PathBuf>,
}

/// How an encrypted backup is opened
#[derive(Debug, clap::Args)]
pub(super) struct OpenArguments {
    /// The file with the private key of an encrypted backup
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// The file with the passphrase of an encrypted backup (its first line)
    #[arg(long, value_name = "FILE", conflicts_with = "identity_file")]
    passphrase_file: Option<PathBuf>,
}

fn text_of(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| files::at(path, "read", &error))
}

fn passphrase_of(path: &Path) -> Outcome<SecretString> {
    let text = text_of(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Error::usage(format!("{} has no passphrase in its first line", path.display())));
    }
    Ok(SecretString::from(line.to_owned()))
}

impl SealArguments {
    /// Whether anything is to be encrypted, and for whom.
    pub(super) fn encryptor(&self) -> Outcome<Option<Encryptor>> {
        if let Some(path) = &self.passphrase_file {
            return passphrase_of(path).map(Encryptor::with_user_passphrase).map(Some);
        }
        let mut keys = self.recipient.clone();
        if let Some(path) = &self.recipients_file {
            let text = text_of(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            keys.extend(lines.map(ToOwned::to_owned));
            if keys.is_empty() {
                return Err(Error::usage(format!("{} names no public key", path.display())));
            }
        }
        let mut recipients = Vec::with_capacity(keys.len());
        for key in &keys {
            let recipient: x25519::Recipient = key
                .parse()
                .map_err(|error| Error::usage(format!("{key:?} is no public key of age (age1…): {error}")))?;
            recipients.push(recipient);
        }
        if recipients.is_empty() {
            return Ok(None);
        }
        Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn Recipient))
            .map(Some)
            .map_err(|error| Error::usage(format!("cannot encrypt for these keys: {error}")))
    }
}

/// What a backup is written to.
pub(super) enum Sink {
    Plain(Draft),
    Sealed(Box<age::stream::StreamWriter<Draft>>),
}

impl Sink {
    pub(super) fn new(draft: Draft, encryptor: Option<Encryptor>) -> Outcome<Self> {
        match encryptor {
            None => Ok(Self::Plain(draft)),
            Some(encryptor) => encryptor
                .wrap_output(draft)
                .map(|sealed| Self::Sealed(Box::new(sealed)))
                .map_err(|error| Error::failed("io", format!("cannot encrypt: {error}"))),
        }
    }

    /// Ends the encryption; gives back the file.
    pub(super) fn finish(self) -> Outcome<Draft> {
        match self {
            Self::Plain(draft) => Ok(draft),
            Self::Sealed(sealed) => {
                sealed.finish().map_err(|error| Error::failed("io", format!("cannot encrypt: {error}")))
            }
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(draft) => draft.write(bytes),
            Self::Sealed(sealed) => sealed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(draft) => draft.flush(),
            Self::Sealed(sealed) => sealed.flush(),
        }
    }
}

/// Whether a file is encrypted.
pub(super) fn is_sealed(path: &Path) -> Outcome<bool> {
    let mut head = Vec::new();
    let mut file = File::open(path).map_err(|error| files::at(path, "read", &error))?;
    let most = MARK.len() as u64;
    (&mut file).take(most).read_to_end(&mut head).map_err(|error| files::at(path, "read", &error))?;
    Ok(head == MARK)
}

impl OpenArguments {
    /// Whether an encrypted backup can be opened.
    pub(super) const fn is_given(&self) -> bool {
        self.identity_file.is_some() || self.passphrase_file.is_some()
    }

    /// Opens a backup, encrypted or not.
    pub(super) fn open(&self, path: &Path) -> Outcome<Box<dyn Read>> {
        let sealed = is_sealed(path)?;
        let file = File::open(path).map_err(|error| files::at(path, "read", &error))?;
        if !sealed {
            return Ok(Box::new(file));
        }
        let shown = path.display();
        let identities: Vec<Box<dyn age::Identity>> = if let Some(path) = &self.passphrase_file {
            vec![Box::new(age::scrypt::Identity::new(passphrase_of(path)?))]
        } else if let Some(path) = &self.identity_file {
            let text = text_of(path)?;
            let bad =
                |why: String| Error::usage(format!("{} is no file of private keys: {why}", path.display()));
            let read = IdentityFile::from_buffer(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
            read.into_identities().map_err(|error| bad(error.to_string()))?
        } else {
            return Err(Error::usage(format!(
                "{shown} is encrypted: give its --identity-file or --passphrase-file"
            )));
        };
        let decryptor =
            Decryptor::new_buffered(BufReader::new(file)).map_err(|error| refused(path, &error))?;
        let open = decryptor.decrypt(identities.iter().map(|one| &**one));
        open.map(|open| Box::new(open) as Box<dyn Read>).map_err(|error| refused(path, &error))
    }
}

fn refused(path: &Path, error: &DecryptError) -> Error {
    let shown = path.display();
    match error {
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            Error::failed(
                "wrong_key",
                format!("{shown} cannot be opened: it was encrypted with another key or passphrase"),
            )
        }
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            files::at(path, "read", error)
        }
        error => Error::failed(
            "damaged_backup",
            format!("{shown} cannot be opened: its head is damaged ({error})"),
        ),
    }
}
