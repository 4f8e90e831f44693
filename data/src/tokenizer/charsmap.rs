//! Checks the table of replaced characters in a SentencePiece model or a `tokenizer.json` before anything follows its pointers.
//!
//! The table is a trie over bytes in one array (a double array), behind it the replacements as texts that end with a
//! zero byte. The `tokenizers` crate indexes both as the file tells it to, and panics or takes gigabytes where the
//! file lies.

/// Bits of a unit: whether a key ends here, and where the next bytes lie.
const LEAF: u32 = 1 << 8;
const FAR: u32 = 1 << 9;
/// What a leaf's unit holds besides the offset of its replacement.
const VALUE: u32 = (1 << 31) - 1;
/// The byte that leads to a unit; a leaf's own unit has the highest bit, which no byte has.
const LABEL: u32 = (1 << 31) | 0xff;

/// Unicode's longest has 33; a long one would be put in the place of each character of a text.
const LONGEST_REPLACEMENT: usize = 256;

/// Says what is wrong with a table; an empty one replaces nothing.
pub(super) fn check(charsmap: &[u8]) -> Result<(), String> {
    let Some((head, rest)) = charsmap.split_first_chunk::<4>() else {
        return Err(format!("it has {} bytes, too few for its own size", charsmap.len()));
    };
    let size = u32::from_le_bytes(*head) as usize;
    if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
        return Err(format!("its trie has {size} bytes, of {} that are there", rest.len()));
    }
    let (trie, replacements) = rest.split_at(size);
    let replacements = std::str::from_utf8(replacements).map_err(|error| {
        format!("its replacements are not UTF-8 at byte {} of {}", error.valid_up_to(), replacements.len())
    })?;
    let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    follow(&units, replacements)
}

/// Visits each unit that some text leads to.
fn follow(units: &[u32], replacements: &str) -> Result<(), String> {
    // Any byte of a text may come next, and the unit that it points to is looked at.
    let inside = |base: usize| match base | 0xff {
        last if last < units.len() => Ok(base),
        last => Err(format!("its trie points to unit {last}, of {} that are there", units.len())),
    };
    let mut seen = vec![false; units.len()];
    let mut open = vec![inside(offset(units[0]))?];
    while let Some(base) = open.pop() {
        for byte in 1..=0xff_usize {
            let at = base ^ byte;
            let unit = units[at];
            if unit & LABEL != byte as u32 || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let next = inside(at ^ offset(unit))?;
            if unit & LEAF != 0 {
                replacement(replacements, (units[next] & VALUE) as usize)?;
            }
            open.push(next);
        }
    }
    Ok(())
}

/// Checks that a leaf points to a replacement, and to no endless one.
fn replacement(all: &str, at: usize) -> Result<(), String> {
    let found = all.get(at..).ok_or_else(|| format!("it points to replacement {at}, of {} bytes", all.len()))?;
    let length = found.bytes().position(|byte| byte == 0).unwrap_or(found.len());
    if length > LONGEST_REPLACEMENT {
        return Err(format!("replacement {at} has {length} bytes, more than {LONGEST_REPLACEMENT}"));
    }
    Ok(())
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & FAR) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that replaces `a` by `b`.
    fn table() -> Vec<u32> {
        let mut units = vec![0_u32; 256];
        // The root's children are at 0 ^ byte; the leaf of `a` is at the unit of `a` ^ 1.
        units[usize::from(b'a')] = u32::from(b'a') | LEAF | (1 << 10);
        units[usize::from(b'a' ^ 1)] = 1 << 31;
        units
    }

    fn checked(units: &[u32], replacements: &[u8]) -> Result<(), String> {
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements);
        let outcome = check(&bytes);
        if outcome.is_ok() {
            let table = tokenizers::normalizers::Precompiled::from(&bytes).unwrap();
            for byte in 0..128_u8 {
                table.normalize_string(&format!("a{}b", char::from(byte)));
            }
        }
        outcome
    }

    #[test]
    fn a_sound_table_replaces() {
        assert_eq!(checked(&table(), b"b\0"), Ok(()));
    }

    #[test]
    fn a_table_that_lies_is_refused() {
        let fault = |bytes: &[u8]| check(bytes).unwrap_err();
        assert_eq!(fault(b"ab"), "it has 2 bytes, too few for its own size");
        assert_eq!(fault(b"\xfc\xff\xff\xffabcd"), "its trie has 4294967292 bytes, of 4 that are there");
        assert_eq!(fault(&[0; 8]), "its trie has 0 bytes, of 4 that are there");
        assert_eq!(checked(&table(), b"b\xff\0").unwrap_err(), "its replacements are not UTF-8 at byte 1 of 3");
        assert_eq!(checked(&table()[..200], b"b\0").unwrap_err(), "its trie points to unit 255, of 200 that are there");

        let mut beyond = table();
        beyond[usize::from(b'a' ^ 1)] = (1 << 31) | 0x4d;
        assert_eq!(checked(&beyond, b"b\0").unwrap_err(), "it points to replacement 77, of 2 bytes");
        beyond[usize::from(b'a' ^ 1)] = (1 << 31) | 1;
        assert_eq!(checked(&beyond, "é\0".as_bytes()).unwrap_err(), "it points to replacement 1, of 3 bytes");

        let long = "x".repeat(257);
        assert_eq!(checked(&table(), long.as_bytes()).unwrap_err(), "replacement 0 has 257 bytes, more than 256");

        let mut far = table();
        far[usize::from(b'a')] = u32::from(b'a') | (0xffff << 10) | FAR;
        assert!(checked(&far, b"b\0").unwrap_err().contains("its trie points to unit"), "far");
    }

    #[test]
    fn a_table_that_leads_in_a_circle_ends() {
        let mut circle = table();
        circle[usize::from(b'a')] = u32::from(b'a') | (u32::from(b'a') << 10);
        assert_eq!(checked(&circle, b"b\0"), Ok(()));
    }
}
