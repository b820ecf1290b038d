//! A connection within the process, for a client whose bytes must be encrypted or framed on their way to its socket.
//!
//! The shard holds the [`Near`] end in place of a socket, and serves it as it serves every other; a task of the same thread
//! holds the [`Far`] end and carries the bytes on. So TLS and HTTP/2 are served by the very code that serves plain sockets.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rustix::event::epoll::EventFlags;

use super::conn::Token;
use super::handle::Handle;

/// Bytes that may be on their way to the client: as many as one TLS record holds (RFC 8446 §5.1). They are sent even if
/// they are superseded meanwhile, so they are few.
const DOWN: usize = 16 * 1024;

/// Bytes that may be on their way from the client: more than it usually has to say.
const UP: usize = 4 * 1024;

/// The shard's end. Dropping it ends the connection once all is carried on that was sent.
#[derive(Debug)]
pub struct Near {
    shared: Rc<RefCell<Shared>>,
}

/// The end of the task that carries the bytes on. Dropping it tells the shard that the client has gone.
#[derive(Debug)]
pub struct Far {
    shared: Rc<RefCell<Shared>>,
}

/// Sees the shard let go of its end; beside the [`Far`] end, in the same task.
#[derive(Debug)]
pub struct Watch {
    shared: Rc<RefCell<Shared>>,
}

/// How the shard let go of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// All was said; what is on its way is to arrive.
    Orderly,
    /// It took nothing for too long: nothing more is to be carried on.
    GivenUp,
}

#[derive(Debug, Default)]
struct Shared {
    down: Vec<u8>,
    up: Vec<u8>,
    /// Nothing more comes down.
    finished: bool,
    /// The near end is gone.
    parted: Option<Parting>,
    /// Nothing more comes up.
    ended: bool,
    /// The far end is gone.
    left: bool,
    /// The near end found no room and waits for some.
    full: bool,
    /// Of the far end's task.
    waker: Option<Waker>,
    bell: Option<(Handle, Token)>,
    /// What the near end is yet to hear of; its bell was rung if this is not empty.
    news: Option<EventFlags>,
}

/// A connection's two ends.
pub fn pipe() -> (Near, Far) {
    let shared = Rc::<RefCell<Shared>>::default();
    let near = Near { shared: shared.clone() };
    (near, Far { shared })
}

impl Near {
    /// Has the shard told, by this name, of what happens at the far end.
    pub(super) fn attach(&self, handle: &Handle, token: Token) {
        let mut shared = self.shared.borrow_mut();
        shared.bell = Some((handle.clone(), token));
        let mut news = EventFlags::OUT;
        news.set(EventFlags::IN, !shared.up.is_empty());
        news.set(EventFlags::RDHUP, shared.ended);
        news.set(EventFlags::HUP, shared.left);
        shared.ring(news);
    }

    /// What has happened since this was last asked, as epoll would tell it.
    pub(super) fn news(&self) -> EventFlags {
        self.shared.borrow_mut().news.take().unwrap_or(EventFlags::empty())
    }

    /// Takes as much as there is room for.
    ///
    /// # Errors
    /// If there is none now, or the client has gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.shared.borrow_mut();
        if shared.left {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let size = bytes.len().min(DOWN - shared.down.len());
        shared.full = size < bytes.len();
        if size == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        shared.down.extend_from_slice(&bytes[..size]);
        wake(shared);
        Ok(size)
    }

    /// How many bytes are surely taken now: none while more than half of what may be on its way is.
    pub(super) fn room(&self) -> usize {
        let mut shared = self.shared.borrow_mut();
        let room = DOWN - shared.down.len();
        if room < DOWN / 2 {
            shared.full = true;
            return 0;
        }
        room
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut shared = self.shared.borrow_mut();
        if shared.up.is_empty() {
            return match shared.ended || shared.left {
                true => Ok(0),
                false => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let size = buffer.len().min(shared.up.len());
        buffer[..size].copy_from_slice(&shared.up[..size]);
        match size == shared.up.len() {
            true => shared.up = Vec::new(),
            false => drop(shared.up.drain(..size)),
        }
        // Who was given less than asked for waits to be told, even if all there is left is the end.
        if shared.up.is_empty() && shared.ended {
            shared.ring(EventFlags::RDHUP);
        }
        wake(shared);
        Ok(size)
    }

    pub(super) fn finish(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.finished = true;
        wake(shared);
    }

    /// Lets go of a client that takes nothing.
    pub fn give_up(&self) {
        self.part(Parting::GivenUp);
    }

    fn part(&self, how: Parting) {
        let mut shared = self.shared.borrow_mut();
        shared.bell = None;
        shared.parted.get_or_insert(how);
        wake(shared);
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.part(Parting::Orderly);
    }
}

impl Far {
    /// What there is to be carried to the client; nothing at the end.
    ///
    /// # Errors
    /// If the client was given up.
    pub fn poll_take(&mut self, cx: &Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut shared = self.shared.borrow_mut();
        if shared.parted == Some(Parting::GivenUp) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if shared.down.is_empty() && !shared.finished && shared.parted.is_none() {
            shared.wait(cx);
            return Poll::Pending;
        }
        let bytes = std::mem::take(&mut shared.down);
        if std::mem::take(&mut shared.full) {
            shared.ring(EventFlags::OUT);
        }
        Poll::Ready(Ok(bytes.into()))
    }

    /// How much of what the client sent may be [`put`](Far::put); never nothing.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<usize> {
        let mut shared = self.shared.borrow_mut();
        match UP - shared.up.len() {
            0 => {
                shared.wait(cx);
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Gives the shard what the client has sent; no more than there is room for.
    pub fn put(&mut self, bytes: &[u8]) {
        let mut shared = self.shared.borrow_mut();
        shared.up.extend_from_slice(bytes);
        shared.ring(EventFlags::IN);
    }

    /// The client will send nothing more.
    pub fn end(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.ended = true;
        shared.ring(EventFlags::RDHUP);
    }

    /// For seeing the shard let go while nobody asks what there is to take.
    pub fn watch(&self) -> Watch {
        Watch {
            shared: self.shared.clone(),
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.left = true;
        shared.ring(EventFlags::HUP);
    }
}

impl Watch {
    /// How the shard let go.
    pub fn poll_parting(&self, cx: &Context<'_>) -> Poll<Parting> {
        let mut shared = self.shared.borrow_mut();
        match shared.parted {
            Some(how) => Poll::Ready(how),
            None => {
                shared.wait(cx);
                Poll::Pending
            }
        }
    }
}

impl Shared {
    fn ring(&mut self, flags: EventFlags) {
        let Some((handle, token)) = &self.bell else { return };
        match &mut self.news {
            Some(news) => news.insert(flags),
            None => {
                self.news = Some(flags);
                handle.ring(*token);
            }
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// Wakes the far end's task, with nothing borrowed: with its last waker a task goes, and with it its end.
fn wake(mut shared: std::cell::RefMut<'_, Shared>) {
    let waker = shared.waker.take();
    drop(shared);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token {
        index: 3,
        generation: 9,
    };

    fn attached() -> (Near, Far, Handle) {
        let (near, far) = pipe();
        let handle = Handle::new();
        near.attach(&handle, TOKEN);
        (near, far, handle)
    }

    fn take(far: &mut Far) -> Poll<io::Result<Bytes>> {
        far.poll_take(&Context::from_waker(Waker::noop()))
    }

    fn taken(far: &mut Far) -> Bytes {
        let Poll::Ready(Ok(bytes)) = take(far) else {
            panic!("there is something")
        };
        bytes
    }

    #[test]
    fn what_does_not_fit_waits_until_it_is_told_that_it_does() {
        let (near, mut far, handle) = attached();
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::OUT));
        assert!(take(&mut far).is_pending());
        assert_eq!(near.send(b"ab").unwrap(), 2);
        assert_eq!(taken(&mut far), "ab");
        assert_eq!(handle.next_ring(), None, "nobody waits for room");
        assert_eq!(near.send(&[1; DOWN + 1]).unwrap(), DOWN);
        assert_eq!(near.send(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(taken(&mut far).len(), DOWN);
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::OUT));
        assert_eq!(near.send(b"x").unwrap(), 1);
    }

    #[test]
    fn news_are_told_once_and_together() {
        let (near, mut far, handle) = attached();
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::OUT));
        far.put(b"hello");
        far.end();
        assert_eq!(handle.next_ring(), Some(TOKEN));
        assert_eq!(handle.next_ring(), None);
        assert_eq!(near.news(), EventFlags::IN | EventFlags::RDHUP);
        let mut buffer = [0; 8];
        assert_eq!(near.receive(&mut buffer[..4]).unwrap(), 4);
        assert_eq!(handle.next_ring(), None);
        // Less than was asked for: the end is told in its turn.
        assert_eq!(near.receive(&mut buffer).unwrap(), 1);
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::RDHUP));
        assert_eq!(near.receive(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn the_client_is_read_no_faster_than_it_is_heard() {
        let (near, mut far, _) = attached();
        let cx = Context::from_waker(Waker::noop());
        far.put(&[0; UP - 1]);
        assert_eq!(far.poll_room(&cx), Poll::Ready(1));
        far.put(&[0]);
        assert_eq!(far.poll_room(&cx), Poll::Pending);
        assert_eq!(near.receive(&mut [0; 100]).unwrap(), 100);
        assert_eq!(far.poll_room(&cx), Poll::Ready(100));
    }

    #[test]
    fn an_orderly_end_lets_everything_arrive_and_another_does_not() {
        let cx = Context::from_waker(Waker::noop());
        let (near, mut far, _) = attached();
        near.send(b"last").unwrap();
        near.finish();
        assert_eq!(far.watch().poll_parting(&cx), Poll::Pending);
        drop(near);
        assert_eq!(far.watch().poll_parting(&cx), Poll::Ready(Parting::Orderly));
        assert_eq!((taken(&mut far), taken(&mut far)), ("last".into(), Bytes::new()));

        let (near, mut far, _) = attached();
        near.send(b"last").unwrap();
        near.give_up();
        drop(near);
        assert_eq!(far.watch().poll_parting(&cx), Poll::Ready(Parting::GivenUp));
        assert!(matches!(take(&mut far), Poll::Ready(Err(_))));
    }

    #[test]
    fn the_shard_hears_that_the_client_has_gone_even_if_it_was_before() {
        let (near, far, handle) = attached();
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::OUT));
        drop(far);
        assert_eq!((handle.next_ring(), near.news()), (Some(TOKEN), EventFlags::HUP));
        assert_eq!(near.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);

        let (near, far) = pipe();
        drop(far);
        near.attach(&handle, TOKEN);
        assert!(near.news().contains(EventFlags::HUP));
    }
}
