//! Certificates, and servers that show them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use super::server::{Server, free_port};

/// An authority with a folder for what it issues.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// The files of a certificate.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A server that speaks TLS at a port of its own, and plainly at that of [`Server`].
pub struct TlsServer {
    pub server: Server,
    port: u16,
    /// Who vouches for it.
    pub authority: Authority,
}

impl Authority {
    /// An authority that nobody knows yet.
    pub fn new(name: &str) -> Authority {
        let dir = tempfile::Builder::new()
            .prefix("keyrelay-tls-")
            .tempdir()
            .expect("a temporary directory");
        let mut params = named(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("the directory can be written to");
        std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).expect("the directory can be written to");
        Authority {
            issuer: Issuer::new(params, key),
            dir,
        }
    }

    /// The file with its certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for hosts and IP addresses; `file` begins the names of its files.
    pub fn issue(&self, file: &str, names: &[&str]) -> Certificate {
        self.sign(file, named(names, file))
    }

    /// A file that is not there, for whoever puts one there.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate that was good until a year that is over.
    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Certificate {
        let mut params = named(names, file);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.sign(file, params)
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = Certificate {
            certificate: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).expect("the directory can be written to");
        std::fs::write(&files.key, key.serialize_pem()).expect("the directory can be written to");
        files
    }
}

/// A client that trusts an authority alone, speaks a protocol over TLS, and may show a certificate of its own.
pub fn client_config(trusted: &Authority, protocol: &str, own: Option<&Certificate>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(trusted.file()).expect("a certificate");
    roots.add(certificate).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("what ring has")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(&own.certificate).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}

fn named(names: &[&str], common: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names that a certificate can have");
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

impl TlsServer {
    /// A server whose certificate is for 127.0.0.1 and localhost, which asks clients for none.
    pub fn start() -> TlsServer {
        let authority = Authority::new("keyrelay test authority");
        let shown = authority.issue("server", &["127.0.0.1", "localhost"]);
        TlsServer::showing(authority, &shown, "tls-auth-clients no")
    }

    /// A server that shows a certificate, with further lines of config.
    #[track_caller]
    pub fn showing(authority: Authority, shown: &Certificate, lines: &str) -> TlsServer {
        let port = free_port();
        let server = Server::with_config(&format!(
            "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n{lines}",
            shown.certificate.display(),
            shown.key.display(),
            authority.file().display(),
        ));
        TlsServer {
            server,
            port,
            authority,
        }
    }

    /// A server that shows the certificate of its authority itself.
    pub fn showing_itself(authority: Authority) -> TlsServer {
        let shown = Certificate {
            certificate: authority.file(),
            key: authority.dir.path().join("ca.key"),
        };
        TlsServer::showing(authority, &shown, "tls-auth-clients no")
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.server.address().ip(), self.port)
    }

    /// The lines of `[upstream]` that reach it; `ca` is who is trusted.
    pub fn upstream(&self, ca: &Path) -> String {
        format!(
            "url = \"rediss://{}\"\ntls = {{ ca_file = \"{}\" }}",
            self.address(),
            ca.display()
        )
    }
}
