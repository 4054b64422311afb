//! What each lane of a cluster knows to have happened, as vector clocks: of every actor (a warp, a barrier that copies complete
//! on, a warpgroup's products) the last moment that is ordered before now. A warp's moments are counted together, and what is
//! known of them is kept lane by lane only where lanes differ; lanes that know the same share it.

use std::rc::Rc;

use super::warp::lanes;

/// What is known of an actor: of all its lanes at least `all`; of each, where they differ.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    all: u32,
    each: Option<Box<[u32; 32]>>,
}

impl Row {
    fn covers(&self, other: &Row) -> bool {
        match (&self.each, &other.each) {
            (None, None) => self.all >= other.all,
            _ => (0..32).all(|l| self.lane(l) >= other.lane(l)),
        }
    }

    fn lane(&self, lane: usize) -> u32 {
        self.each.as_ref().map_or(self.all, |each| each[lane])
    }

    fn raise(&mut self, mask: u32, moment: u32) {
        let each = self.each.get_or_insert_with(|| Box::new([self.all; 32]));
        lanes(mask).for_each(|l| each[l] = each[l].max(moment));
        self.all = each.iter().copied().min().unwrap_or(0);
        if each.iter().all(|m| *m == self.all) {
            self.each = None;
        }
    }

    fn join(&mut self, other: &Row) {
        if self.covers(other) {
        } else if other.covers(self) {
            self.clone_from(other);
        } else {
            (0..32).for_each(|l| self.raise(1 << l, other.lane(l)));
        }
    }
}

/// Moments by actor; those beyond the end are 0.
#[derive(Clone, Debug, Default)]
pub struct Clock(Vec<Row>);

impl Clock {
    /// Whether the moment of these lanes of an actor is known.
    #[inline]
    pub fn has(&self, actor: usize, mask: u32, moment: u32) -> bool {
        let Some(row) = self.0.get(actor) else { return moment == 0 };
        row.all >= moment || row.each.as_ref().is_some_and(|each| lanes(mask).all(|l| each[l] >= moment))
    }

    pub fn raise(&mut self, actor: usize, mask: u32, moment: u32) {
        if self.0.len() <= actor {
            self.0.resize(actor + 1, Row::default());
        }
        let row = &mut self.0[actor];
        if mask != u32::MAX {
            row.raise(mask, moment);
        } else if row.each.is_some() || row.all < moment {
            if row.each.is_none() {
                row.all = moment;
            } else {
                row.raise(mask, moment);
            }
        }
    }

    fn covers(&self, other: &Clock) -> bool {
        let none = Row::default();
        other.0.iter().enumerate().all(|(i, row)| self.0.get(i).unwrap_or(&none).covers(row))
    }

    fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), Row::default());
        }
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| a.join(b));
    }
}

/// Joins a clock that is shared to another, and keeps sharing where one of them holds the other.
fn join(into: &mut Rc<Clock>, from: &Rc<Clock>) {
    if Rc::ptr_eq(into, from) || into.covers(from) {
    } else if from.covers(into) {
        *into = from.clone();
    } else {
        Rc::make_mut(into).join(from);
    }
}

/// What is passed on by a synchronisation.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    seen: Rc<Clock>,
    /// The part that a proxy fence has made visible to asynchronous accesses.
    proxied: Rc<Clock>,
    /// The part that stands before a fence of the device, which relaxed accesses pass on to other blocks.
    fenced: Rc<Clock>,
    /// What is known of other clusters, by their numbers.
    others: Rc<Others>,
}

type Others = Vec<(usize, Rc<Clock>)>;

/// Adds what is known of a cluster.
fn learn(others: &mut Rc<Others>, cluster: usize, clock: &Rc<Clock>) {
    match others.iter().position(|(c, _)| *c == cluster) {
        Some(at) if others[at].1.covers(clock) => {}
        Some(at) => join(&mut Rc::make_mut(others)[at].1, clock),
        None => Rc::make_mut(others).push((cluster, clock.clone())),
    }
}

impl Stamp {
    pub fn join(&mut self, other: &Stamp) {
        if !Rc::ptr_eq(&self.others, &other.others) {
            if self.others.is_empty() {
                self.others = other.others.clone();
            }
            other.others.iter().for_each(|(cluster, clock)| learn(&mut self.others, *cluster, clock));
        }
        join(&mut self.seen, &other.seen);
        join(&mut self.proxied, &other.proxied);
        join(&mut self.fenced, &other.fenced);
    }

    /// What a relaxed access passes on of it.
    pub fn only_fenced(mut self) -> Stamp {
        self.seen = self.fenced.clone();
        self
    }

    /// The actor's moment is seen.
    pub fn sees(&mut self, actor: usize, moment: u32) {
        if !self.seen.has(actor, u32::MAX, moment) {
            Rc::make_mut(&mut self.seen).raise(actor, u32::MAX, moment);
        }
    }

    /// Whether the moment of these lanes of an actor is seen.
    pub fn has(&self, actor: usize, mask: u32, moment: u32) -> bool {
        self.seen.has(actor, mask, moment)
    }

    fn same(&self, other: &Stamp) -> bool {
        let same = Rc::ptr_eq(&self.seen, &other.seen) && Rc::ptr_eq(&self.proxied, &other.proxied);
        let same = same && Rc::ptr_eq(&self.fenced, &other.fenced);
        same && (Rc::ptr_eq(&self.others, &other.others) || self.others.is_empty() && other.others.is_empty())
    }
}

/// A warp's moment, and what its lanes know of others.
#[derive(Clone, Debug)]
struct Knowledge {
    moment: u32,
    /// Lanes that there are; the others are taken for known.
    exists: u32,
    /// One for all, or one for each lane.
    stamps: Vec<Stamp>,
    /// Up to which moment each lane's own writes are visible to asynchronous accesses, and stand before a fence.
    proxied: [u32; 32],
    fenced: [u32; 32],
}

impl Knowledge {
    fn stamp(&self, lane: usize) -> &Stamp {
        if self.stamps.len() == 1 { &self.stamps[0] } else { &self.stamps[lane] }
    }

    /// Changes what the lanes know; those that know the same afterwards share it.
    fn change(&mut self, mask: u32, change: impl Fn(&mut Stamp)) {
        if mask & self.exists == self.exists && self.stamps.len() == 1 {
            return change(&mut self.stamps[0]);
        }
        if self.stamps.len() == 1 {
            self.stamps = vec![self.stamps[0].clone(); 32];
        }
        let mut last: Option<(Stamp, Stamp)> = None;
        for lane in lanes(mask) {
            let stamp = &mut self.stamps[lane];
            match &last {
                Some((before, after)) if before.same(stamp) => stamp.clone_from(after),
                _ => {
                    let before = stamp.clone();
                    change(stamp);
                    last = Some((before, stamp.clone()));
                }
            }
        }
        let mut existing = lanes(self.exists).map(|l| &self.stamps[l]);
        let first = existing.next().cloned().unwrap_or_default();
        if existing.all(|s| s.same(&first)) {
            self.stamps = vec![first];
        }
    }
}

/// What some lanes of a warp know, all of them the same.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub warp: usize,
    pub lanes: u32,
    pub moment: u32,
    seen: &'a Clock,
    proxied: &'a Clock,
    others: &'a Others,
    own_proxied: u32,
}

impl View<'_> {
    /// Lanes of an actor that are others than the viewer itself.
    #[inline]
    fn others(&self, actor: usize, mask: u32) -> u32 {
        if actor == self.warp && self.lanes & (self.lanes - 1) == 0 { mask & !self.lanes } else { mask }
    }

    #[inline]
    pub fn knows(&self, actor: usize, mask: u32, moment: u32) -> bool {
        let others = self.others(actor, mask);
        others == 0 || self.seen.has(actor, others, moment)
    }

    /// The same of a moment of lanes of a cluster's warp, by one of the cluster `own`.
    pub fn knows_of(&self, cluster: u32, own: u32, (warp, mask, moment): (usize, u32, u32)) -> bool {
        if cluster == own {
            return self.knows(warp, mask, moment);
        }
        self.others.iter().any(|(c, clock)| *c == cluster as usize && clock.has(warp, mask, moment))
    }

    /// Whether asynchronous accesses see it.
    pub fn proxied(&self, actor: usize, mask: u32, moment: u32) -> bool {
        let others = self.others(actor, mask);
        (others == mask || self.own_proxied >= moment) && (others == 0 || self.proxied.has(actor, others, moment))
    }
}

/// Raises the moments of a warp's lanes, most often the same of all.
fn raise_lanes(clock: &mut Rc<Clock>, warp: usize, (mask, all): (u32, bool), own: &[u32; 32]) {
    let first = own[mask.trailing_zeros() as usize];
    if !lanes(mask).all(|l| own[l] == first) {
        lanes(mask).for_each(|l| Rc::make_mut(clock).raise(warp, 1 << l, own[l]));
    } else if !clock.has(warp, mask, first) {
        Rc::make_mut(clock).raise(warp, if all { u32::MAX } else { mask }, first);
    }
}

/// The clocks of a cluster's warps.
#[derive(Clone, Debug)]
pub struct Clocks {
    warps: Vec<Knowledge>,
    actors: usize,
}

impl Clocks {
    /// Of warps that have these lanes.
    pub fn new(exists: &[u32]) -> Clocks {
        let one =
            |&exists: &u32| Knowledge { moment: 1, exists, stamps: vec![Stamp::default()], proxied: [0; 32], fenced: [0; 32] };
        Clocks { warps: exists.iter().map(one).collect(), actors: exists.len() }
    }

    /// Another actor.
    pub fn actor(&mut self) -> usize {
        self.actors += 1;
        self.actors - 1
    }

    /// Whether all lanes of the warp know the same.
    #[inline]
    pub fn alike(&self, warp: usize) -> bool {
        self.warps[warp].stamps.len() == 1
    }

    /// Whether two warps know the same, and each all of its lanes.
    pub fn same(&self, a: usize, b: usize) -> bool {
        self.alike(a) && self.alike(b) && self.warps[a].stamps[0].same(&self.warps[b].stamps[0])
    }

    /// The view of one lane, or of several that know the same.
    #[inline]
    pub fn view(&self, warp: usize, mask: u32) -> View<'_> {
        let of = &self.warps[warp];
        let first = mask.trailing_zeros() as usize;
        let stamp = of.stamp(first);
        let (seen, proxied, own_proxied) = (&stamp.seen, &stamp.proxied, of.proxied[first]);
        View { warp, lanes: mask, moment: of.moment, seen, proxied, others: &stamp.others, own_proxied }
    }

    /// The warp's moment.
    pub fn now(&self, warp: usize) -> u32 {
        self.warps[warp].moment
    }

    /// Adds to the stamp what the lanes know; what they do from here on is later.
    pub fn release(&mut self, warp: usize, mask: u32, into: &mut Stamp) {
        let of = &mut self.warps[warp];
        let (moment, all) = (of.moment, mask & of.exists == of.exists);
        let mut last: Option<&Stamp> = None;
        for lane in lanes(if of.stamps.len() == 1 { mask & mask.wrapping_neg() } else { mask }) {
            let stamp = of.stamp(lane);
            if !last.is_some_and(|l| l.same(stamp)) {
                into.join(stamp);
            }
            last = Some(stamp);
        }
        Rc::make_mut(&mut into.seen).raise(warp, if all { u32::MAX } else { mask }, moment);
        for (clock, own) in [(&mut into.proxied, &of.proxied), (&mut into.fenced, &of.fenced)] {
            raise_lanes(clock, warp, (mask, all), own);
        }
        of.moment += 1;
    }

    pub fn acquire(&mut self, warp: usize, mask: u32, from: &Stamp) {
        self.warps[warp].change(mask, |stamp| stamp.join(from));
    }

    /// As [`Clocks::acquire`], of what lanes of another cluster have released.
    pub fn acquire_of(&mut self, warp: usize, mask: u32, cluster: Option<usize>, from: &Stamp) {
        let Some(cluster) = cluster else { return self.acquire(warp, mask, from) };
        self.warps[warp].change(mask, |stamp| {
            from.others.iter().for_each(|(c, clock)| learn(&mut stamp.others, *c, clock));
            learn(&mut stamp.others, cluster, &from.seen);
        });
    }

    pub fn sees(&mut self, warp: usize, mask: u32, actor: usize, moment: u32) {
        self.warps[warp].change(mask, |stamp| stamp.sees(actor, moment));
    }

    /// All that the lanes know becomes visible to asynchronous accesses.
    pub fn fence_proxy(&mut self, warp: usize, mask: u32) {
        let of = &mut self.warps[warp];
        lanes(mask).for_each(|l| of.proxied[l] = of.moment);
        of.moment += 1;
        of.change(mask, |stamp| stamp.proxied = stamp.seen.clone());
    }

    /// All that the lanes know stands before a fence of the device.
    pub fn fence_device(&mut self, warp: usize, mask: u32) {
        let of = &mut self.warps[warp];
        lanes(mask).for_each(|l| of.fenced[l] = of.moment);
        of.moment += 1;
        of.change(mask, |stamp| stamp.fenced = stamp.seen.clone());
    }
}
