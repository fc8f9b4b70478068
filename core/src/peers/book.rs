use alloc::boxed::Box;

use smallvec::SmallVec;

use crate::{
    jitter::{self, Purpose},
    vocabulary::{Address, DialError, LifecycleConfig, Source, Time},
};

/// The addresses of one peer. Unproven ones never push out proven ones, and no source has more than its share.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Book {
    known: SmallVec<[Known; 3]>,
}

/// What is known of an address.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Known {
    pub(crate) address: Address,
    pub(crate) sources: Sources,
    /// When somebody last vouched for it.
    pub(crate) heard: Time,
    /// When a connection was last made there in this run; `Time::ZERO` for never.
    pub(crate) success: Time,
    /// A connection once stood there, in this run or an earlier one.
    pub(crate) proven: bool,
    /// When a connection was last made there in an earlier run, in seconds since 1970; 0 for never.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) success_before: u32,
    pub(crate) failures: u16,
    pub(crate) error: Option<Box<DialError>>,
    /// Not dialled before.
    pub(crate) retry_at: Time,
}

/// A set of sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Sources(u8);

/// What became of an address that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Nothing but that it still holds.
    Again,
    /// It was known, from somebody else.
    Known,
    /// It is known now.
    New,
    /// There is no room for it.
    Ignored,
}

impl Sources {
    pub(crate) const fn one(source: Source) -> Self {
        Self(1 << source as u8)
    }

    pub(crate) const fn contains(self, source: Source) -> bool {
        self.0 & Self::one(source).0 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn add(&mut self, source: Source) {
        self.0 |= Self::one(source).0;
    }

    const fn remove(&mut self, source: Source) {
        self.0 &= !Self::one(source).0;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }

    /// Said by people: believed and kept until they take it back.
    pub(crate) const fn by_hand(self) -> bool {
        self.contains(Source::Manual) || self.contains(Source::Configured)
    }

    /// Vouched for until the source itself takes it back.
    const fn is_lasting(self) -> bool {
        self.by_hand() || self.contains(Source::Mdns)
    }
}

impl Known {
    /// When it is dropped unless somebody vouches for it; `Time::MAX` for never.
    pub(crate) fn expires(&self, config: &LifecycleConfig) -> Time {
        if self.sources.is_lasting() {
            return Time::MAX;
        }
        self.heard.max(self.success) + config.address_ttl
    }

    pub(crate) fn succeeded(&mut self, now: Time) {
        self.success = now;
        self.proven = true;
        self.error = None;
        self.retry_at = now;
    }

    /// The connection that was made there stood for long enough: what failed before counts no more.
    pub(crate) fn lasted(&mut self, now: Time) {
        self.heard = now;
        self.failures = 0;
    }

    /// Counts a failure; the wait grows as base + n² steps, varied by a fifth.
    pub(crate) fn failed(&mut self, now: Time, error: DialError, config: &LifecycleConfig, seed: u64, key: u64) {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(Box::new(error));
        let n = u32::from(self.failures) - 1;
        let wait = config.backoff_base + config.backoff_step.saturating_mul(n.saturating_mul(n));
        let wait = wait.min(config.backoff_max);
        self.retry_at = now + jitter::vary(wait, jitter::draw(seed, Purpose::Backoff, key, u64::from(self.failures)));
    }
}

impl Book {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The addresses that lead through the same relay as this one; itself, if it is direct.
    pub(crate) fn like_mut<'a>(&'a mut self, address: &'a Address) -> impl Iterator<Item = &'a mut Known> {
        let relay = address.relay();
        self.known.iter_mut().filter(move |known| match relay {
            Some(_) => known.address.relay() == relay,
            None => known.address == *address,
        })
    }

    pub(crate) fn get_mut(&mut self, address: &Address) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.address == *address)
    }

    pub(crate) fn has_source(&self, source: Source) -> bool {
        self.known.iter().any(|known| known.sources.contains(source))
    }

    /// `source` says the peer is at `address`. `leads` says whether there is a way to an address from here.
    pub(crate) fn told(
        &mut self,
        source: Source,
        address: &Address,
        now: Time,
        config: &LifecycleConfig,
        leads: impl Fn(&Address, Sources) -> bool,
    ) -> Told {
        if let Some(known) = self.get_mut(address) {
            let again = known.sources.contains(source);
            known.sources.add(source);
            known.heard = now;
            return if again { Told::Again } else { Told::Known };
        }
        if !Sources::one(source).by_hand() {
            let unproven = |known: &Known| known.sources.contains(source) && !known.proven;
            if self.known.iter().filter(|known| unproven(known)).count() >= usize::from(config.max_unproven) {
                // Room for news only where an older word has turned out wrong, or leads nowhere from here.
                let spare = |known: &Known| known.failures > 0 || !leads(&known.address, known.sources);
                let useful = leads(address, Sources::one(source));
                let Some(worst) = self.worst(|known| unproven(known) && spare(known)).filter(|_| useful) else {
                    return Told::Ignored;
                };
                self.known.swap_remove(worst);
            }
        }
        if self.known.len() >= usize::from(config.max_addresses) {
            let Some(worst) = self.worst(|known| !known.proven && !known.sources.by_hand()) else {
                return Told::Ignored;
            };
            self.known.swap_remove(worst);
        }

        self.known.push(Known {
            address: address.clone(),
            sources: Sources::one(source),
            heard: now,
            success: Time::ZERO,
            proven: false,
            success_before: 0,
            failures: 0,
            error: None,
            retry_at: now,
        });
        Told::New
    }

    /// `source` no longer says so. What a connection has proven is kept for a while.
    pub(crate) fn untold(&mut self, source: Source, address: &Address) {
        if let Some(known) = self.get_mut(address) {
            known.sources.remove(source);
        }
        self.known.retain(|known| !known.sources.is_empty() || known.proven);
    }

    /// `source` says nothing any more but what is in `except`.
    pub(crate) fn untold_all(&mut self, source: Source, except: &[Address]) {
        for known in &mut self.known {
            if !except.contains(&known.address) {
                known.sources.remove(source);
            }
        }
        self.known.retain(|known| !known.sources.is_empty() || known.proven);
    }

    pub(crate) fn remove(&mut self, address: &Address) {
        self.known.retain(|known| known.address != *address);
    }

    /// Drops what is too old, unless `keep` says otherwise.
    pub(crate) fn expire(&mut self, now: Time, config: &LifecycleConfig, keep: impl Fn(&Known) -> bool) {
        self.known.retain(|known| known.expires(config) > now || keep(known));
    }

    /// Failures count no more: things are different now.
    pub(crate) fn forgive(&mut self, now: Time) {
        self.override_waits(now);
        self.known.iter_mut().for_each(|known| known.failures = 0);
    }

    /// Whatever failed, it is tried again by then.
    pub(crate) fn wait_at_most(&mut self, until: Time) {
        self.known.iter_mut().for_each(|known| known.retry_at = known.retry_at.min(until));
    }

    /// One more try at once; the failures still count.
    pub(crate) fn override_waits(&mut self, now: Time) {
        self.known.iter_mut().for_each(|known| known.retry_at = known.retry_at.min(now));
    }

    /// The least useful one: most failures, then longest unheard.
    fn worst(&self, among: impl Fn(&Known) -> bool) -> Option<usize> {
        let candidates = self.known.iter().enumerate().filter(|(_, known)| among(known));
        candidates.min_by_key(|(_, known)| (core::cmp::Reverse(known.failures), known.heard)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use core::time::Duration;

    use super::*;

    fn address(port: u16) -> Address {
        format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_source_has_no_more_than_its_share_and_never_pushes_out_what_is_proven() {
        let config = LifecycleConfig { max_unproven: 3, max_addresses: 5, ..LifecycleConfig::default() };
        let mut book = Book::default();
        let told =
            |book: &mut Book, source, port| book.told(source, &address(port), Time::from_secs(1), &config, |_, _| true);
        assert_eq!(told(&mut book, Source::Kademlia, 1), Told::New);
        book.get_mut(&address(1)).unwrap().succeeded(Time::from_secs(2));
        for port in 2..5 {
            assert_eq!(told(&mut book, Source::Kademlia, port), Told::New);
        }
        assert_eq!(told(&mut book, Source::Kademlia, 5), Told::Ignored);
        assert_eq!(told(&mut book, Source::Kademlia, 1), Told::Again);
        assert_eq!(told(&mut book, Source::Identify, 1), Told::Known);

        book.get_mut(&address(3)).unwrap().failed(Time::from_secs(2), DialError::TimedOut, &config, 1, 1);
        assert_eq!(told(&mut book, Source::Kademlia, 5), Told::New);
        assert!(book.get_mut(&address(3)).is_none());

        assert_eq!(told(&mut book, Source::Manual, 6), Told::New);
        assert_eq!(told(&mut book, Source::Manual, 7), Told::New, "an unproven one gives way");
        assert_eq!(book.iter().count(), 5);
        assert!(book.get_mut(&address(1)).is_some());
    }

    #[test]
    fn what_leads_nowhere_from_here_makes_room_for_what_does() {
        let config = LifecycleConfig { max_unproven: 2, ..LifecycleConfig::default() };
        let mut book = Book::default();
        let leads = |address: &Address, _: Sources| address.port() > Some(2);
        let mut told = |port| book.told(Source::Kademlia, &address(port), Time::ZERO, &config, leads);
        assert_eq!((told(1), told(2)), (Told::New, Told::New), "kept while there is room: that may change");
        assert_eq!((told(3), told(4), told(5), told(1)), (Told::New, Told::New, Told::Ignored, Told::Ignored));
    }

    #[test]
    fn waits_grow_with_the_square_of_failures_up_to_a_bound() {
        let config = LifecycleConfig::default();
        let mut book = Book::default();
        book.told(Source::Manual, &address(1), Time::ZERO, &config, |_, _| true);
        let known = book.get_mut(&address(1)).unwrap();
        let mut waits = [Duration::ZERO; 20];
        for wait in &mut waits {
            known.failed(Time::ZERO, DialError::TimedOut, &config, 7, 7);
            *wait = known.retry_at.since(Time::ZERO);
        }
        assert!((4..=6).contains(&waits[0].as_secs()), "{waits:?}");
        assert!((7..=11).contains(&waits[2].as_secs()), "{waits:?}");
        assert!(waits[19] <= Duration::from_secs(360) && waits[19] >= Duration::from_secs(240), "{waits:?}");
    }

    #[test]
    fn what_nobody_vouches_for_goes_unless_it_is_proven() {
        let config = LifecycleConfig::default();
        let mut book = Book::default();
        book.told(Source::Mdns, &address(1), Time::ZERO, &config, |_, _| true);
        book.told(Source::Mdns, &address(2), Time::ZERO, &config, |_, _| true);
        book.get_mut(&address(2)).unwrap().succeeded(Time::ZERO);
        book.untold(Source::Mdns, &address(1));
        book.untold(Source::Mdns, &address(2));
        assert!(book.iter().map(|known| &known.address).eq([&address(2)]));
        book.expire(Time::ZERO + config.address_ttl, &config, |_| false);
        assert!(book.is_empty());
    }
}
