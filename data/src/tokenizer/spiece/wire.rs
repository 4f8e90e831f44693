//! The wire format of protocol buffers, as much of it as reading a file from a stranger needs.
//!
//! Nothing is copied and no length is believed before it is compared with the bytes that are there. A fault names its
//! place in the file, which a generated decoder would not.

/// What is wrong with a file, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: usize,
    pub(super) problem: String,
}

impl Fault {
    pub(super) fn new(place: usize, problem: impl Into<String>) -> Self {
        Self { place, problem: problem.into() }
    }
}

/// The fields of one message, in the order of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'b> {
    bytes: &'b [u8],
    /// Where the message begins in the file.
    start: usize,
    /// How much of it has been read.
    at: usize,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'b> {
    pub(super) number: u64,
    /// Where its tag stands in the file.
    pub(super) place: usize,
    value: Value<'b>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'b> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(Message<'b>),
}

impl<'b> Message<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, start: 0, at: 0 }
    }

    /// The next field; none at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<Field<'b>>, Fault> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let place = self.start + self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let start = self.start + self.at;
                Value::Bytes(Message { bytes: self.take(length)?, start, at: 0 })
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(bytes.try_into().map_or(0, u32::from_le_bytes))
            }
            other => return Err(Fault::new(place, format!("wire type {other} is not of a protocol buffer of today"))),
        };
        match tag >> 3 {
            0 => Err(Fault::new(place, "a field has the number 0, which protocol buffers do not have")),
            number => Ok(Some(Field { number, place, value })),
        }
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let place = self.start + self.at;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::new(place, "a number has more than ten bytes"))
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], Fault> {
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(length).ok().filter(|length| *length <= left).ok_or_else(|| {
            Fault::new(self.start + self.at, format!("{length} bytes are announced and {left} are left: it is cut off"))
        })?;
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }
}

impl<'b> Field<'b> {
    pub(super) fn number_of(&self, name: &str) -> Result<u64, Fault> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.other_kind(name, "a number")),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.number_of(name)? != 0)
    }

    pub(super) fn float(&self, name: &str) -> Result<f32, Fault> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.other_kind(name, "a float")),
        }
    }

    pub(super) fn message(&self, name: &str) -> Result<Message<'b>, Fault> {
        match self.value {
            Value::Bytes(message) => Ok(message),
            _ => Err(self.other_kind(name, "a message")),
        }
    }

    pub(super) fn bytes(&self, name: &str) -> Result<&'b [u8], Fault> {
        match self.value {
            Value::Bytes(message) => Ok(message.bytes),
            _ => Err(self.other_kind(name, "bytes")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'b str, Fault> {
        let bytes = self.bytes(name)?;
        std::str::from_utf8(bytes).map_err(|_| Fault::new(self.place, format!("{name} is not UTF-8")))
    }

    fn other_kind(&self, name: &str, expected: &str) -> Fault {
        let found = match self.value {
            Value::Varint(_) => "a number",
            Value::Fixed32(_) => "four bytes",
            Value::Fixed64 => "eight bytes",
            Value::Bytes(_) => "bytes",
        };
        Fault::new(self.place, format!("{name} is {found}, SentencePiece writes {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> String {
        let mut message = Message::new(bytes);
        loop {
            match message.next() {
                Ok(Some(_)) => {}
                Ok(None) => return String::new(),
                Err(fault) => return format!("{}: {}", fault.place, fault.problem),
            }
        }
    }

    #[test]
    fn fields_are_read_in_order_and_unknown_ones_are_for_the_caller_to_skip() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut message = Message::new(&bytes);
        let number = message.next().unwrap().unwrap();
        assert_eq!((number.number, number.place, number.number_of("n").unwrap()), (1, 0, 150));
        let text = message.next().unwrap().unwrap();
        assert_eq!((text.number, text.place, text.text("t").unwrap()), (2, 3, "hi"));
        assert_eq!(message.next().unwrap().unwrap().float("f").unwrap(), 1.0);
        assert_eq!(message.next().unwrap().unwrap().number, 4);
        assert!(message.next().unwrap().is_none());
        assert_eq!(text.float("score").unwrap_err().problem, "score is bytes, SentencePiece writes a float");
    }

    #[test]
    fn faults_name_the_byte() {
        assert_eq!(fault(&[0x08, 1, 0x12, 9, b'h']), "4: 9 bytes are announced and 1 are left: it is cut off");
        assert_eq!(fault(&[0x08]), "1: 1 bytes are announced and 0 are left: it is cut off");
        assert_eq!(fault(&[0x0b]), "0: wire type 3 is not of a protocol buffer of today");
        assert_eq!(fault(&[0x00, 0x00]), "0: a field has the number 0, which protocol buffers do not have");
        let mut endless = vec![0x08];
        endless.extend([0xff; 12]);
        assert_eq!(fault(&endless), "1: a number has more than ten bytes");
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(fault(&huge).contains("18446744073709551615 bytes are announced and 0 are left"), "{}", fault(&huge));
    }
}
