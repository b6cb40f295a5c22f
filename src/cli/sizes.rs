//! Sizes as people write and read them: binary units, one decimal.

const UNITS: [(&str, u32); 6] =
    [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// `1.5 GiB`; below 1 KiB `17 B`.
pub(super) fn format_bytes(bytes: u64) -> String {
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
            let value = bytes as f64 / (1_u64 << shift) as f64;
            return format!("{value:.1} {unit}");
        }
    }
    format!("{bytes} B")
}

/// A size argument: `4096`, `10GiB`, `1.5g`, `64 MiB`. Every unit is binary.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "p" | "pib" => 50,
        "kb" | "mb" | "gb" | "tb" | "pb" => return Err("units are binary: KiB, MiB, GiB, TiB".into()),
        other => return Err(format!("'{other}' is no unit; write KiB, MiB, GiB or TiB")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| format!("'{text}' is no size; write it like 10GiB"))?;
    let mut bytes = whole.checked_mul(1 << shift).ok_or("a size must be below 16 EiB")?;
    if !fraction.is_empty() {
        let digits = fraction.len().min(9);
        let value: u64 = fraction[..digits].parse().map_err(|_| format!("'{text}' is no size"))?;
        let part = (u128::from(value) << shift) / 10_u128.pow(u32::try_from(digits).unwrap_or(9));
        bytes = bytes
            .checked_add(u64::try_from(part).unwrap_or(u64::MAX))
            .ok_or("a size must be below 16 EiB")?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_binary_units() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), shown);
        }
    }

    #[test]
    fn size_arguments() {
        for (text, bytes) in [
            ("4096", 4096),
            ("10GiB", 10 << 30),
            ("10g", 10 << 30),
            ("1.5 MiB", 1536 << 10),
            ("0.25k", 256),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1GB", "-1", "1.x", "17 XiB", "99999999999TiB", "16777216TiB", "1..2"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
