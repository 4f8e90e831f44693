//! Which part of the tuple is what: releases differ in how many there are.

use std::collections::{HashMap, HashSet};

use crate::error::Problem;
use crate::read::pickle::Value;

/// Which dataset a tuple is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Dialogues are named `Ses...`.
    Iemocap,
    /// Labels are class numbers, and it is not IEMOCAP.
    Meld,
    /// Labels are lists of scores: MOSEI.
    Scores,
}

type Dict<'d> = HashMap<String, Value<'d>>;

/// The parts of a tuple, by dialogue.
pub(super) struct Parts<'d> {
    pub(super) kind: Kind,
    pub(super) ids: Dict<'d>,
    pub(super) speakers: Dict<'d>,
    pub(super) labels: Dict<'d>,
    pub(super) audio: Option<Dict<'d>>,
    pub(super) visual: Option<Dict<'d>>,
    pub(super) sentences: Dict<'d>,
    /// The dialogues of train, valid and test.
    pub(super) splits: [Vec<String>; 3],
    /// Whether valid was cut off train.
    pub(super) dev_is_cut: bool,
}

/// Whether a pickle is such a tuple: five dicts by dialogue at least, and lists of dialogues.
pub(crate) fn is_tuple(root: Value<'_>) -> bool {
    let Some(items) = root.items() else { return false };
    let dicts = items.take_while(|item| item.entries().is_some()).count();
    dicts >= 5 && root.item(dicts).is_some_and(|item| names(item).is_ok())
}

impl<'d> Parts<'d> {
    pub(super) fn of(root: Value<'d>) -> Result<Self, Problem> {
        let items: Vec<Value<'d>> = root.items().map(Iterator::collect).unwrap_or_default();
        let dict_at = |index: usize| {
            let entries = items.get(index).and_then(|item| item.entries());
            let entries = entries.ok_or_else(|| Problem::new(format!("part {index} is not a dict by dialogue")))?;
            entries.map(|(key, value)| Ok((key.label()?, value))).collect::<Result<Dict<'d>, Problem>>()
        };
        let holds_sentences = |item: &Value<'d>| {
            let first = item.entries().and_then(|mut entries| entries.next()).and_then(|(_, value)| value.item(0));
            first.is_some_and(|first| sentence(first).is_ok())
        };
        let found = (3..items.len()).find(|index| holds_sentences(&items[*index]));
        let at = found.ok_or_else(|| Problem::new("none of the parts has sentences by dialogue"))?;
        // The vectors of text come first, in one or several versions, then sound, then sight.
        let (audio, visual) = match at - 3 {
            0 | 1 => (None, None),
            2 => (Some(4), None),
            _ => (Some(at - 2), Some(at - 1)),
        };
        let mut lists = Vec::new();
        for item in items[at + 1..].iter().take_while(|item| item.entries().is_none()) {
            lists.push(names(*item)?);
        }
        let dev_is_cut = lists.len() == 2;
        let splits = match <[Vec<String>; 3]>::try_from(lists) {
            Ok(splits) => splits,
            Err(lists) => {
                let [mut train, test] = <[Vec<String>; 2]>::try_from(lists)
                    .map_err(|lists| Problem::new(format!("{} lists of dialogues, expected 2 or 3", lists.len())))?;
                let rest = train.split_off(train.len() / 10);
                [rest, train, test]
            }
        };
        let labels = dict_at(2)?;
        Ok(Self {
            kind: kind_of(&labels),
            ids: dict_at(0)?,
            speakers: dict_at(1)?,
            labels,
            audio: audio.map(dict_at).transpose()?,
            visual: visual.map(dict_at).transpose()?,
            sentences: dict_at(at)?,
            splits,
            dev_is_cut,
        })
    }

    /// Dialogues that no split names.
    pub(super) fn homeless(&self) -> Vec<String> {
        let known: HashSet<&String> = self.splits.iter().flatten().collect();
        let mut homeless: Vec<String> = self.sentences.keys().filter(|name| !known.contains(name)).cloned().collect();
        homeless.sort();
        homeless
    }
}

fn kind_of(labels: &Dict<'_>) -> Kind {
    if labels.keys().any(|name| name.starts_with("Ses")) {
        return Kind::Iemocap;
    }
    let first = labels.values().find_map(|value| value.item(0));
    let is_list = first.is_some_and(|first| first.items().is_some() || first.numbers().is_ok_and(|n| n.is_some()));
    if is_list { Kind::Scores } else { Kind::Meld }
}

/// The names of dialogues in a list, a tuple, a set or an array; ids of utterances are the same.
pub(super) fn names(value: Value<'_>) -> Result<Vec<String>, Problem> {
    if let Some(items) = value.items() {
        return items.map(Value::label).collect();
    }
    let cells = value.cells()?;
    (0..cells.rows()).map(|row| Ok(cells.row(row)?.concat())).collect()
}

/// The items of a list; an array of plain numbers or strings is not one, its elements are no values.
pub(super) fn list<'d>(value: Value<'d>, what: &str) -> Result<Vec<Value<'d>>, Problem> {
    let items =
        value.items().ok_or_else(|| Problem::new(format!("{what}: expected a list, found {}", value.kind())))?;
    Ok(items.collect())
}

/// One number a turn: a class or a score; of a list of scores the first, which is the sentiment.
pub(super) fn numbers(value: Value<'_>) -> Result<Vec<Result<f64, Problem>>, Problem> {
    let Some(items) = value.items() else {
        let column = value.column()?;
        return Ok((0..column.len()).map(|row| column.number(row)).collect());
    };
    let number = |item: Value<'_>| match (item.item(0), item.numbers()?) {
        (Some(first), _) => first.number(),
        (None, Some(numbers)) => {
            let first = numbers.all()?.first().copied();
            first.map(f64::from).ok_or_else(|| Problem::new("the label is empty"))
        }
        (None, None) => item.number(),
    };
    Ok(items.map(number).collect())
}

/// A sentence, or its words.
pub(super) fn sentence(value: Value<'_>) -> Result<String, Problem> {
    match value.items() {
        Some(words) => Ok(words.map(Value::text).collect::<Result<Vec<_>, _>>()?.join(" ")),
        None => value.text(),
    }
}

/// The letter of a speaker, or the number of the one-hot vector.
pub(super) fn speaker(value: Value<'_>) -> Result<String, Problem> {
    let numbers = match (value.numbers()?, value.items()) {
        (Some(numbers), _) => numbers.all()?,
        (None, Some(items)) => items.map(|item| Ok(item.number()? as f32)).collect::<Result<_, Problem>>()?,
        (None, None) => return value.label(),
    };
    let hot = numbers.iter().position(|value| *value > 0.0);
    hot.map(|index| index.to_string()).ok_or_else(|| Problem::new("a speaker of nothing but zeros"))
}
