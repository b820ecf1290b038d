//! A connection to the server that does not block: any bytes, RESP2.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::Reply;

/// A frozen server answers after the longest freeze that a schedule has.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub async fn connect(address: SocketAddr) -> io::Result<Redis> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Redis {
            stream: BufReader::new(stream),
        })
    }

    /// Sends all commands at once and gives the answer to each.
    pub async fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> io::Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for argument in command {
                let argument = argument.as_ref();
                bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                bytes.extend_from_slice(argument);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        let exchange = async {
            self.stream.write_all(&bytes).await?;
            let mut replies = Vec::with_capacity(commands.len());
            for _ in commands {
                replies.push(self.receive().await?);
            }
            Ok(replies)
        };
        timeout(PATIENCE, exchange).await.map_err(io::Error::other)?
    }

    pub async fn command(&mut self, arguments: &[&[u8]]) -> io::Result<Reply> {
        let mut replies = self.pipeline(&[arguments.to_vec()]).await?;
        Ok(replies.pop().expect("one answer to one command"))
    }

    /// A command of words.
    pub async fn words(&mut self, line: &str) -> io::Result<Reply> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.command(&words).await
    }

    /// The next answer, or the next message of a subscription.
    pub fn receive(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Reply>> + '_>> {
        Box::pin(async {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
            let number = || rest.parse::<i64>().map_err(io::Error::other);
            Ok(match kind {
                "+" => Reply::Status(rest.to_owned()),
                "-" => Reply::Error(rest.to_owned()),
                ":" => Reply::Integer(number()?),
                "$" | "*" if number()? < 0 => Reply::Nil,
                "$" => {
                    let mut bytes = vec![0; number()? as usize + 2];
                    self.stream.read_exact(&mut bytes).await?;
                    bytes.truncate(bytes.len() - 2);
                    Reply::Bulk(bytes)
                }
                "*" => {
                    let mut items = Vec::new();
                    for _ in 0..number()? {
                        items.push(self.receive().await?);
                    }
                    Reply::Array(items)
                }
                _ => return Err(io::Error::other(format!("not RESP2: {line}"))),
            })
        })
    }
}
