//! Certificates and keys in PEM files, and what is wrong with a file.

use std::io;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificates in a file, at least one.
///
/// # Errors
/// What is wrong with the file, as what follows its name in a sentence.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unread = |error| unread(error, "certificate in PEM");
    let read = CertificateDer::pem_file_iter(file).map_err(unread)?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    match found.is_empty() {
        true => Err("holds no certificate in PEM".into()),
        false => Ok(found),
    }
}

/// The private key in a file.
///
/// # Errors
/// What is wrong with the file, as what follows its name in a sentence.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unread(error, "private key in plain PEM"))
}

fn unread(error: pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => "does not exist".into(),
            io::ErrorKind::PermissionDenied => "may not be read by the user that keyrelay runs as".into(),
            _ => format!("cannot be read: {error}"),
        },
        pem::Error::NoItemsFound => format!("holds no {wanted}"),
        error => format!("is not PEM: {error}"),
    }
}
