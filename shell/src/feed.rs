//! Bounded feeds from the driver to whoever listens: the newest items are kept, and how many were lost is told.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;

/// What a [`Feed`] yields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fed<T> {
    /// The next item.
    Item(T),
    /// This many items were lost here, because the feed was not read fast enough.
    Lost(u64),
}

/// The reading end. A stream that ends when the writing end is gone and everything was read.
///
/// The writer never waits: when the feed is full, the oldest item goes, and the reader is told how many went.
#[derive(Debug)]
pub struct Feed<T> {
    ring: Arc<Mutex<Ring<T>>>,
}

/// The writing end.
#[derive(Debug)]
pub struct Feeder<T> {
    ring: Weak<Mutex<Ring<T>>>,
}

#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<T>,
    limit: usize,
    lost: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// A feed that holds at most `limit` items.
pub fn feed<T>(limit: usize) -> (Feeder<T>, Feed<T>) {
    let ring = Ring { items: VecDeque::new(), limit, lost: 0, closed: false, waker: None };
    let ring = Arc::new(Mutex::new(ring));
    (Feeder { ring: Arc::downgrade(&ring) }, Feed { ring })
}

fn lock<T>(ring: &Mutex<Ring<T>>) -> MutexGuard<'_, Ring<T>> {
    // Nothing in here leaves the ring half changed.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Feeder<T> {
    /// Adds an item. `false`: nobody reads any more.
    pub fn feed(&self, item: T) -> bool {
        let Some(ring) = self.ring.upgrade() else { return false };
        let mut ring = lock(&ring);
        if ring.items.len() >= ring.limit {
            ring.items.pop_front();
            ring.lost += 1;
        }
        ring.items.push_back(item);
        let waker = ring.waker.take();
        drop(ring);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether somebody still reads.
    pub fn is_read(&self) -> bool {
        self.ring.strong_count() > 0
    }
}

impl<T> Drop for Feeder<T> {
    fn drop(&mut self) {
        let Some(ring) = self.ring.upgrade() else { return };
        let mut ring = lock(&ring);
        ring.closed = true;
        let waker = ring.waker.take();
        drop(ring);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Stream for Feed<T> {
    type Item = Fed<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut ring = lock(&self.ring);
        if ring.lost > 0 {
            let lost = std::mem::take(&mut ring.lost);
            return Poll::Ready(Some(Fed::Lost(lost)));
        }
        if let Some(item) = ring.items.pop_front() {
            return Poll::Ready(Some(Fed::Item(item)));
        }
        if ring.closed {
            return Poll::Ready(None);
        }
        ring.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, executor::block_on};

    use super::*;

    #[test]
    fn a_slow_reader_keeps_the_newest_and_hears_of_the_rest() {
        let (feeder, mut feed) = feed(3);
        for item in 0..10 {
            assert!(feeder.feed(item));
        }
        let mut next = || block_on(feed.next());
        assert_eq!(next(), Some(Fed::Lost(7)));
        assert_eq!([next(), next(), next()], [7, 8, 9].map(|item| Some(Fed::Item(item))));
        assert!(feeder.feed(10));
        assert_eq!(next(), Some(Fed::Item(10)));
        drop(feeder);
        assert_eq!(next(), None);
    }

    #[test]
    fn the_writer_learns_that_nobody_reads() {
        let (feeder, feed) = feed(3);
        assert!(feeder.is_read());
        drop(feed);
        assert!(!feeder.feed(1));
        assert!(!feeder.is_read());
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let (feeder, mut feed) = feed(3);
        assert_eq!(feed.next().now_or_never(), None);
        let reader = std::thread::spawn(move || block_on(feed.next()));
        feeder.feed("news");
        assert_eq!(reader.join().unwrap(), Some(Fed::Item("news")));
    }
}
