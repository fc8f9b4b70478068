//! Listeners whose connections are bounded: in number, in time, and in what is read from them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use futures::FutureExt;
use futures_timer::Delay;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; the next ones wait.
    pub(super) connections: usize,
    /// How long one may last, idle or not. `None`: for ever.
    pub(super) time: Option<Duration>,
    /// How much is read from one; then it looks as if it had ended. `None`: all.
    pub(super) bytes: Option<usize>,
}

/// A listener with limits.
pub(super) struct Limited<L> {
    listener: L,
    places: Arc<Semaphore>,
    limits: Limits,
}

impl<L> Limited<L> {
    pub(super) fn new(listener: L, limits: Limits) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(limits.connections)), limits }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Placed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = loop {
            // It is never closed, so this happens once.
            if let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
                break place;
            }
        };
        let (stream, address) = self.listener.accept().await;
        let Limits { time, bytes, .. } = self.limits;
        (
            Placed { stream, end: time.map(Delay::new), over: false, left: bytes.unwrap_or(usize::MAX), _place: place },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place.
pub(super) struct Placed<S> {
    stream: S,
    /// When it is over.
    end: Option<Delay>,
    over: bool,
    /// Bytes that may still be read.
    left: usize,
    /// Given back with the connection's end.
    _place: OwnedSemaphorePermit,
}

impl<S> Placed<S> {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.over {
            return true;
        }
        self.over = self.end.as_mut().is_some_and(|end| end.poll_unpin(cx).is_ready());
        self.over
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
