//! Numbers and strings as protocols 0 and 1 write them: in words, a line each.

use super::fault::PickleFault;

/// Reads the line of an `INT` opcode, where `00` and `01` are the booleans.
pub(super) enum IntLine {
    Bool(bool),
    Int(i64),
}

pub(super) fn int_line(line: &[u8]) -> Result<IntLine, PickleFault> {
    match line {
        b"00" => Ok(IntLine::Bool(false)),
        b"01" => Ok(IntLine::Bool(true)),
        _ => integer(line).map(IntLine::Int),
    }
}

/// Reads a decimal integer; Python 2 ends long ones with `L`.
pub(super) fn integer(line: &[u8]) -> Result<i64, PickleFault> {
    let text = String::from_utf8_lossy(line);
    let digits = text.trim().trim_end_matches('L');
    digits.parse().map_err(|_| PickleFault::BadNumber(shorten(&text)))
}

pub(super) fn index(line: &[u8]) -> Result<u64, PickleFault> {
    let text = String::from_utf8_lossy(line);
    text.trim().parse().map_err(|_| PickleFault::BadNumber(shorten(&text)))
}

pub(super) fn float(line: &[u8]) -> Result<f64, PickleFault> {
    let text = String::from_utf8_lossy(line);
    text.trim().parse().map_err(|_| PickleFault::BadNumber(shorten(&text)))
}

/// Reads a little-endian two's complement integer of any length that fits into 64 bits.
pub(super) fn long(bytes: &[u8]) -> Result<i64, PickleFault> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let (low, rest) = bytes.split_at(bytes.len().min(8));
    let negative = bytes[bytes.len() - 1] & 0x80 != 0;
    let sign = if negative { 0xff } else { 0 };
    let mut padded = [sign; 8];
    padded[..low.len()].copy_from_slice(low);
    let value = i64::from_le_bytes(padded);
    if rest.iter().all(|byte| *byte == sign) && (value < 0) == negative {
        return Ok(value);
    }
    Err(PickleFault::BadNumber(format!("an integer of {} bytes", bytes.len())))
}

/// Reads a quoted Python 2 string with its escapes.
pub(super) fn quoted(line: &[u8]) -> Result<Vec<u8>, PickleFault> {
    let line = line.trim_ascii();
    let quote = *line.first().ok_or(PickleFault::BadText)?;
    if line.len() < 2 || !matches!(quote, b'\'' | b'"') || line.last() != Some(&quote) {
        return Err(PickleFault::BadText);
    }
    let mut rest = &line[1..line.len() - 1];
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, tail) = rest.split_first().ok_or(PickleFault::BadText)?;
        rest = tail;
        match escape {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'\\' | b'\'' | b'"' => bytes.push(escape),
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or(PickleFault::BadText)?;
                bytes.push(hex(digits)? as u8);
                rest = tail;
            }
            _ => return Err(PickleFault::BadText),
        }
    }
    Ok(bytes)
}

/// Reads a `raw-unicode-escape` string: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode(line: &[u8]) -> Result<String, PickleFault> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let width = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        let (digits, tail) = tail[1..].split_at_checked(width).ok_or(PickleFault::BadText)?;
        text.push(char::from_u32(hex(digits)?).ok_or(PickleFault::BadText)?);
        rest = tail;
    }
    Ok(text)
}

fn hex(digits: &[u8]) -> Result<u32, PickleFault> {
    let text = std::str::from_utf8(digits).map_err(|_| PickleFault::BadText)?;
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PickleFault::BadText);
    }
    u32::from_str_radix(text, 16).map_err(|_| PickleFault::BadText)
}

/// As much of a text as an error should repeat.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
