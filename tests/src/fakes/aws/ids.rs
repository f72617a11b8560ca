//! Names as AWS makes them.

/// `prefix` and 17 hexadecimal digits, such as `i-0123456789abcdef0`.
pub(super) fn resource(prefix: &str) -> String {
    format!("{prefix}0{:016x}", rand::random::<u64>())
}

/// A name that is the same in each run, of what is there from the start.
pub(super) fn fixed(prefix: &str, parts: &[&str]) -> String {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.join("/").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{prefix}0{hash:016x}")
}

/// A UUID.
pub(super) fn uuid() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    let (a, b, c) = (&hex[..8], &hex[8..12], &hex[13..16]);
    format!("{a}-{b}-4{c}-a{}-{}", &hex[17..20], &hex[20..])
}
