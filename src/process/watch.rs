//! Files that are looked at again and again, until one of them was saved.
//!
//! They are looked at, rather than the system being asked to tell (inotify): a few files cost nothing to look at, and that
//! also works where nobody tells, as of files that a container mounts from another machine, and whichever way an editor saves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often they are looked at: soon enough for whoever goes from the editor to the browser.
const INTERVAL: Duration = Duration::from_millis(250);

/// Files, and folders of which it counts which files they have.
#[derive(Debug)]
pub struct Watch {
    seen: BTreeMap<PathBuf, Stamp>,
}

/// What tells a file from what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    File {
        inode: u64,
        size: u64,
        /// Of its content, and of what is known of it: seconds and nanoseconds.
        times: [(i64, i64); 2],
    },
    /// The names in it, but for those that editors use while they save.
    Folder(Vec<PathBuf>),
}

impl Watch {
    /// Begins to watch: what they are now counts as known.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Watch {
        Watch {
            seen: files.into_iter().map(|file| (file.clone(), Stamp::of(&file))).collect(),
        }
    }

    /// Watches these instead. What was known of those that stay is still known, so that none of their changes is missed.
    pub fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut before = std::mem::take(&mut self.seen);
        let seen = files.into_iter().map(|file| {
            let stamp = before.remove(&file).unwrap_or_else(|| Stamp::of(&file));
            (file, stamp)
        });
        self.seen = seen.collect();
    }

    /// Waits until one of them is another one than before, and none has changed since for a moment: an editor may write a
    /// file in parts, and a checkout several files.
    pub async fn changed(&mut self) {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            looks.tick().await;
            let now = self.look();
            if last.as_ref() == Some(&now) && now != self.seen {
                self.seen = now;
                return;
            }
            last = Some(now);
        }
    }

    fn look(&self) -> BTreeMap<PathBuf, Stamp> {
        self.seen.keys().map(|file| (file.clone(), Stamp::of(file))).collect()
    }
}

impl Stamp {
    fn of(path: &Path) -> Stamp {
        Stamp::read(path).unwrap_or(Stamp::Missing)
    }

    fn read(path: &Path) -> io::Result<Stamp> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(Stamp::File {
                inode: metadata.ino(),
                size: metadata.size(),
                times: [
                    (metadata.mtime(), metadata.mtime_nsec()),
                    (metadata.ctime(), metadata.ctime_nsec()),
                ],
            });
        }
        let names = fs::read_dir(path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // `.a.swp`, `.#a`, `a~`, `#a#`: vim's, Emacs' and kate's.
        let names = names.filter(|name| !name.starts_with(['.', '#']) && !name.ends_with('~'));
        let mut names: Vec<PathBuf> = names.map(PathBuf::from).collect();
        names.sort();
        Ok(Stamp::Folder(names))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::time::timeout;

    use super::*;

    /// Whether it is noticed: with paused time, as soon as nothing else is to be done.
    async fn notices(watch: &mut Watch) -> bool {
        timeout(10 * INTERVAL, watch.changed()).await.is_ok()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keyrelay.toml");
        fs::write(&file, "one").unwrap();
        (folder, file)
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_save_is_noticed_once() {
        let (folder, file) = folder();
        let mut watch = Watch::new([file.clone()]);
        assert!(!notices(&mut watch).await, "nothing has changed");
        let other = folder.path().join("other");
        let ways: [&dyn Fn(); 5] = [
            &|| fs::write(&file, "two").unwrap(),
            &|| fs::write(&file, "another length").unwrap(),
            &|| {
                fs::write(&other, "renamed over it").unwrap();
                fs::rename(&other, &file).unwrap();
            },
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::write(&file, "there again").unwrap(),
        ];
        for (at, save) in ways.iter().enumerate() {
            save();
            assert!(notices(&mut watch).await, "{at}");
            assert!(!notices(&mut watch).await, "{at} is noticed once");
        }
    }

    /// The kubelet swaps a symbolic link under the folder of a ConfigMap.
    #[tokio::test(start_paused = true)]
    async fn a_link_that_leads_elsewhere_is_noticed() {
        let (folder, file) = folder();
        let (link, next, new) = ["link", "next", "new.toml"].map(|name| folder.path().join(name)).into();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut watch = Watch::new([link.clone()]);
        fs::write(&new, "new").unwrap();
        std::os::unix::fs::symlink(&new, &next).unwrap();
        fs::rename(&next, &link).unwrap();
        assert!(notices(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for() {
        let (_folder, file) = folder();
        let mut watch = Watch::new([file.clone()]);
        let writing = async {
            for part in 0..8 {
                fs::write(&file, format!("part {part}")).unwrap();
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let (mut changed, mut writing) = (Box::pin(watch.changed()), Box::pin(writing));
        // It is asked first, and must not be done before the writer is.
        let first = std::future::poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready("changed");
            }
            writing.as_mut().poll(cx).map(|()| "written")
        });
        assert_eq!(first.await, "written");
        changed.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_what_is_in_it() {
        let (folder, file) = folder();
        let mut watch = Watch::new([folder.path().to_owned()]);
        fs::write(&file, "what its files hold is their own").unwrap();
        fs::write(folder.path().join(".keyrelay.toml.swp"), "").unwrap();
        assert!(!notices(&mut watch).await);
        fs::write(folder.path().join("more.toml"), "").unwrap();
        assert!(notices(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn other_files_can_be_followed() {
        let (folder, file) = folder();
        let more = folder.path().join("more.toml");
        let mut watch = Watch::new([file.clone()]);
        fs::write(&file, "while nobody looks").unwrap();
        watch.follow([file.clone(), more.clone()]);
        assert!(notices(&mut watch).await, "what was known of a file stays");
        fs::write(&more, "comes").unwrap();
        assert!(notices(&mut watch).await);
        watch.follow([more]);
        fs::write(&file, "nobody's business").unwrap();
        assert!(!notices(&mut watch).await);
    }
}
