//! Which version a request goes to.

use crate::hardware::cache::hash;

/// Where a request lies in [0, 1): the same for the same key and model, on every machine and in every release, as users who were shown a version
/// should stay with it.
pub(super) fn of_key(model: &str, key: &str) -> f64 {
    let h = hash(format!("{model}\n{key}").as_bytes());
    // FNV's upper bits know little of the last bytes. Source: A. Appleby's MurmurHash3, finaliser of 64 bits.
    let h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    unit(h ^ (h >> 33))
}

/// The same for requests without a key, in order: multiples of the golden ratio, so that shares are right within a few requests, whatever they
/// are. Source: H. Weyl, "Ueber die Gleichverteilung von Zahlen mod. Eins", 1916.
pub(super) fn of_count(count: u64) -> f64 {
    unit(count.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The version at a point, where each has its share of [0, 1), one after the other. A version at the end that gets more keeps what it had.
pub(super) fn choose(shares: &[(u64, f64)], point: f64) -> Option<u64> {
    let mut below = 0.0;
    let found = shares.iter().find(|(_, share)| {
        below += share;
        point < below
    });
    found.or(shares.iter().rfind(|(_, share)| *share > 0.0)).map(|(version, _)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(shares: &[(u64, f64)], points: impl Iterator<Item = f64>) -> [usize; 3] {
        let mut counts = [0; 3];
        points.for_each(|point| counts[choose(shares, point).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn keys_are_spread_as_the_shares_say_and_stay_where_they_are() {
        let keys: Vec<String> = (0..100_000).map(|i| format!("user-{i}")).collect();
        let points = || keys.iter().map(|key| of_key("m", key));
        let [zero, one, _] = counts(&[(0, 0.9), (1, 0.1)], points());
        assert!(zero + one == 100_000 && one.abs_diff(10_000) < 300, "{one} of 100000: 95 is one standard deviation");
        assert_eq!((of_key("m", "user-1") * (1u64 << 53) as f64) as u64, 0x1254a41dcd1ea8, "in every release");
        let moved = |key: &&String| {
            let point = of_key("m", key);
            choose(&[(0, 0.95), (1, 0.05)], point) == Some(1) && choose(&[(0, 0.75), (1, 0.25)], point) == Some(0)
        };
        assert_eq!(keys.iter().filter(moved).count(), 0, "who saw the new version goes on to see it when its share grows");
        let both = keys.iter().filter(|key| of_key("a", key) < 0.1 && of_key("b", key) < 0.1).count();
        assert!(both.abs_diff(1000) < 150, "models choose independently: {both}");
    }

    #[test]
    fn without_keys_shares_are_right_within_a_few_requests() {
        for share in [0.01, 0.1, 0.25, 0.5] {
            for requests in [100, 1000, 10_000] {
                let [_, one, _] = counts(&[(0, 1.0 - share), (1, share)], (0..requests).map(of_count));
                assert!((one as f64 - share * requests as f64).abs() <= 2.5, "{one} of {requests} for {share}");
            }
        }
    }

    #[test]
    fn rounding_leaves_no_request_without_a_version() {
        assert_eq!(choose(&[(1, 0.3), (2, 0.3), (3, 0.3)], 0.95), Some(3));
        assert_eq!(choose(&[(1, 0.9), (2, 0.0)], 0.95), Some(1), "and none with one that gets nothing");
        assert_eq!(choose(&[], 0.5), None);
    }
}
