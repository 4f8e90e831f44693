//! What a SentencePiece model file says: its pieces, how it was trained, how it normalises text.
//!
//! Only the fields that decide how a text is cut are kept; the numbers of fields are those of SentencePiece's
//! `ModelProto`.

use super::wire::{Fault, Field, Message};

/// T5's has 32,000, that of the multilingual T5 250,100.
const MOST_PIECES: usize = 1_000_000;
/// The trie of the vocabulary is as deep as its longest piece, and freed recursively. SentencePiece's trainer makes 16
/// characters at most.
const LONGEST_PIECE: usize = 512;
/// Bytes of all pieces together. The trie takes some 350 times as much where no two pieces begin alike; the multilingual
/// T5's have about 2 MB.
const ALL_PIECES: usize = 4 << 20;

/// A SentencePiece model file.
#[derive(Debug, Default)]
pub(super) struct Model<'b> {
    pub(super) pieces: Vec<Piece<'b>>,
    pub(super) trainer: Trainer,
    pub(super) normalizer: Normalizer<'b>,
}

/// A piece of text; its number is its place in the list.
#[derive(Debug)]
pub(super) struct Piece<'b> {
    pub(super) text: &'b str,
    pub(super) score: f32,
    pub(super) kind: Kind,
    /// Where it stands in the file.
    pub(super) place: usize,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text is cut into these, unused ones included, as transformers has it.
    Normal,
    /// Stands for what no piece has.
    Unknown,
    /// A mark such as `</s>`, left out when text is decoded.
    Control,
    /// Always a piece of its own wherever it stands in a text.
    UserDefined,
    /// One byte of what no piece has.
    Byte,
}

/// How the pieces were learned, as far as it matters later.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) model_type: u64,
    pub(super) space_behind: bool,
    pub(super) byte_fallback: bool,
}

/// How text is changed before it is cut.
#[derive(Debug)]
pub(super) struct Normalizer<'b> {
    pub(super) charsmap: &'b [u8],
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl Default for Trainer {
    fn default() -> Self {
        Self { model_type: 1, space_behind: false, byte_fallback: false }
    }
}

impl Default for Normalizer<'_> {
    fn default() -> Self {
        Self { charsmap: &[], add_dummy_prefix: true, remove_extra_whitespaces: true, escape_whitespaces: true }
    }
}

impl<'b> Model<'b> {
    pub(super) fn read(bytes: &'b [u8]) -> Result<Self, Fault> {
        let mut model = Self::default();
        let mut message = Message::new(bytes);
        let mut length = 0;
        while let Some(field) = message.next()? {
            match field.number {
                1 => {
                    let piece = Piece::read(field)?;
                    length += piece.text.len();
                    if model.pieces.len() == MOST_PIECES || length > ALL_PIECES {
                        let problem =
                            format!("there are more than {MOST_PIECES} pieces, or than {ALL_PIECES} bytes in them");
                        return Err(Fault::new(field.place, problem));
                    }
                    model.pieces.push(piece);
                }
                2 => model.trainer.read(field.message("trainer_spec")?)?,
                3 => model.normalizer.read(field.message("normalizer_spec")?)?,
                _ => {}
            }
        }
        Ok(model)
    }
}

impl<'b> Piece<'b> {
    fn read(field: Field<'b>) -> Result<Self, Fault> {
        let mut piece = Self { text: "", score: 0.0, kind: Kind::Normal, place: field.place };
        let mut message = field.message("a piece")?;
        while let Some(field) = message.next()? {
            match field.number {
                1 => piece.text = field.text("the text of a piece")?,
                2 => piece.score = field.float("the score of a piece")?,
                3 => piece.kind = Kind::read(field)?,
                _ => {}
            }
        }
        if piece.text.is_empty() {
            return Err(Fault::new(piece.place, "a piece has no text"));
        }
        if piece.text.len() > LONGEST_PIECE {
            let problem = format!("a piece has {} bytes, more than {LONGEST_PIECE}", piece.text.len());
            return Err(Fault::new(piece.place, problem));
        }
        if !piece.score.is_finite() {
            let problem = format!("the score of `{}` is {}, not a finite number", piece.text, piece.score);
            return Err(Fault::new(piece.place, problem));
        }
        Ok(piece)
    }
}

impl Kind {
    fn read(field: Field<'_>) -> Result<Self, Fault> {
        match field.number_of("the type of a piece")? {
            1 | 5 => Ok(Self::Normal),
            2 => Ok(Self::Unknown),
            3 => Ok(Self::Control),
            4 => Ok(Self::UserDefined),
            6 => Ok(Self::Byte),
            other => Err(Fault::new(field.place, format!("a piece is of type {other}, SentencePiece has 1 to 6"))),
        }
    }
}

impl Trainer {
    fn read(&mut self, mut message: Message<'_>) -> Result<(), Fault> {
        while let Some(field) = message.next()? {
            match field.number {
                3 => self.model_type = field.number_of("trainer_spec.model_type")?,
                24 => self.space_behind = field.flag("trainer_spec.treat_whitespace_as_suffix")?,
                35 => self.byte_fallback = field.flag("trainer_spec.byte_fallback")?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'b> Normalizer<'b> {
    fn read(&mut self, mut message: Message<'b>) -> Result<(), Fault> {
        while let Some(field) = message.next()? {
            match field.number {
                2 => self.charsmap = field.bytes("normalizer_spec.precompiled_charsmap")?,
                3 => self.add_dummy_prefix = field.flag("normalizer_spec.add_dummy_prefix")?,
                4 => self.remove_extra_whitespaces = field.flag("normalizer_spec.remove_extra_whitespaces")?,
                5 => self.escape_whitespaces = field.flag("normalizer_spec.escape_whitespaces")?,
                _ => {}
            }
        }
        Ok(())
    }
}
