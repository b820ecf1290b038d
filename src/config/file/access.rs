//! `[access]`, `[[access.jwt]]` and `[[access.signed]]` as they were written.

use super::super::diagnostics::At;
use super::super::mistakes::Kind;
use super::super::reader::{Reader, Table, Written};
use super::super::words::Section;

/// `[access]`
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) cookie: Option<Written<String>>,
    pub(crate) token_parameter: Option<Written<String>>,
    pub(crate) ask: Option<Written<String>>,
    pub(crate) jwt: Vec<Jwt>,
    pub(crate) signed: Vec<Signed>,
}

/// `[[access.jwt]]`
#[derive(Debug)]
pub(crate) struct Jwt {
    /// The header.
    pub(crate) at: At,
    pub(crate) algorithm: Option<Written<String>>,
    pub(crate) secret: Option<Written<String>>,
    pub(crate) secret_file: Option<Written<String>>,
    pub(crate) public_key_file: Option<Written<String>>,
    pub(crate) jwks_url: Option<Written<String>>,
    pub(crate) issuer: Option<Written<String>>,
    pub(crate) audience: Option<Written<String>>,
    /// Whether a key is there, if perhaps one that could not be read, so that it is not reported as missing as well.
    pub(crate) has_key: bool,
}

/// `[[access.signed]]`
#[derive(Debug)]
pub(crate) struct Signed {
    /// The header.
    pub(crate) at: At,
    pub(crate) scheme: Option<Written<String>>,
    pub(crate) key: Option<Written<String>>,
    pub(crate) key_file: Option<Written<String>>,
    pub(crate) secret_key_base: Option<Written<String>>,
    pub(crate) secret_key_base_file: Option<Written<String>>,
    pub(crate) salt: Option<Written<String>>,
    pub(crate) digest: Option<Written<String>>,
    pub(crate) purpose: Option<Written<String>>,
    /// Whether a key is there, if perhaps one that could not be read.
    pub(crate) has_key: bool,
}

pub(super) fn access(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Access {
    Access {
        cookie: table.text(reader, "cookie"),
        token_parameter: table.text(reader, "token_parameter"),
        ask: table.text(reader, "ask"),
        jwt: table
            .tables(reader, "jwt", Section::Jwt)
            .iter()
            .map(|table| jwt(reader, table))
            .collect(),
        signed: table
            .tables(reader, "signed", Section::Signed)
            .iter()
            .map(|table| signed(reader, table))
            .collect(),
    }
}

fn jwt(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Jwt {
    let keys = ["secret", "secret_file", "public_key_file", "jwks_url"];
    Jwt {
        at: table.at,
        algorithm: table.text(reader, "algorithm"),
        secret: secret(reader, table, "secret"),
        secret_file: table.text(reader, "secret_file"),
        public_key_file: table.text(reader, "public_key_file"),
        jwks_url: table.text(reader, "jwks_url"),
        issuer: table.text(reader, "issuer"),
        audience: table.text(reader, "audience"),
        has_key: keys.iter().any(|option| table.any(option).is_some()),
    }
}

fn signed(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Signed {
    let keys = ["key", "key_file", "secret_key_base", "secret_key_base_file"];
    Signed {
        at: table.at,
        scheme: table.text(reader, "scheme"),
        key: secret(reader, table, "key"),
        key_file: table.text(reader, "key_file"),
        secret_key_base: secret(reader, table, "secret_key_base"),
        secret_key_base_file: table.text(reader, "secret_key_base_file"),
        salt: table.text(reader, "salt"),
        digest: table.text(reader, "digest"),
        purpose: table.text(reader, "purpose"),
        has_key: keys.iter().any(|option| table.any(option).is_some()),
    }
}

fn secret(reader: &mut Reader<'_>, table: &Table<'_, '_>, option: &str) -> Option<Written<String>> {
    reader.text_of(table.any(option)?, option, Kind::Secret)
}
