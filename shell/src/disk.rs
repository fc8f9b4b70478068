//! The thread for the disk: whatever writes or reads files for a running node does so there, one after the other, and
//! nowhere else.
//!
//! It begins when there is something to do and ends when there is nothing more, so that a node at rest has none. Those who
//! use it are workers: each is called when it was woken, however often that was, and looks for itself what there is to
//! do. They take turns. When to wake them is the driver's business, which has the node's one timer.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// A thread that is there only while it is needed. Clones are the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// Something that is done on the thread, again and again. When this is dropped, it is done a last time.
pub(crate) struct Worker {
    disk: Disk,
    number: u64,
}

#[derive(Default)]
struct State {
    workers: BTreeMap<u64, Slot>,
    last: u64,
    /// Who was called last.
    turn: u64,
    runs: bool,
}

struct Slot {
    /// `None`: it is being called.
    work: Option<Box<dyn FnMut() -> bool + Send>>,
    due: bool,
    /// Nobody can wake it any more.
    left: bool,
}

impl Disk {
    /// Something that is to be done there, whenever it is woken, or when it says that there is more. What it holds is
    /// dropped there as well, after the last time.
    pub(crate) fn worker(&self, work: impl FnMut() -> bool + Send + 'static) -> Worker {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.workers.insert(number, Slot { work: Some(Box::new(work)), due: false, left: false });
        drop(state);
        Worker { disk: self.clone(), number }
    }

    fn wake(&self, number: u64, left: bool) {
        let mut state = self.lock();
        let Some(slot) = state.workers.get_mut(&number) else { return };
        slot.due = true;
        slot.left |= left;
        if std::mem::replace(&mut state.runs, true) {
            return;
        }
        drop(state);
        let disk = self.clone();
        if let Err(error) = thread::Builder::new().name("kinfolk-disk".into()).spawn(move || disk.run()) {
            // What waits has to be written: better late here than not at all.
            tracing::warn!(%error, "no thread for the disk");
            self.run();
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            let turn = state.turn;
            let due = |(number, slot): (&u64, &Slot)| slot.due.then_some(*number);
            let next = state.workers.range(turn + 1..).find_map(due).or_else(|| state.workers.iter().find_map(due));
            let Some(number) = next else {
                state.runs = false;
                return;
            };
            state.turn = number;
            let Some(slot) = state.workers.get_mut(&number) else { continue };
            slot.due = false;
            let (work, left) = (slot.work.take(), slot.left);
            drop(state);
            let Some(mut work) = work else { continue };
            // A panic was told where it happened. It ends this worker, and what waits for it learns that.
            let more = catch_unwind(AssertUnwindSafe(&mut work)).ok();
            let mut state = self.lock();
            match (more, state.workers.get_mut(&number)) {
                (Some(more), Some(slot)) if more || !left => {
                    slot.due |= more;
                    slot.work = Some(work);
                }
                _ => {
                    state.workers.remove(&number);
                    drop(state);
                    drop(work);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Has it called soon. Never waits.
    pub(crate) fn wake(&self) {
        self.disk.wake(self.number, false);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.disk.wake(self.number, true);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_worker_is_called_when_it_is_woken_and_once_more_at_its_end() {
        let disk = Disk::default();
        let (sender, calls) = channel();
        let worker = disk.worker(move || {
            sender.send(thread::current().id()).unwrap();
            false
        });
        assert!(calls.try_recv().is_err());
        worker.wake();
        assert_ne!(calls.recv().unwrap(), thread::current().id());
        drop(worker);
        assert_eq!(calls.iter().count(), 1, "the last call, and then what it held is dropped");
    }

    #[test]
    fn the_thread_is_gone_when_there_is_nothing_to_do() {
        let disk = Disk::default();
        let (sender, calls) = channel();
        let worker = disk.worker(move || {
            sender.send(()).unwrap();
            false
        });
        for _ in 0..100 {
            worker.wake();
            calls.recv().unwrap();
        }
        while disk.lock().runs {
            thread::yield_now();
        }
        drop(worker);
    }

    #[test]
    fn who_wakes_during_a_call_is_heard() {
        let disk = Disk::default();
        let ((go, wait), (sender, calls)) = (channel::<()>(), channel());
        let worker = disk.worker(move || {
            sender.send(()).unwrap();
            let _ = wait.recv();
            false
        });
        worker.wake();
        calls.recv().unwrap();
        worker.wake();
        go.send(()).unwrap();
        calls.recv().unwrap();
        drop(go);
    }

    #[test]
    fn a_worker_that_panics_takes_nobody_along() {
        let disk = Disk::default();
        let (sender, ended) = channel::<()>();
        let broken = disk.worker(move || {
            let _ = &sender;
            panic!("as a test");
        });
        broken.wake();
        assert!(ended.recv().is_err(), "what it held is dropped");
        let (sender, calls) = channel();
        let other = disk.worker(move || sender.send(()).is_err());
        other.wake();
        calls.recv().unwrap();
        broken.wake();
    }

    #[test]
    fn who_has_much_to_do_lets_others_in_between() {
        let disk = Disk::default();
        let (sender, calls) = channel();
        let (busy, other) = (sender.clone(), sender);
        let mut left = 100;
        let (_busy, other) = (
            disk.worker(move || {
                left -= 1;
                busy.send(left).is_ok() && left > 0
            }),
            disk.worker(move || other.send(1_000).is_err()),
        );
        _busy.wake();
        assert_eq!(calls.recv().unwrap(), 99);
        other.wake();
        let before: Vec<i32> = calls.iter().take_while(|call| *call != 1_000).collect();
        drop(other);
        assert!(before.len() < 100 || before.last() != Some(&0), "{before:?}");
    }
}
