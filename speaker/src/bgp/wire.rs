//! One TCP connection: bytes in, bytes out.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// What a session keeps of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// To be sent; filled only when it is empty.
    pub(super) out: Vec<u8>,
    sent: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, out: Vec::new(), sent: 0 }
    }

    /// Whether everything has left for the kernel.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.out.len()
    }

    /// Writes until nothing is left; ready when that is so, or when the connection is no more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(std::pin::Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.sent += written,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once; no bytes: the peer has closed.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(std::pin::Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}
