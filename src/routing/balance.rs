//! Which endpoint of a version gets a request (semantics §2.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::Balance;

use super::Endpoint;

/// Chooses among the endpoints of a version; the turn outlives the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Balancer {
    pub(super) balance: Balance,
    pub(super) turn: Arc<AtomicUsize>,
}

/// How often a draw that fell on an endpoint already tried, or one that refused, is repeated. The table is compiled
/// anew without such endpoints within milliseconds, so that this is for the moment in between.
const REDRAWS: usize = 8;

impl Balancer {
    /// An endpoint that was not tried yet; if there is none, any. Nothing only when there are no endpoints.
    pub(super) fn pick<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        tried: impl Fn(&Endpoint) -> bool,
        mut random: impl FnMut() -> u64,
    ) -> Option<&'a Arc<Endpoint>> {
        let unfit = |endpoint: &Endpoint| endpoint.is_refused() || tried(endpoint);
        let mut picked = self.draw(endpoints, &mut random)?;
        for _ in 0..REDRAWS {
            if !unfit(picked) {
                return Some(picked);
            }
            picked = self.draw(endpoints, &mut random)?;
        }
        // Many are unfit: look at each once, from a random one on.
        let start = index(random(), endpoints.len());
        let (before, after) = endpoints.split_at(start);
        let in_order = || after.iter().chain(before);
        in_order()
            .find(|endpoint| !unfit(endpoint))
            .or_else(|| in_order().find(|endpoint| !tried(endpoint)))
            .or(Some(picked))
    }

    fn draw<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        random: impl FnOnce() -> u64,
    ) -> Option<&'a Arc<Endpoint>> {
        match (&self.balance, endpoints) {
            (_, []) => None,
            (_, [only]) => Some(only),
            (Balance::LeastRequest | Balance::PeakEwma | Balance::Hash(_), _) => {
                // Two choices from one word: 32 bits are plenty for either (Mitzenmacher, 2001).
                let random = random();
                let first = index(random << 32, endpoints.len());
                // The second among the others, so that the two differ.
                let second = index(random & !0xffff_ffff, endpoints.len() - 1);
                let second = if second >= first { second + 1 } else { second };
                let (a, b) = (endpoints.get(first)?, endpoints.get(second)?);
                Some(if b.in_flight() < a.in_flight() { b } else { a })
            }
            (Balance::RoundRobin, _) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                endpoints.get(turn % endpoints.len())
            }
        }
    }
}

/// A place from 0 to `len - 1`, all about as likely, from 64 random bits.
fn index(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointId, Protocol};
    use crate::routing::InFlight;

    fn endpoints(n: u16) -> Vec<Arc<Endpoint>> {
        let id = |i: u16| EndpointId { address: ([127, 0, 0, 1], 1 + i).into(), pod_uid: "".into() };
        (0..n).map(|i| Arc::new(Endpoint::new(id(i), None, Protocol::Http1))).collect()
    }

    fn counts(
        balance: Balance,
        endpoints: &[Arc<Endpoint>],
        tried: impl Fn(&Endpoint) -> bool,
    ) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(1);
        let balancer = Balancer { balance, turn: Arc::default() };
        let mut counts = vec![0; endpoints.len()];
        for _ in 0..30_000 {
            let picked = balancer.pick(endpoints, &tried, || rng.u64(..)).unwrap();
            counts[usize::from(picked.id.address.port()) - 1] += 1;
        }
        counts
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        for balance in [Balance::LeastRequest, Balance::RoundRobin] {
            for count in counts(balance.clone(), &endpoints(6), |_| false) {
                assert!((4_600..5_400).contains(&count), "{balance:?}: {count}");
            }
        }
    }

    #[test]
    fn least_request_prefers_the_less_busy() {
        let endpoints = endpoints(2);
        let _busy = InFlight::begin(&endpoints[0]);
        assert_eq!(counts(Balance::LeastRequest, &endpoints, |_| false), [0, 30_000]);
    }

    #[test]
    fn s2_2_a_refusing_endpoint_gets_nothing_while_another_does_not() {
        for balance in [Balance::LeastRequest, Balance::RoundRobin] {
            let endpoints = endpoints(50);
            endpoints.iter().skip(1).for_each(|e| assert!(e.refuse()));
            assert_eq!(counts(balance.clone(), &endpoints, |_| false)[0], 30_000);
            endpoints[0].refuse();
            assert!(counts(balance, &endpoints, |_| false).iter().all(|c| *c > 0), "rather any than none");
        }
    }

    #[test]
    fn one_that_was_tried_comes_last() {
        let endpoints = endpoints(3);
        let tried = |e: &Endpoint| e.id.address.port() != 3;
        assert_eq!(counts(Balance::LeastRequest, &endpoints, tried), [0, 0, 30_000]);
        endpoints[2].refuse();
        assert_eq!(
            counts(Balance::LeastRequest, &endpoints, tried),
            [0, 0, 30_000],
            "untried before not refused"
        );
        let nothing: [Arc<Endpoint>; 0] = [];
        assert!(Balancer::default().pick(&nothing, |_| false, || 0).is_none());
    }
}
