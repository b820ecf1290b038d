//! TLS at the public listeners: what clients are shown, what they must show, and files that are replaced meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio::sync::watch;

use crate::pem_files;

/// How often the files are looked at: what renews certificates does so days before they expire, and a look costs three
/// calls of the system.
const LOOK: Duration = Duration::from_secs(2);

/// What is spoken over TLS, in our order (RFC 7301 §6).
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

/// The name that is agreed on for HTTP/2.
pub const HTTP_2: &[u8] = b"h2";

/// How the listeners at TCP addresses speak TLS. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate that clients are shown, and those between it and one that they know.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The certificates that clients may or must show; None: they are not asked.
    pub clients: Option<Clients>,
}

/// Which clients are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Those who may vouch for a client.
    pub ca_file: PathBuf,
    /// Whether a client without a certificate is turned away. One with a certificate that nobody vouches for always is.
    pub required: bool,
}

/// A file of [`Tls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Our certificate.
    Certificate,
    /// Our key.
    Key,
    /// Those who may vouch for clients.
    Authorities,
}

/// A file is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", .file.display())]
pub struct TlsError {
    /// What it is for.
    pub part: Part,
    /// Where it is.
    pub file: PathBuf,
    /// Why, as what follows the name of the file in a sentence.
    pub why: String,
}

/// The files as they were last found to be of use, shared by all threads.
#[derive(Debug)]
pub struct Keeper {
    files: Tls,
    /// The state of the files before they were loaded first: a change since then counts as one.
    first: Fingerprint,
    /// What connections that begin now are served with; replaced as a whole.
    current: Mutex<Arc<ServerConfig>>,
}

/// What tells one state of the files from another: for each its device and inode, and when it last changed, be it in what
/// it holds or in who may read it. A link is followed, so one that is turned to another file is seen.
type Fingerprint = Vec<Option<(u64, u64, i64, i64)>>;

impl Tls {
    /// Reads the files; also what is to be said of a certificate that clients will not accept at this time.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(&self, now: SystemTime) -> Result<(Arc<ServerConfig>, Option<String>), TlsError> {
        let wrong = |part, file: &Path, why: String| TlsError {
            part,
            file: file.to_owned(),
            why,
        };
        let (certificate, key) = (&self.certificate_file, &self.key_file);
        let chain = pem_files::certificates(certificate).map_err(|why| wrong(Part::Certificate, certificate, why))?;
        let secret = pem_files::key(key).map_err(|why| wrong(Part::Key, key, why))?;
        let untimely = untimely(&chain[0], now).map(|what| format!("{} {what}", certificate.display()));

        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(Clients { ca_file, required }) => {
                let wrong = |why: String| wrong(Part::Authorities, ca_file, why);
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(pem_files::certificates(ca_file).map_err(wrong)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = match required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(verifier.map_err(|_| wrong("holds no valid certificate".into()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, secret).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let why = format!("is not the key of the certificate in {}", certificate.display());
                wrong(Part::Key, key, why)
            }
            Error::InvalidCertificate(_) => wrong(Part::Certificate, certificate, "holds no valid certificate".into()),
            error => wrong(Part::Key, key, format!("is of no use: {error}")),
        })?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // Those who come back after a restart of their network are spared most of a handshake. Without randomness, which an
        // early boot may lack, they are not.
        if let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok((config.into(), untimely))
    }

    fn fingerprint(&self) -> Fingerprint {
        let clients = self.clients.as_ref().map(|clients| &clients.ca_file);
        let files = [&self.certificate_file, &self.key_file].into_iter().chain(clients);
        let of = |file: &PathBuf| {
            let file = fs::metadata(file).ok()?;
            Some((file.dev(), file.ino(), file.ctime(), file.ctime_nsec()))
        };
        files.map(of).collect()
    }
}

impl Keeper {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn new(files: Tls) -> Result<Keeper, TlsError> {
        let first = files.fingerprint();
        let config = load(&files)?;
        Ok(Keeper {
            files,
            first,
            current: Mutex::new(config),
        })
    }

    /// What a connection that begins now is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the files again whenever they have changed, and when told to. Files of no use change nothing. Never returns.
    pub async fn keep(&self, mut told: watch::Receiver<()>) {
        let mut loaded = self.first.clone();
        let mut before = loaded.clone();
        let mut failed = false;
        loop {
            let is_told = tokio::select! {
                Ok(()) = told.changed() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = self.files.fingerprint();
            // The files are mostly replaced one after the other: they are loaded once they rest.
            let rests = std::mem::replace(&mut before, now.clone()) == now;
            let is_new = is_told || now != loaded;
            // What failed may have failed for want of a descriptor: it is tried again, and told of once.
            if is_told || (rests && (is_new || failed)) {
                loaded = now;
                failed = !self.reload(is_new);
            }
        }
    }

    /// Whether the files are of use; if not, that is told of if it is `is_new`.
    fn reload(&self, is_new: bool) -> bool {
        match load(&self.files) {
            Ok(config) => {
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(file = %self.files.certificate_file.display(), "certificate loaded again");
                return true;
            }
            Err(error) if is_new => tracing::error!(
                %error,
                "certificate not loaded again: connections go on with the one before; put the files right, they are looked at \
                 every few seconds"
            ),
            Err(_) => {}
        }
        false
    }
}

fn load(files: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let (config, untimely) = files.load(SystemTime::now())?;
    if let Some(what) = untimely {
        tracing::warn!(
            what,
            "clients will not accept the certificate: renew it, or set this machine's clock right"
        );
    }
    Ok(config)
}

/// Whether a certificate has expired or is not valid yet.
fn untimely(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let seconds = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    // Nobody is trusted, so that it always fails; but of what is wrong with it the time is named first.
    let verified = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &RootCertStore::empty(),
        &[],
        time,
        ring::default_provider().signature_verification_algorithms.all,
    );
    let date = |time: UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(format!("has expired ({})", date(not_after)))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Some(format!("is not valid yet (but from {} on)", date(not_before)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
