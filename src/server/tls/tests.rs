//! Files of every kind of use, and when they are loaded again.

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
