//! Hexadecimal digits, for ids that each request has.

/// The eight digits of the number, in lower case. All at once: a formatter, or a step for each digit, costs a multiple.
pub(crate) fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // Each half of a byte moves to a byte of its own.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & (ONES * 15);
    let is_letter = ((digits + ONES * 6) >> 4) & ONES;
    let letters = is_letter * u64::from(b'a' - 10 - b'0');
    (digits + ONES * u64::from(b'0') + letters).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_formatter() {
        for number in [0, 1, 0x9a, 0x0123_4567, 0x89ab_cdef, 0xf0f0_0f0f, u32::MAX] {
            assert_eq!(hex_digits(number), *format!("{number:08x}").as_bytes());
        }
    }
}
