//! How likely it was that the canary got a request of the exact split, given what is known of others around it.
//!
//! `routing::split` deals in windows: each has exactly one canary request, at a uniformly random place; a request on the border
//! of two windows may be that of either, never of both. So what is known of one request says something of those near it, and
//! of no others: the test asks for the chance given all that it has looked at, in whatever order that was.
//!
//! Two numbers carry all that one window says to the next: whether its request was chosen by then (`b` in `routing::split`).
//! So the windows are a chain of two states, and what is known of a window (how much of it is known to be stable's, whether its
//! canary request is known, whose the request on its end was) is a matrix of two by two. The chance is that of the known with
//! this request as the canary's, divided by that of the known.
//!
//! Exact where the share was the same all the while. At a change of the weight, what is known on one side of it is not used on
//! the other.

use std::collections::BTreeMap;

/// How many windows with a bad request are remembered: requests end in another order than they began in.
const REMEMBERED: usize = 8_192;
/// How many windows are looked at before and after: what is known further away changes nothing. (A border hands on less than
/// an eighth of what it is told.)
const REACH: u64 = 8;
/// The numbers of windows go round at this.
const ROUND: i64 = 1 << 22;
/// A place on the border of two windows, give or take a rounding.
pub(super) const EPSILON: f64 = 1e-9;

/// The windows that had a bad request of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    known: BTreeMap<u64, Window>,
    /// The last number that was looked at, as if they did not go round.
    newest: u64,
    /// Windows up to this one were forgotten.
    horizon: u64,
}

/// What is known of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    share: f64,
    /// The sum of the shares of requests within it that are known to be stable's.
    stable: f64,
    /// Its canary request is known, and lies within it.
    canary: bool,
    /// Whose the request on its end is: the canary's?
    border: Option<bool>,
}

/// How the requests of one share lie in a window.
#[derive(Clone, Copy, Debug)]
struct Grid {
    share: f64,
    /// Where the first that lies within begins.
    first: f64,
    /// Where the one on the end begins; 1 where none does.
    last: f64,
}

impl Windows {
    /// The chance that this request was the canary's, given those that are known; nothing where it says nothing. From then
    /// on it is known too.
    pub(super) fn chance(&mut self, number: u32, before: f64, share: f64, canary: bool) -> Option<f64> {
        if !(share > EPSILON && share < 1.0 - EPSILON) {
            return None;
        }
        let number = self.unrolled(number);
        if number <= self.horizon {
            return None;
        }
        let known = self.known.get(&number).copied().unwrap_or(Window { share, ..Window::default() });
        if !same(known.share, share) {
            // The window in which the weight changed.
            return Some(share);
        }
        let grid = Grid::new(before, share);
        let on_border = before + share > 1.0 + EPSILON;
        let as_if = |canary| known.with(on_border, share, canary);
        let (left, right) = (self.states_before(number, grid), self.known_after(number, grid));
        let all = weigh(left, grid.through(&known), right);
        let chosen = weigh(left, grid.through(&as_if(true)), right);
        let told = !on_border || known.border.is_none();
        if told {
            self.remember(number, as_if(canary));
        }
        let chance = chosen / all;
        (told && chance > EPSILON && chance < 1.0 - EPSILON).then_some(chance)
    }

    /// The number as if they did not go round: the one nearest to the newest.
    fn unrolled(&mut self, number: u32) -> u64 {
        if self.newest == 0 {
            // Far enough from the beginning for all that began before.
            self.newest = (ROUND as u64) + u64::from(number);
            return self.newest;
        }
        let ahead = (i64::from(number) - (self.newest % ROUND as u64) as i64).rem_euclid(ROUND);
        let ahead = if ahead >= ROUND / 2 { ahead - ROUND } else { ahead };
        let number = self.newest.saturating_add_signed(ahead);
        self.newest = self.newest.max(number);
        number
    }

    fn remember(&mut self, number: u64, window: Window) {
        self.known.insert(number, window);
        if self.known.len() > REMEMBERED
            && let Some((oldest, _)) = self.known.pop_first()
        {
            self.horizon = oldest;
        }
    }

    /// How likely the two states are where this window begins, with all that is known of those before.
    fn states_before(&self, number: u64, grid: Grid) -> [f64; 2] {
        let begin = |grid: Grid| [1.0 - grid.first, grid.first];
        let from = number.saturating_sub(REACH);
        if grid.first == 0.0 || self.known.range(from..number).next().is_none() {
            return begin(grid);
        }
        let mut grids = Vec::with_capacity(REACH as usize);
        let mut at = grid;
        for number in (from..number).rev() {
            at = at.previous();
            grids.push((number, at));
            if at.first == 0.0 {
                break;
            }
        }
        grids.iter().rev().fold(begin(at), |[open, taken], (number, grid)| {
            let [from_open, from_taken] = grid.through(&self.at(*number, grid.share));
            let [a, b] = from_open;
            let [c, d] = from_taken;
            [open * a + taken * c, open * b + taken * d]
        })
    }

    /// How likely what is known of the windows after this one is, from each of the two states at its end.
    fn known_after(&self, number: u64, grid: Grid) -> [f64; 2] {
        let until = number + REACH;
        if grid.last == 1.0 || self.known.range(number + 1..=until).next().is_none() {
            return [1.0, 1.0];
        }
        let mut grids = Vec::with_capacity(REACH as usize);
        let mut at = grid;
        for number in number + 1..=until {
            at = at.next();
            grids.push((number, at));
            if at.last == 1.0 {
                break;
            }
        }
        grids.iter().rev().fold([1.0, 1.0], |[open, taken], (number, grid)| {
            grid.through(&self.at(*number, grid.share)).map(|[a, b]| a * open + b * taken)
        })
    }

    /// What is known of a window, at this share.
    fn at(&self, number: u64, share: f64) -> Window {
        let known = self.known.get(&number).copied().filter(|known| same(known.share, share));
        known.unwrap_or(Window { share, ..Window::default() })
    }
}

impl Window {
    /// The same with one more request known.
    fn with(mut self, on_border: bool, share: f64, canary: bool) -> Self {
        match (on_border, canary) {
            (true, _) => self.border = Some(canary),
            (false, true) => self.canary = true,
            (false, false) => self.stable += share,
        }
        self
    }
}

impl Grid {
    fn new(place: f64, share: f64) -> Self {
        let whole = |length: f64| (length / share + EPSILON / share).floor();
        let first = (place - whole(place) * share).max(0.0);
        let first = if first < EPSILON || share - first < EPSILON { 0.0 } else { first };
        let last = first + whole(1.0 - first) * share;
        Self { share, first, last: if 1.0 - last < EPSILON { 1.0 } else { last } }
    }

    fn next(self) -> Self {
        Self::new(if self.last == 1.0 { 0.0 } else { self.last + self.share - 1.0 }, self.share)
    }

    fn previous(self) -> Self {
        Self::new(if self.first == 0.0 { 1.0 } else { 1.0 + self.first - self.share }, self.share)
    }

    /// The chance of coming from each state (nothing chosen, chosen) to each at the end, together with what is known.
    fn through(self, known: &Window) -> [[f64; 2]; 2] {
        let Grid { share, first, last } = self;
        let aligned = last == 1.0;
        // What a window whose request was chosen before its end does on the border: that request may be the next window's.
        let ahead = if aligned { 0.0 } else { (last + share - 1.0) / last };
        let if_canary = |chance: f64| if known.border == Some(false) { 0.0 } else { chance };
        let if_stable = |chance: f64| if known.border == Some(true) { 0.0 } else { chance };
        let taken = |chance: f64| [chance * if_stable(1.0 - ahead), chance * if_canary(ahead)];
        let room = 1.0 - first;
        let (inside, border) = if known.canary {
            (share / room, 0.0)
        } else {
            (((last - first - known.stable) / room).max(0.0), (1.0 - last) / room)
        };
        let [open, then_taken] = taken(inside);
        [[open + if_canary(border), then_taken], taken(if known.canary { 0.0 } else { 1.0 })]
    }
}

fn weigh([open, taken]: [f64; 2], [from_open, from_taken]: [[f64; 2]; 2], after: [f64; 2]) -> f64 {
    let sum = |[a, b]: [f64; 2]| a * after[0] + b * after[1];
    open * sum(from_open) + taken * sum(from_taken)
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < EPSILON
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
