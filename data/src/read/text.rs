//! Text of the encodings that dataset releases come in.

/// What Windows-1252 has where Latin-1 has control characters; 0 where it has nothing.
const CP1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017d, 0, 0,
    0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0, 0x017e, 0x0178,
];

/// Decodes UTF-8, or else Windows-1252, which every byte string is.
///
/// Apostrophes of Windows-1252 (0x92) that were stored as the control character U+0092 are mended too: releases of MELD
/// have both kinds.
pub fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().any(|c| ('\u{80}'..='\u{9f}').contains(&c)) => text.chars().map(mend).collect(),
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| mend(char::from(*byte))).collect(),
    }
}

fn mend(c: char) -> char {
    let replacement = u32::from(c).checked_sub(0x80).and_then(|index| CP1252.get(index as usize));
    match replacement {
        Some(0) => char::REPLACEMENT_CHARACTER,
        Some(code) => char::from_u32(u32::from(*code)).unwrap_or(char::REPLACEMENT_CHARACTER),
        None => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_kept_as_it_is() {
        assert_eq!(decode("company’s café".as_bytes()), "company’s café");
    }

    #[test]
    fn apostrophes_of_windows_become_apostrophes() {
        assert_eq!(decode(b"company\x92s caf\xe9"), "company’s café");
        assert_eq!(decode("company\u{92}s".as_bytes()), "company’s");
    }

    #[test]
    fn bytes_that_mean_nothing_become_the_replacement_character() {
        assert_eq!(decode(b"a\x81b\xff"), "a\u{fffd}bÿ");
    }
}
