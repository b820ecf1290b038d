//! `tls` of `[server]`: what clients are shown, and what they must show.

use std::time::SystemTime;

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::reader::Written;
use crate::server::Address;
use crate::server::tls::{Clients, Part, Tls, TlsError};

fn name(option: &'static str) -> Name {
    Name {
        section: "server",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn server_tls(&mut self, file: &file::ServerTls, listen: &[Address]) -> Option<Tls> {
        if !listen.is_empty() && listen.iter().all(|address| matches!(address, Address::Unix(_))) {
            self.problems.add(
                Problem::new(file.at, "`tls` without a TCP address", "has no effect")
                    .why("`listen` names Unix sockets alone, and what comes through those has not crossed a network")
                    .instead("add a TCP address to `listen`, or leave `tls` out"),
            );
        }
        for (written, option) in [
            (&file.certificate_file, "certificate_file"),
            (&file.key_file, "key_file"),
        ] {
            if written.is_none() {
                self.problems.add(
                    Problem::new(
                        file.at,
                        format!("`tls` without `{option}`"),
                        "one half of what is needed",
                    )
                    .why("clients are shown a certificate together with a proof that its key is known")
                    .instead(format!("add {option} = \"…\"; both may name one file that holds both")),
                );
            }
        }
        let required = self.word(
            name("tls.client_certificates"),
            file.client_certificates.as_ref(),
            true,
            &[("required", true), ("optional", false)],
        );
        if let (Some(written), None) = (&file.client_certificates, &file.client_ca_file) {
            self.problems.add(
                Problem::new(
                    written.at,
                    "`client_certificates` without `client_ca_file`",
                    "has no effect",
                )
                .why("clients are asked for a certificate only if it is known who may vouch for them")
                .instead("add client_ca_file = \"…\", or leave `client_certificates` out"),
            );
        }
        let certificate_file = self.path_to(name("tls.certificate_file"), file.certificate_file.as_ref());
        let key_file = self.path_to(name("tls.key_file"), file.key_file.as_ref());
        let ca_file = self.path_to(name("tls.client_ca_file"), file.client_ca_file.as_ref());
        let tls = Tls {
            certificate_file: certificate_file?,
            key_file: key_file?,
            clients: ca_file.map(|ca_file| Clients { ca_file, required }),
        };
        if let Err(error) = tls.load(SystemTime::now()) {
            self.server_tls_file(file, &error);
        }
        Some(tls)
    }

    fn server_tls_file(&mut self, file: &file::ServerTls, error: &TlsError) {
        let (option, written): (_, &Option<Written<String>>) = match error.part {
            Part::Certificate => ("certificate_file", &file.certificate_file),
            Part::Key => ("key_file", &file.key_file),
            Part::Authorities => ("client_ca_file", &file.client_ca_file),
        };
        let Some(written) = written else { return };
        let problem = Problem::new(written.at, format!("the file of `{option}` is of no use"), &error.why);
        self.problems.add(problem.instead(match error.part {
            Part::Certificate | Part::Authorities => {
                "name a file with certificates in PEM, as they begin with -----BEGIN CERTIFICATE-----; its path is relative \
                 to the folder of the file that names it"
            }
            Part::Key => {
                "name the file with the certificate's key in PEM, without a pass phrase; its path is relative to the folder \
                 of the file that names it"
            }
        }));
    }
}
