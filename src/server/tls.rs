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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            let dir = tempfile::tempdir().unwrap();
            Files { dir }
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }

        /// A certificate for the years from 2001 to this one, and its key.
        fn certificate(&self, name: &str, until: i32) -> (PathBuf, PathBuf) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["relay.test".to_owned()]).unwrap();
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(until, 1, 1));
            let certificate = params.self_signed(&key).unwrap();
            (
                self.write(&format!("{name}.pem"), certificate.pem()),
                self.write(&format!("{name}.key"), key.serialize_pem()),
            )
        }
    }

    fn tls(certificate: &Path, key: &Path, clients: Option<&Path>) -> Tls {
        Tls {
            certificate_file: certificate.to_owned(),
            key_file: key.to_owned(),
            clients: clients.map(|ca_file| Clients {
                ca_file: ca_file.to_owned(),
                required: true,
            }),
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_of_that_file() {
        let files = Files::new();
        let (certificate, key) = files.certificate("relay", 2100);
        let (_, other) = files.certificate("other", 2100);
        let (empty, missing) = (files.write("empty", "\n"), files.dir.path().join("missing"));
        let garbage = files.write(
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        let load = |tls: Tls| {
            let loaded = tls.load(SystemTime::now());
            loaded
                .map(|(_, untimely)| untimely)
                .map_err(|error| (error.part, error.to_string()))
        };
        let wrong = |part, file: &Path, why: &str| Err((part, format!("{} {why}", file.display())));
        assert_eq!(load(tls(&certificate, &key, Some(&certificate))), Ok(None));
        assert_eq!(
            load(tls(&missing, &key, None)),
            wrong(Part::Certificate, &missing, "does not exist")
        );
        assert_eq!(
            load(tls(&garbage, &key, None)),
            wrong(Part::Certificate, &garbage, "holds no valid certificate")
        );
        assert_eq!(
            load(tls(&certificate, &empty, None)),
            wrong(Part::Key, &empty, "holds no private key in plain PEM")
        );
        let why = format!("is not the key of the certificate in {}", certificate.display());
        assert_eq!(load(tls(&certificate, &other, None)), wrong(Part::Key, &other, &why));
        for (ca_file, why) in [
            (&empty, "holds no certificate in PEM"),
            (&garbage, "holds no valid certificate"),
        ] {
            let loaded = load(tls(&certificate, &key, Some(ca_file)));
            assert_eq!(loaded, wrong(Part::Authorities, ca_file, why));
        }
    }

    #[test]
    fn a_certificate_out_of_its_time_is_told_of_and_taken() {
        let files = Files::new();
        let (certificate, key) = files.certificate("relay", 2002);
        let tls = tls(&certificate, &key, None);
        let told = |seconds| tls.load(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap().1;
        // The end of 2000, the middle of 2001, and 2002.
        assert!(told(978_000_000).is_some_and(|what| what.contains("is not valid yet (but from Mon, 01 Jan 2001 ")));
        assert_eq!(told(994_000_000), None);
        let expired = told(1_010_000_000).unwrap();
        assert!(
            expired.contains("relay.pem has expired (Tue, 01 Jan 2002 "),
            "{expired}"
        );
    }

    /// As a tool does it that writes as root and then gives the files to whom they are for.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_read_only_later_is_loaded_then() {
        let files = Files::new();
        let (certificate, key) = files.certificate("relay", 2100);
        let keeper = Keeper::new(tls(&certificate, &key, None)).unwrap();
        let (_tell, told) = watch::channel(());
        let first = keeper.config();
        let looks = |count| tokio::time::sleep(LOOK * count);
        let may_read = |file: &Path, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        let steps = async {
            tokio::time::sleep(LOOK / 2).await;
            // Root may read everything; that the change is seen holds for it too.
            let (next_certificate, next_key) = files.certificate("next", 2100);
            may_read(&next_key, 0o000);
            let unreadable = fs::read(&next_key).is_err();
            fs::rename(&next_certificate, &certificate).unwrap();
            fs::rename(&next_key, &key).unwrap();
            looks(3).await;
            if unreadable {
                assert!(
                    Arc::ptr_eq(&first, &keeper.config()),
                    "what may not be read changes nothing"
                );
            }
            let second = keeper.config();
            may_read(&key, 0o600);
            looks(3).await;
            assert!(
                !Arc::ptr_eq(&second, &keeper.config()),
                "a change of who may read counts"
            );
        };
        tokio::select! {
            () = keeper.keep(told) => {}
            () = steps => {}
        }
    }

    /// Between the first load and the first look.
    #[tokio::test(start_paused = true)]
    async fn what_is_replaced_at_once_is_seen() {
        let files = Files::new();
        let (certificate, key) = files.certificate("relay", 2100);
        let keeper = Keeper::new(tls(&certificate, &key, None)).unwrap();
        let first = keeper.config();
        let (next_certificate, next_key) = files.certificate("next", 2100);
        fs::rename(&next_certificate, &certificate).unwrap();
        fs::rename(&next_key, &key).unwrap();
        let (_tell, told) = watch::channel(());
        tokio::select! {
            () = keeper.keep(told) => {}
            () = tokio::time::sleep(LOOK * 4) => {}
        }
        assert!(!Arc::ptr_eq(&first, &keeper.config()));
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_loaded_again_once_they_rest_and_kept_if_they_are_of_no_use() {
        let files = Files::new();
        let (certificate, key) = files.certificate("relay", 2100);
        let keeper = Keeper::new(tls(&certificate, &key, None)).unwrap();
        let (tell, told) = watch::channel(());
        let first = keeper.config();
        let is = |config: &Arc<ServerConfig>| Arc::ptr_eq(config, &keeper.config());
        let looks = |count| tokio::time::sleep(LOOK * count);
        let steps = async {
            // Between two looks.
            tokio::time::sleep(LOOK / 2).await;
            looks(3).await;
            assert!(is(&first), "nothing has changed");
            // The first of two files, then nothing for a while: they do not fit.
            let (certificate, key) = files.certificate("next", 2100);
            fs::rename(&certificate, files.dir.path().join("relay.pem")).unwrap();
            looks(3).await;
            assert!(is(&first), "what is of no use changes nothing");
            fs::rename(&key, files.dir.path().join("relay.key")).unwrap();
            looks(1).await;
            assert!(is(&first), "not yet at rest");
            looks(1).await;
            assert!(!is(&first));
            let second = keeper.config();
            tell.send_replace(());
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert!(!is(&second), "loaded when told to");
        };
        tokio::select! {
            () = keeper.keep(told) => {}
            () = steps => {}
        }
    }
}
