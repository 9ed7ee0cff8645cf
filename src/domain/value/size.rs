//! Sizes for people.

/// `bytes` in decimal units with at most two decimals, as image listings write them: `1.83MB`, `772MB`, `12B`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    // Three significant digits in whole numbers: the first unit and precision whose rounded value has no fourth digit.
    let mut scale: u128 = 1;
    for unit in UNITS {
        scale *= 1000;
        for (decimals, power) in [(2, 100), (1, 10), (0, 1)] {
            let value = (u128::from(bytes) * power + scale / 2) / scale;
            if value < 1000 {
                let fraction = format!(".{:0decimals$}", value % power);
                return format!("{}{}{unit}", value / power, if decimals == 0 { "" } else { &fraction });
            }
        }
    }
    format!("{}PB", u128::from(bytes) / scale)
}

#[cfg(test)]
mod tests {
    use super::human_size;

    #[test]
    fn sizes_read_as_in_image_listings() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (1_830_000, "1.83MB"),
            (12_345_678, "12.3MB"),
            (772_123_456, "772MB"),
            (999_999, "1.00MB"),
            (1_200_000_000, "1.20GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
