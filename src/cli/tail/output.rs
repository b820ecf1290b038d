//! Standard output behind a queue with a bound, so that a slow terminal holds up nobody.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Most items that wait to be written: a few screens, so that a burst is shown and whoever has looked away is not shown what
/// happened minutes ago.
const ITEMS: usize = 4096;

/// Most bytes of keys or payloads that wait.
const BYTES: usize = 16 << 20;

/// What is to be written.
pub(super) enum Told<T> {
    /// An item.
    Item(T),
    /// So many items are missing here, because the reader was too slow.
    Missed(u64),
}

/// Writes items on a thread of its own, in order.
pub(super) struct Output<T> {
    sender: mpsc::Sender<Waiting<T>>,
    room: Arc<Semaphore>,
    /// Items that were not taken since the last that was. Taken by whoever tells of them: the next item, or the thread when
    /// nothing waits any more.
    missed: Arc<AtomicU64>,
    done: oneshot::Receiver<()>,
}

struct Waiting<T> {
    item: T,
    missed_before: u64,
    _room: OwnedSemaphorePermit,
}

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct Closed;

impl<T: Send + 'static> Output<T> {
    /// Writes to standard output what `line` makes of each item.
    pub fn start(line: impl FnMut(Told<T>) -> String + Send + 'static) -> io::Result<Output<T>> {
        Output::over(io::stdout(), line)
    }

    fn over(
        to: impl Write + Send + 'static,
        line: impl FnMut(Told<T>) -> String + Send + 'static,
    ) -> io::Result<Output<T>> {
        let (sender, receiver) = mpsc::channel(ITEMS);
        let missed = Arc::new(AtomicU64::new(0));
        let (end, done) = oneshot::channel();
        let told = missed.clone();
        thread::Builder::new().name("output".into()).spawn(move || {
            match write_all(to, receiver, &told, line) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    super::super::complain(&format!("keyrelay: cannot write: {error}\n"));
                }
                // A reader that has seen enough (`| head`) is no failure.
                _ => {}
            }
            // Nobody waits after a signal.
            let _ = end.send(());
        })?;
        Ok(Output {
            sender,
            room: Arc::new(Semaphore::new(BYTES)),
            missed,
            done,
        })
    }

    /// Has the item written, or counted as missed where too much waits. `size` is about what it holds in bytes.
    pub fn offer(&self, size: usize, item: impl FnOnce() -> T) {
        let room = self.room.clone().try_acquire_many_owned(permits(size));
        let (Ok(room), Ok(place)) = (room, self.sender.try_reserve()) else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        place.send(Waiting {
            item: item(),
            missed_before: self.missed.swap(0, Ordering::Relaxed),
            _room: room,
        });
    }

    /// Has the item written, as soon as there is room for it.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub async fn send(&self, size: usize, item: T) -> Result<(), Closed> {
        let room = self.room.clone().acquire_many_owned(permits(size)).await;
        let waiting = Waiting {
            item,
            missed_before: 0,
            _room: room.map_err(|_| Closed)?,
        };
        self.sender.send(waiting).await.map_err(|_| Closed)
    }

    /// Waits until nobody reads any more, which is found out by writing.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Waits until all that was sent is written, or nobody reads any more.
    pub async fn finish(self) {
        drop(self.sender);
        // It fails only if the thread broke down.
        let _ = self.done.await;
    }
}

/// What is larger than all the room has all of it.
fn permits(size: usize) -> u32 {
    u32::try_from(size.min(BYTES)).unwrap_or(u32::MAX)
}

fn write_all<T>(
    to: impl Write,
    mut items: mpsc::Receiver<Waiting<T>>,
    missed: &AtomicU64,
    mut line: impl FnMut(Told<T>) -> String,
) -> io::Result<()> {
    let mut to = BufWriter::new(to);
    while let Some(waiting) = items.blocking_recv() {
        if waiting.missed_before > 0 {
            to.write_all(line(Told::Missed(waiting.missed_before)).as_bytes())?;
        }
        to.write_all(line(Told::Item(waiting.item)).as_bytes())?;
        if items.is_empty() {
            let missed = missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                to.write_all(line(Told::Missed(missed)).as_bytes())?;
            }
            to.flush()?;
        }
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc as blocking;

    use super::*;

    /// Takes nothing before it is told to.
    struct Slow {
        asked: blocking::Sender<()>,
        go: blocking::Receiver<()>,
        went: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.went {
                self.asked.send(()).unwrap();
                self.go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
                self.went = true;
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The test's side of it.
    struct Hand {
        asked: blocking::Receiver<()>,
        go: blocking::Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    fn slow() -> (Slow, Hand) {
        let ((sender, asked), (go, receiver)) = (blocking::channel(), blocking::channel());
        let written = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow {
            asked: sender,
            go: receiver,
            went: false,
            written: written.clone(),
        };
        (slow, Hand { asked, go, written })
    }

    fn line(told: Told<usize>) -> String {
        match told {
            Told::Item(item) => format!("{item}\n"),
            Told::Missed(count) => format!("missed {count}\n"),
        }
    }

    /// Each number of those that were offered is either written or counted, in order.
    #[track_caller]
    fn complete(written: &[u8], offered: usize) -> usize {
        let text = String::from_utf8_lossy(written).into_owned();
        let (mut next, mut missed) = (0, 0);
        for line in text.lines() {
            match line.strip_prefix("missed ") {
                Some(count) => {
                    let count: usize = count.parse().unwrap();
                    (next, missed) = (next + count, missed + count);
                }
                None => {
                    assert_eq!(line.parse::<usize>().unwrap(), next);
                    next += 1;
                }
            }
        }
        assert_eq!(next, offered);
        missed
    }

    #[tokio::test]
    async fn what_a_slow_reader_misses_is_told() {
        let (to, hand) = slow();
        let output = Output::over(to, line).unwrap();
        output.offer(1, || 0);
        hand.asked.recv().unwrap();
        let offered = 3 * ITEMS;
        (1..offered).for_each(|item| output.offer(1, || item));
        hand.go.send(()).unwrap();
        output.finish().await;
        assert_eq!(complete(&hand.written.lock().unwrap(), offered), offered - 1 - ITEMS);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_too() {
        let (to, hand) = slow();
        let output = Output::over(to, line).unwrap();
        output.offer(BYTES / 4, || 0);
        hand.asked.recv().unwrap();
        (1..100).for_each(|item| output.offer(BYTES / 4, || item));
        hand.go.send(()).unwrap();
        output.finish().await;
        assert_eq!(complete(&hand.written.lock().unwrap(), 100), 96);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_misses_nothing() {
        let (to, hand) = slow();
        let output = Output::over(to, line).unwrap();
        hand.go.send(()).unwrap();
        for item in 0..ITEMS {
            output.send(BYTES, item).await.unwrap();
        }
        output.finish().await;
        assert_eq!(complete(&hand.written.lock().unwrap(), ITEMS), 0);
    }

    #[tokio::test]
    async fn that_nobody_reads_is_noticed() {
        let (to, hand) = slow();
        let output = Output::over(to, line).unwrap();
        drop(hand.go);
        output.offer(1, || 0);
        output.closed().await;
        assert!(output.send(1, 1).await.is_err());
    }
}
