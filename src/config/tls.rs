//! `tls` of `[upstream]`: who may vouch for the server, and what it is shown.

use std::path::PathBuf;

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::reader::Written;
use super::url::Url;
use crate::upstream::tls::{Identity, Part, Tls, TlsError};
use crate::upstream::{Address, Topology};

impl Compiler<'_> {
    /// How the connection is encrypted; not at all if the URL does not say so.
    pub(crate) fn tls(&mut self, file: Option<&file::Tls>, url: &Url) -> Option<Tls> {
        if !url.tls {
            if let Some(file) = file {
                self.problems.add(
                    Problem::new(file.at, "`tls` without TLS", "has no effect")
                        .why("a connection is encrypted only if the URL begins with rediss://")
                        .instead("begin the URL with rediss://, or leave `tls` out"),
                );
            }
            return None;
        }
        let mut tls = Tls {
            // By its name in the URL a server is known, whatever address that leads to.
            server_name: match (&url.topology, &url.address) {
                (Topology::Server, Address::Tcp { host, .. }) => Some(host.clone()),
                // Each of several is known by its own.
                _ => None,
            },
            ..Tls::default()
        };
        let Some(file) = file else { return Some(tls) };
        tls.ca_file = self.path_to(name("tls.ca_file"), file.ca_file.as_ref());
        let certificate = self.path_to(name("tls.certificate_file"), file.certificate_file.as_ref());
        let key = self.path_to(name("tls.key_file"), file.key_file.as_ref());
        tls.identity = match (certificate, key) {
            (Some(certificate_file), Some(key_file)) => Some(Identity {
                certificate_file,
                key_file,
            }),
            _ => None,
        };
        if let Some(written) = &file.server_name {
            self.note(name("tls.server_name"), written, format!("\"{}\"", written.value));
            tls.server_name = Some(written.value.clone());
        }
        match (&file.certificate_file, &file.key_file) {
            (Some(alone), None) => self.half(alone, "certificate_file", "key_file"),
            (None, Some(alone)) => self.half(alone, "key_file", "certificate_file"),
            _ => {}
        }
        // A name that is not in the file is not judged here.
        for error in [tls.name("").err(), tls.load().err()].into_iter().flatten() {
            self.useless(file, &error);
        }
        Some(tls)
    }

    pub(super) fn path_to(&mut self, name: Name, written: Option<&Written<String>>) -> Option<PathBuf> {
        let written = written?;
        self.note(name, written, format!("\"{}\"", written.value));
        Some(self.file(written.at, &written.value))
    }

    fn half(&mut self, written: &Written<String>, there: &str, missing: &str) {
        self.problems.add(
            Problem::new(
                written.at,
                format!("`{there}` without `{missing}`"),
                "one half of what is needed",
            )
            .why("a client certificate is shown together with a proof that its key is known")
            .instead(format!("add {missing} = \"…\"; both may name one file that holds both")),
        );
    }

    /// Tells what is wrong with a file that is there to be read. A trust store without anything is not the config's
    /// fault, and is told when it is needed.
    fn useless(&mut self, file: &file::Tls, error: &TlsError) {
        let (option, written) = match error.part {
            Part::Authorities => ("ca_file", &file.ca_file),
            Part::Certificate => ("certificate_file", &file.certificate_file),
            Part::Key => ("key_file", &file.key_file),
            Part::Name => ("server_name", &file.server_name),
        };
        let Some(written) = written else { return };
        let title = match error.part {
            Part::Name => "`server_name` is not a name".to_owned(),
            _ => format!("the file of `{option}` is of no use"),
        };
        self.problems
            .add(Problem::new(written.at, title, &error.why).instead(match error.part {
                Part::Authorities | Part::Certificate => {
                    "name a file with certificates in PEM, as they begin with -----BEGIN CERTIFICATE-----; its path is \
                     relative to the folder of the file that names it"
                }
                Part::Key => {
                    "name the file with the certificate's key in PEM, without a pass phrase; its path is relative to \
                     the folder of the file that names it"
                }
                Part::Name => "write a host name or an IP address that stands in the server's certificate",
            }));
    }
}

fn name(option: &'static str) -> Name {
    Name {
        section: "upstream",
        option,
    }
}
