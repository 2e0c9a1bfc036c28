//! Numbers in few characters.

/// A duration in at most five characters: `14ms`, `4.2s`, `2m10`, `2h10`, `3d04h`, `12d`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match seconds {
        _ if seconds < 0.001 => format!("{:.1}ms", seconds * 1000.0),
        _ if seconds < 0.9995 => format!("{:.0}ms", seconds * 1000.0),
        _ if seconds < 60.0 => format!("{seconds:.1}s"),
        _ if hours == 0 => format!("{minutes}m{:02}", whole % 60),
        _ if days == 0 => format!("{hours}h{:02}", minutes % 60),
        _ if days < 10 => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// A number of bytes in at most five characters: `512B`, `142M`.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 1000.0 {
            return format!("{value:.0}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0}P")
}

/// A rate in few characters: `0.2`, `51`, `412`, `12.3k`.
pub(super) fn rate(value: f64) -> String {
    match value {
        _ if value < 0.05 => "0".to_owned(),
        _ if value < 10.0 => format!("{value:.1}"),
        _ if value < 10_000.0 => format!("{value:.0}"),
        _ if value < 99_950.0 => format!("{:.1}k", value / 1000.0),
        _ => format!("{:.0}k", value / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_its_column() {
        let cases = [
            (0.0001, "0.1ms"),
            (0.0144, "14ms"),
            (0.9996, "1.0s"),
            (4.21, "4.2s"),
            (130.0, "2m10"),
            (7830.0, "2h10"),
            (273_600.0, "3d04h"),
            (864_000.0, "10d"),
            (8_640_000.0, "100d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!([512, 148_897_792, 1 << 40].map(bytes), ["512B", "142M", "1T"]);
        assert_eq!([0.0, 0.25, 51.2, 412.4, 12_345.0, 99_960.0].map(rate), ["0", "0.2", "51", "412", "12.3k", "100k"]);
    }
}
