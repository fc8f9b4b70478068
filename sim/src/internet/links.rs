//! What lies between sites: distance, chance, and what is cut.

use crate::engine::{Dice, Moment, SECOND};

/// A site's number: a home, a server's rack.
pub type SiteId = u32;

/// What fails together: a home with its uplink, or a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The provider it hangs on.
    pub isp: u16,
    /// Where on earth it is.
    pub region: u16,
    /// One way from the site to its provider, in nanoseconds.
    pub access: u64,
    /// Whether the uplink works.
    pub up: bool,
}

/// What the way does at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Packets that are lost, in a million.
    pub loss: u32,
    /// Of each ten seconds of a site, so many in a million are bad: half of the packets are lost.
    pub bursts: u32,
    /// Packets that are delayed by up to 50 ms more, so that others overtake them, in a million.
    pub reordered: u32,
    /// The mean of what is added to each packet's delay, in nanoseconds.
    pub jitter: u64,
    /// Packets that come twice, in a million.
    pub duplicated: u32,
}

/// All ways between sites.
#[derive(Clone, Debug, Default)]
pub struct Links {
    sites: Vec<Site>,
    /// One way between regions, in nanoseconds; a square, row by row.
    distances: Vec<u64>,
    regions: usize,
    /// Chance, everywhere alike.
    pub weather: Weather,
    /// Providers that are down.
    isps_down: Vec<u16>,
    /// Pairs of regions between which nothing gets, in this direction.
    cuts: Vec<(u16, u16)>,
    /// Pairs of sites between which nothing gets, in this direction.
    site_cuts: Vec<(SiteId, SiteId)>,
}

/// How long a burst of losses lasts.
const BURST: u64 = 10 * SECOND;
const OVERTAKEN: u64 = 50_000_000;

impl Links {
    /// Sets the distances between regions: one way, in nanoseconds, row by row.
    pub fn set_regions(&mut self, count: usize, distances: Vec<u64>) {
        assert_eq!(distances.len(), count * count, "a square of distances");
        (self.regions, self.distances) = (count, distances);
    }

    /// A site more.
    pub fn add(&mut self, site: Site) -> SiteId {
        self.sites.push(site);
        (self.sites.len() - 1) as SiteId
    }

    /// A site.
    pub fn site(&self, site: SiteId) -> &Site {
        &self.sites[site as usize]
    }

    /// Cuts or mends a site's uplink.
    pub fn set_up(&mut self, site: SiteId, up: bool) {
        self.sites[site as usize].up = up;
    }

    /// A provider fails, or is back.
    pub fn set_isp_up(&mut self, isp: u16, up: bool) {
        self.isps_down.retain(|down| *down != isp);
        if !up {
            self.isps_down.push(isp);
        }
    }

    /// Cuts the way from one region to another, this direction only.
    pub fn cut(&mut self, from: u16, to: u16) {
        self.cuts.push((from, to));
    }

    /// Cuts the way from one site to another, this direction only.
    pub fn cut_sites(&mut self, from: SiteId, to: SiteId) {
        self.site_cuts.push((from, to));
    }

    /// Mends one cut between regions.
    pub fn mend(&mut self, from: u16, to: u16) {
        self.cuts.retain(|cut| *cut != (from, to));
    }

    /// Mends one cut between sites.
    pub fn mend_sites(&mut self, from: SiteId, to: SiteId) {
        self.site_cuts.retain(|cut| *cut != (from, to));
    }

    /// One way between two sites, in nanoseconds.
    pub fn delay(&self, a: SiteId, b: SiteId) -> u64 {
        let (one, other) = (&self.sites[a as usize], &self.sites[b as usize]);
        let distance = self.distances.get(one.region as usize * self.regions + other.region as usize);
        one.access + other.access + distance.copied().unwrap_or(0)
    }

    /// Whether anything gets from one site to another at all.
    pub fn is_open(&self, from: SiteId, to: SiteId) -> bool {
        let (one, other) = (&self.sites[from as usize], &self.sites[to as usize]);
        one.up
            && other.up
            && !self.isps_down.iter().any(|down| *down == one.isp || *down == other.isp)
            && !self.cuts.contains(&(one.region, other.region))
            && !self.site_cuts.contains(&(from, to))
    }

    /// Whether a packet gets through, and what it takes longer.
    pub fn luck(&self, now: Moment, from: SiteId, to: SiteId, dice: &mut Dice) -> Option<u64> {
        if !self.is_open(from, to) {
            return None;
        }
        let weather = &self.weather;
        if dice.happens(weather.loss) || (self.is_stormy(now, from) && dice.happens(500_000)) {
            return None;
        }
        let overtaken = if dice.happens(weather.reordered) { dice.below(OVERTAKEN) } else { 0 };
        Some(overtaken + if weather.jitter == 0 { 0 } else { dice.tailed(weather.jitter) })
    }

    /// Whether packets come twice.
    pub fn comes_twice(&self, dice: &mut Dice) -> bool {
        dice.happens(self.weather.duplicated)
    }

    /// Bursts need no memory: each site's ten seconds are good or bad by their number.
    fn is_stormy(&self, now: Moment, site: SiteId) -> bool {
        if self.weather.bursts == 0 {
            return false;
        }
        let mut dice = Dice::new(now / BURST, site, crate::engine::Purpose::Links);
        dice.happens(self.weather.bursts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Purpose;

    fn links() -> Links {
        let mut links = Links::default();
        links.set_regions(2, vec![1, 10, 10, 2]);
        for (isp, region) in [(0, 0), (0, 1), (1, 1)] {
            links.add(Site { isp, region, access: 100, up: true });
        }
        links
    }

    #[test]
    fn distances_add_up() {
        let links = links();
        assert_eq!((links.delay(0, 1), links.delay(1, 2), links.delay(0, 0)), (210, 202, 201));
    }

    #[test]
    fn cuts_have_a_direction_and_heal() {
        let mut links = links();
        links.cut(0, 1);
        assert!(!links.is_open(0, 1));
        assert!(links.is_open(1, 0), "one way only");
        links.mend(0, 1);
        assert!(links.is_open(0, 1));
        links.set_isp_up(1, false);
        assert!(!links.is_open(0, 2) && !links.is_open(2, 0));
        assert!(links.is_open(0, 1), "another provider");
        links.set_isp_up(1, true);
        links.set_up(0, false);
        assert!(!links.is_open(0, 2));
        links.set_up(0, true);
        links.cut_sites(2, 0);
        assert!(links.is_open(0, 2) && !links.is_open(2, 0));
    }

    #[test]
    fn losses_come_as_often_as_said_and_in_bursts() {
        let mut links = links();
        let mut dice = Dice::new(1, 1, Purpose::Links);
        links.weather = Weather { loss: 100_000, ..Weather::default() };
        let lost = (0..10_000).filter(|_| links.luck(0, 0, 1, &mut dice).is_none()).count();
        assert!((900..1_100).contains(&lost), "{lost} of 10 000");
        links.weather = Weather { bursts: 100_000, ..Weather::default() };
        let bad = (0..1_000).filter(|burst| links.is_stormy(burst * BURST, 0)).count();
        assert!((70..130).contains(&bad), "{bad} of 1 000");
        let storm = (0..1_000).find(|burst| links.is_stormy(burst * BURST, 0)).unwrap() * BURST;
        let lost = (0..1_000).filter(|_| links.luck(storm, 0, 1, &mut dice).is_none()).count();
        assert!((400..600).contains(&lost), "{lost} of 1 000 in a burst");
    }
}
