//! The grammar of label strings over a tokenizer's tokens.
//!
//! Each field is a trie of its words; the words of a field, scores included, are a closed set, so the trie is also the
//! number grammar. The last token of a word leads to the root of the next field, the last field's to the end. Targets
//! for training are built from the same segments ([`Grammar::target_ids`]), so what the model learns to write is
//! exactly what it may write.
//!
//! A segment is a word with what follows it: `sadness,` or, in the last field, `frustrated` and the end token. With
//! the separator inside no word can be the start of another one, and this is checked.

use std::collections::BTreeMap;

use crate::Error;
use crate::labels::{LabelSchema, Labels, Task};

/// The state at which every generation starts.
pub(crate) const START: usize = 0;

/// Accepts exactly the token sequences of label strings.
#[derive(Debug)]
pub struct Grammar {
    schema: LabelSchema,
    /// The tokens that occur in any segment, sorted; edges name them by place.
    alphabet: Vec<i64>,
    states: Vec<State>,
    end: usize,
    /// Per field and word: its tokens, by place in the alphabet.
    segments: Vec<Vec<Vec<usize>>>,
    /// The states in which the fields begin.
    roots: Vec<usize>,
    longest: usize,
}

#[derive(Debug, Default)]
struct State {
    edges: BTreeMap<usize, Edge>,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    target: usize,
    /// The word that this edge completes.
    word: Option<usize>,
}

impl Grammar {
    /// Builds the grammar with a tokenizer's `encode`, which gives the tokens of a text without special tokens, and its
    /// `end_token`.
    ///
    /// Fails if two words of a field cannot be told apart by their tokens.
    pub fn try_new(schema: &LabelSchema, end_token: i64, encode: impl Fn(&str) -> Vec<i64>) -> Result<Self, Error> {
        let last = schema.fields() - 1;
        let anchors: Vec<(String, Vec<i64>)> = schema
            .words(0)
            .iter()
            .map(|word| {
                let text = format!("{word},");
                let tokens = encode(&text);
                (text, tokens)
            })
            .collect();
        let tokens_of = |field: usize, word: &str| {
            let text = if field == last { word.to_owned() } else { format!("{word},") };
            let mut tokens = if field == 0 { encode(&text) } else { continuation(&anchors, &text, &encode) };
            if field == last {
                tokens.push(end_token);
            }
            tokens
        };
        let texts: Vec<Vec<String>> = (0..schema.fields()).map(|field| schema.words(field)).collect();
        let tokens: Vec<Vec<Vec<i64>>> = texts
            .iter()
            .enumerate()
            .map(|(field, words)| words.iter().map(|word| tokens_of(field, word)).collect())
            .collect();

        let mut alphabet: Vec<i64> = tokens.iter().flatten().flatten().copied().collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let place = |token: &i64| alphabet.binary_search(token).expect("the alphabet holds every segment's tokens");
        let segments: Vec<Vec<Vec<usize>>> =
            tokens.iter().map(|words| words.iter().map(|word| word.iter().map(place).collect()).collect()).collect();

        let mut grammar = Self {
            schema: schema.clone(),
            alphabet,
            states: vec![State::default()],
            end: 0,
            segments: Vec::new(),
            roots: vec![START],
            longest: 0,
        };
        for (field, words) in segments.iter().enumerate() {
            let root = grammar.roots[field];
            let next = grammar.add_state();
            for (word, segment) in words.iter().enumerate() {
                grammar.insert(root, next, word, segment).map_err(|()| Error::Grammar {
                    value: texts[field][word].clone(),
                    tokens: tokens[field][word].clone(),
                })?;
            }
            grammar.longest += words.iter().map(Vec::len).max().unwrap_or_default();
            grammar.roots.push(next);
            grammar.end = next;
        }
        grammar.segments = segments;
        Ok(grammar)
    }

    /// Returns the schema that the grammar was built from.
    pub fn schema(&self) -> &LabelSchema {
        &self.schema
    }

    /// Returns the tokens of the target for `labels`, the end token included: what the model is trained to write.
    pub fn target_ids(&self, labels: &Labels) -> Vec<i64> {
        let segment = |field: usize| &self.segments[field][self.schema.value(labels, field)];
        (0..self.schema.fields()).flat_map(segment).map(|&place| self.alphabet[place]).collect()
    }

    /// Reads tokens back as labels; `None` if they are not exactly one label string, the end token included. Tokens
    /// after the end are ignored.
    pub fn parse_ids(&self, ids: &[i64]) -> Option<Labels> {
        let mut state = START;
        let mut words = Vec::with_capacity(self.schema.fields());
        for id in ids {
            let edge = self.states[state].edges.get(&self.alphabet.binary_search(id).ok()?)?;
            words.extend(edge.word);
            state = edge.target;
            if state == self.end {
                return Some(self.schema.labels(&words));
            }
        }
        None
    }

    /// Returns the largest number of tokens of a target, the end token included.
    pub fn max_tokens(&self) -> usize {
        self.longest
    }

    /// Returns the tokens that can occur in a target, sorted.
    pub fn alphabet(&self) -> &[i64] {
        &self.alphabet
    }

    pub(crate) fn states(&self) -> usize {
        self.states.len()
    }

    /// The state after the last token.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Follows a token, by place, from a state.
    pub(crate) fn follow(&self, state: usize, place: usize) -> Option<(usize, Option<usize>)> {
        self.states[state].edges.get(&place).map(|edge| (edge.target, edge.word))
    }

    /// Returns the state before the first token of a field.
    pub(crate) fn root(&self, field: usize) -> usize {
        self.roots[field]
    }

    /// Returns all edges that lead to a permitted word, as (state, place of the token, next state); every word is
    /// permitted but `none` in the fields that `task` asks for.
    pub(crate) fn permitted(&self, task: Option<Task>) -> Vec<(usize, usize, usize)> {
        let required = task.map_or_else(Vec::new, Task::fields);
        let mut edges = Vec::new();
        for (field, words) in self.segments.iter().enumerate() {
            let allowed = if required.contains(&field) { words.len() - 1 } else { words.len() };
            for segment in &words[..allowed] {
                let mut state = self.roots[field];
                for &place in segment {
                    let target = self.states[state].edges[&place].target;
                    edges.push((state, place, target));
                    state = target;
                }
            }
        }
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn add_state(&mut self) -> usize {
        self.states.push(State::default());
        self.states.len() - 1
    }

    /// Adds a word's path from `root` to `next`. Fails if another word is equal, its start, or starts with it.
    fn insert(&mut self, root: usize, next: usize, word: usize, segment: &[usize]) -> Result<(), ()> {
        let (&last, path) = segment.split_last().ok_or(())?;
        let mut state = root;
        for &place in path {
            state = match self.states[state].edges.get(&place) {
                Some(Edge { word: Some(_), .. }) => return Err(()),
                Some(edge) => edge.target,
                None => {
                    let target = self.add_state();
                    self.states[state].edges.insert(place, Edge { target, word: None });
                    target
                }
            };
        }
        match self.states[state].edges.insert(last, Edge { target: next, word: Some(word) }) {
            Some(_) => Err(()),
            None => Ok(()),
        }
    }
}

/// Returns the tokens of `text` as they are in the middle of a string: what is left of the tokens of an anchor and the
/// text without those of the anchor. A tokenizer that merges across every anchor's comma encodes it by itself.
fn continuation(anchors: &[(String, Vec<i64>)], text: &str, encode: &impl Fn(&str) -> Vec<i64>) -> Vec<i64> {
    anchors
        .iter()
        .find_map(|(anchor, start)| {
            encode(&format!("{anchor}{text}")).strip_prefix(start.as_slice()).map(<[i64]>::to_vec)
        })
        .unwrap_or_else(|| encode(text))
}

#[cfg(test)]
pub(crate) mod tests;
