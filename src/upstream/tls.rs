//! TLS to a server: who may vouch for it, how we show who we are, and what its refusals mean.
//!
//! The files are read anew at each connect, so that certificates can be replaced while keyrelay runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::pem_files;

/// How a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificates of those who may vouch for the server; None: whomever the system trusts.
    pub ca_file: Option<PathBuf>,
    /// What we show the server when it asks who we are.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must be for; None: the host that is connected to.
    pub server_name: Option<String>,
}

/// A client certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and one that the server knows.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Why there cannot be any TLS connection: a file, or the system's trust store, is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", self.subject())]
pub struct TlsError {
    /// What is of no use.
    pub part: Part,
    /// The file it is about; None for the system's trust store.
    pub file: Option<PathBuf>,
    /// Why, as what follows the name of the file in a sentence.
    pub why: String,
}

/// A part of [`Tls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those who may vouch for the server.
    Authorities,
    /// Our certificate.
    Certificate,
    /// Our key.
    Key,
    /// The name of the server.
    Name,
}

impl TlsError {
    fn new(part: Part, file: Option<&Path>, why: impl Into<String>) -> TlsError {
        TlsError {
            part,
            file: file.map(Path::to_path_buf),
            why: why.into(),
        }
    }

    fn subject(&self) -> String {
        match (&self.file, self.part) {
            (Some(file), _) => file.display().to_string(),
            (None, Part::Name) => "the name of the server".into(),
            (None, _) => "the system's trust store".into(),
        }
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need")
            .with_root_certificates(self.authorities()?);
        let Some(Identity {
            certificate_file,
            key_file,
        }) = &self.identity
        else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = certificates(Part::Certificate, certificate_file)?;
        let key = pem_files::key(key_file).map_err(|why| TlsError::new(Part::Key, Some(key_file), why))?;
        let config = builder.with_client_auth_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let why = format!("is not the key of the certificate in {}", certificate_file.display());
                TlsError::new(Part::Key, Some(key_file), why)
            }
            Error::InvalidCertificate(_) => {
                TlsError::new(Part::Certificate, Some(certificate_file), "holds no valid certificate")
            }
            error => TlsError::new(Part::Key, Some(key_file), format!("is of no use: {error}")),
        })?;
        Ok(Arc::new(config))
    }

    /// The name that the certificate of a server at `host` must be for.
    ///
    /// # Errors
    /// If it is neither a name nor an IP address.
    pub fn name<'a>(&'a self, host: &'a str) -> Result<ServerName<'a>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name).map_err(|_| TlsError::new(Part::Name, None, "is neither a name nor an IP address"))
    }

    /// Begins to speak TLS on a connection to `host`.
    pub(super) async fn connect(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
        let config = self.load().map_err(|error| error.to_string())?;
        let name = self.name(host).map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(config).connect(name.to_owned(), stream).await;
        connected.map_err(|error| match meaning(&error) {
            Some(meaning) => meaning,
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("the server closed the connection while TLS began; {PLAIN_PORT}")
            }
            None => error.to_string(),
        })
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        let file = self.ca_file.as_deref();
        let found = match file {
            Some(file) => certificates(Part::Authorities, file)?,
            // The system's, not a list of our own: there an operator adds a company's authority, and takes one away.
            None => rustls_native_certs::load_native_certs().certs,
        };
        match store.add_parsable_certificates(found) {
            (0, _) if file.is_none() => Err(TlsError::new(
                Part::Authorities,
                None,
                "is empty: install the package ca-certificates, or set ca_file",
            )),
            (0, _) => Err(TlsError::new(Part::Authorities, file, "holds no valid certificate")),
            _ => Ok(store),
        }
    }
}

/// What is likely when the other side does not speak TLS.
const PLAIN_PORT: &str = "if this is not its TLS port, write the URL with redis:// in place of rediss://";

/// What is likely when the other side speaks nothing but TLS.
pub(super) const TLS_PORT: &str = "write the URL with rediss:// in place of redis://";

/// What it means when a server says nothing while TLS begins.
pub(super) fn unanswered(time: Duration) -> String {
    format!("the server did not begin to speak TLS within {time:?}; {PLAIN_PORT}")
}

fn certificates(part: Part, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem_files::certificates(file).map_err(|why| TlsError::new(part, Some(file), why))
}

/// What an error of a TLS connection means and what to do; None if it is not one of TLS.
pub(super) fn meaning(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => refusal(*alert),
        Error::InvalidMessage(_) => format!("the server's answer is not TLS: {PLAIN_PORT}"),
        Error::PeerIncompatible(why) => format!("the server cannot do TLS 1.2 or 1.3 as it is safe: {why:?}"),
        error => error.to_string(),
    })
}

/// Why the server's certificate is refused.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is not from an authority that is trusted: set ca_file under [upstream] tls to the \
             certificate of the authority that signed it"
                .into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it there, or set this machine's clock right".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: set this machine's clock right, or wait".into()
        }
        CertificateError::NotValidForName => "the server's certificate is for another name: connect by a name that \
             stands in it, or set server_name under [upstream] tls to one"
            .into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = match presented.is_empty() {
                true => "no name at all (it has no subjectAltName)".into(),
                false => presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            };
            format!(
                "the server's certificate is for {presented}, and not for {}: connect by a name that stands in it, or \
                 set server_name under [upstream] tls to one",
                expected.to_str()
            )
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is itself that of an authority (CA:TRUE): have the server show one that the \
             authority signed"
                .into()
        }
        error => format!("the server's certificate is of no use ({error}): have it show another one"),
    }
}

/// A name as rustls shows it, `DnsName("host")`, without the frame.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.map_or(presented, |inner| inner.trim_matches('"'))
}

/// Why the server refuses us.
fn refusal(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => "the server wants a client certificate: set certificate_file and key_file under \
             [upstream] tls"
            .into(),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::DecryptError => format!(
            "the server does not accept our certificate ({alert:?}): certificate_file under [upstream] tls must hold \
             one from an authority that the server knows"
        ),
        Alert::HandshakeFailure => "the server refuses the handshake: it may want a client certificate \
             (certificate_file and key_file under [upstream] tls), or older ciphers than are safe"
            .into(),
        Alert::ProtocolVersion => "the server does neither TLS 1.2 nor 1.3: allow one of them there".into(),
        Alert::UnrecognisedName => "the server does not know the name it was asked for: set server_name under \
             [upstream] tls to one that it has"
            .into(),
        alert => format!("the server refuses the connection ({alert:?})"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_of_that_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let (empty, missing) = (file("empty", "\n"), dir.path().join("missing"));
        let certificate = file("certificate", &made.cert.pem());
        let key = file("key", &made.signing_key.serialize_pem());
        let other = file("other", &other.signing_key.serialize_pem());
        let load = |ca: &Path, certificate: &Path, key: &Path| {
            let tls = Tls {
                ca_file: Some(ca.to_path_buf()),
                identity: Some(Identity {
                    certificate_file: certificate.to_path_buf(),
                    key_file: key.to_path_buf(),
                }),
                server_name: None,
            };
            tls.load()
                .map(drop)
                .map_err(|error| (error.part, error.file, error.why))
        };
        let wrong = |part, file: &Path, why: &str| Err((part, Some(file.to_path_buf()), why.to_owned()));
        assert_eq!(load(&certificate, &certificate, &key), Ok(()));
        assert_eq!(
            load(&empty, &certificate, &key),
            wrong(Part::Authorities, &empty, "holds no certificate in PEM")
        );
        assert_eq!(
            load(&certificate, &missing, &key),
            wrong(Part::Certificate, &missing, "does not exist")
        );
        assert_eq!(
            load(&certificate, &certificate, &certificate),
            wrong(Part::Key, &certificate, "holds no private key in plain PEM")
        );
        let why = format!("is not the key of the certificate in {}", certificate.display());
        assert_eq!(load(&certificate, &certificate, &other), wrong(Part::Key, &other, &why));
    }

    #[test]
    fn names_are_shown_without_their_frames() {
        assert_eq!(bare("DnsName(\"redis.internal\")"), "redis.internal");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("odd"), "odd");
    }
}
