//! Who writes the values that clients are to receive.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::machine::now;
use super::server::Server;

/// Ends every value, and stands nowhere else in what is sent.
pub const MARK: u8 = b'Z';

/// Digits before the mark: when the value was written, in ns of [`now`].
pub const STAMP: usize = 20;

/// Bytes of a value unless it is said otherwise.
pub const SIZE: usize = 200;

/// Writes values to the keys `bench:0` and so on, in turn.
pub struct Writer {
    connection: TcpStream,
    channels: usize,
    next: usize,
    /// What fills values up, before the stamp: when the mark has come, all has.
    filler: String,
}

impl Writer {
    pub fn new(server: &Server, channels: usize) -> Writer {
        Writer::of_size(server, channels, SIZE)
    }

    /// Writes values of so many bytes; at least the stamp and the mark.
    pub fn of_size(server: &Server, channels: usize, size: usize) -> Writer {
        let connection = TcpStream::connect(server.address).expect("the server");
        connection.set_nodelay(true).expect("a socket");
        Writer {
            connection,
            channels,
            next: 0,
            filler: "x".repeat(size.saturating_sub(STAMP + 1)),
        }
    }

    /// A message on every channel.
    pub fn write_all_channels(&mut self) {
        for _ in 0..self.channels {
            self.write_next();
        }
    }

    /// A message on the next channel; it has been written when this returns.
    pub fn write_next(&mut self) {
        let key = format!("bench:{}", self.next);
        self.next = (self.next + 1) % self.channels;
        let value = format!("{}{:0STAMP$}{}", self.filler, now(), MARK as char);
        let sizes = (key.len(), value.len());
        let command = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            sizes.0, sizes.1
        );
        self.connection
            .write_all(command.as_bytes())
            .expect("the server takes commands");
        let mut answer = [0; 5];
        self.connection.read_exact(&mut answer).expect("the server answers");
        assert_eq!(&answer, b"+OK\r\n", "what the server says to a SET");
    }
}
