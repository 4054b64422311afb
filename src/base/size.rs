//! Sizes for people.

const UNITS: [(&str, f64); 4] =
    [("TiB", (1u64 << 40) as f64), ("GiB", (1 << 30) as f64), ("MiB", (1 << 20) as f64), ("KiB", 1024.0)];

/// Bytes in the largest unit that they fill: `1.5 MiB`, `17 B`.
pub fn size_text(bytes: u64) -> String {
    let bytes = bytes as f64;
    let fills = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    fills.map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{:.1} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_they_fill() {
        let told = [0, 1023, 1024, 3 << 19, 5 << 30, 1 << 41].map(size_text);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB", "2.0 TiB"]);
    }
}
