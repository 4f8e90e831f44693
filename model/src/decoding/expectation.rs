//! The expected score: every score that can be written, weighted with its probability.
//!
//! All beginnings of label strings up to the score form a tree. One decoder pass over its nodes, in which a node sees
//! only its ancestors ("tree attention") and stands at its depth, gives the probabilities of all of them at once.

use tch::{Device, Kind, Tensor};

use super::finite;
use crate::grammar::Grammar;
use crate::labels::{MAX_STEP, Task};
use crate::t5::lowest;
use crate::unimse::{Encoded, UniMse};

/// The field of the score.
const SCORE: usize = 1;

/// How many attention scores of one head are held at once; larger batches run in pieces.
const SCORES_AT_ONCE: i64 = 1 << 24;

/// Holds the tree of all label beginnings that end with a score.
#[derive(Debug)]
pub(super) struct ScoreTree {
    /// `[1, N]`, the decoder input at each node; the first is the start token.
    inputs: Tensor,
    /// `[N, N]`, depth of the column's node less the row's.
    relative: Tensor,
    /// `[N, N]`, true where the column's node is not the row's or one of its ancestors.
    unseen: Tensor,
    /// `[A]`, the grammar's tokens.
    tokens: Tensor,
    /// `[N, A]`, true where a token may not follow a node.
    forbidden: Tensor,
    /// `[E]`, edges as node * A + place of the token.
    edges: Tensor,
    /// `[E, P]`, 1 where an edge lies on the path of a beginning.
    paths: Tensor,
    /// `[P]`, the score of each beginning.
    scores: Tensor,
}

struct Node {
    parent: usize,
    depth: i64,
    state: usize,
    token: i64,
    /// The edges from the root to here.
    path: Vec<usize>,
}

impl ScoreTree {
    pub(super) fn new(grammar: &Grammar, start_token: i64, device: Device) -> Self {
        let places = grammar.alphabet().len();
        let permitted = grammar.permitted(Some(Task::Sentiment));
        let after_score = grammar.root(SCORE + 1);
        let mut nodes =
            vec![Node { parent: 0, depth: 0, state: grammar.root(0), token: start_token, path: Vec::new() }];
        let mut edges: Vec<i64> = Vec::new();
        let mut beginnings: Vec<(Vec<usize>, f64)> = Vec::new();
        let mut open = 0;
        while open < nodes.len() {
            let (state, depth) = (nodes[open].state, nodes[open].depth);
            for &(_, place, target) in permitted.iter().filter(|(from, ..)| *from == state) {
                let mut path = nodes[open].path.clone();
                path.push(edges.len());
                edges.push((open * places + place) as i64);
                if target == after_score {
                    let (_, word) = grammar.follow(state, place).expect("permitted edges are edges of the grammar");
                    let word = word.expect("an edge to the next field completes a word");
                    beginnings.push((path, (word as i64 - MAX_STEP) as f64 / 10.0));
                } else {
                    let token = grammar.alphabet()[place];
                    nodes.push(Node { parent: open, depth: depth + 1, state: target, token, path });
                }
            }
            open += 1;
        }
        Self::assemble(grammar, &nodes, &edges, &beginnings, device)
    }

    fn assemble(
        grammar: &Grammar,
        nodes: &[Node],
        edges: &[i64],
        beginnings: &[(Vec<usize>, f64)],
        device: Device,
    ) -> Self {
        let (count, places) = (nodes.len(), grammar.alphabet().len());
        let mut relative = vec![0_i64; count * count];
        let mut unseen = vec![true; count * count];
        for (row, node) in nodes.iter().enumerate() {
            for (column, other) in nodes.iter().enumerate() {
                relative[row * count + column] = other.depth - node.depth;
            }
            let mut ancestor = row;
            loop {
                unseen[row * count + ancestor] = false;
                if ancestor == 0 {
                    break;
                }
                ancestor = nodes[ancestor].parent;
            }
        }
        let mut forbidden = vec![true; count * places];
        for &edge in edges {
            forbidden[edge as usize] = false;
        }
        let mut paths = vec![0_f32; edges.len() * beginnings.len()];
        for (column, (path, _)) in beginnings.iter().enumerate() {
            for &edge in path {
                paths[edge * beginnings.len() + column] = 1.0;
            }
        }
        let square = |tensor: Tensor| tensor.view([count as i64, count as i64]).to_device(device);
        let inputs: Vec<i64> = nodes.iter().map(|node| node.token).collect();
        let scores: Vec<f32> = beginnings.iter().map(|(_, score)| *score as f32).collect();
        Self {
            inputs: Tensor::from_slice(&inputs).unsqueeze(0).to_device(device),
            relative: square(Tensor::from_slice(&relative)),
            unseen: square(Tensor::from_slice(&unseen)),
            tokens: Tensor::from_slice(grammar.alphabet()).to_device(device),
            forbidden: Tensor::from_slice(&forbidden).view([count as i64, places as i64]).to_device(device),
            edges: Tensor::from_slice(edges).to_device(device),
            paths: Tensor::from_slice(&paths).view([edges.len() as i64, beginnings.len() as i64]).to_device(device),
            scores: Tensor::from_slice(&scores).to_device(device),
        }
    }

    /// Returns each sample's expected score.
    pub(super) fn expectations(&self, model: &UniMse, encoded: &Encoded) -> Vec<f64> {
        let nodes = self.inputs.size()[1];
        let at_once = (SCORES_AT_ONCE / (model.config().t5.num_heads * nodes * nodes)).max(1);
        let kind = encoded.states.kind();
        let self_bias = model.decoder().relative().at(&self.relative).masked_fill(&self.unseen, lowest(kind));
        let batch = encoded.states.size()[0];
        let mut expectations = Vec::with_capacity(batch as usize);
        let mut first = 0;
        while first < batch {
            let length = at_once.min(batch - first);
            let mean = self.probabilities(model, &encoded.narrow(first, length), &self_bias).matmul(&self.scores);
            let mut values = vec![0_f32; length as usize];
            mean.to_device(Device::Cpu).copy_data(&mut values, length as usize);
            expectations.extend(values.into_iter().map(f64::from));
            first += length;
        }
        expectations
    }

    /// Returns the probabilities `[B, P]` of all beginnings; each row adds up to 1.
    fn probabilities(&self, model: &UniMse, encoded: &Encoded, self_bias: &Tensor) -> Tensor {
        let batch = encoded.states.size()[0];
        let inputs = self.inputs.expand([batch, -1], false);
        let hidden = model.decode_with_bias(encoded, &inputs, self_bias, false).states;
        let scores = finite(&model.logits_of(&hidden, &self.tokens));
        let steps = scores.masked_fill(&self.forbidden, f64::NEG_INFINITY).log_softmax(-1, Kind::Float);
        let steps = steps.flatten(1, 2).index_select(1, &self.edges).clamp_min(f64::from(f32::MIN) / 1e6);
        steps.matmul(&self.paths).exp()
    }

    #[cfg(test)]
    pub(super) fn distribution(&self, model: &UniMse, encoded: &Encoded) -> (Vec<f64>, Vec<Vec<f32>>) {
        let self_bias = model.decoder().relative().at(&self.relative).masked_fill(&self.unseen, lowest(Kind::Float));
        let probabilities = self.probabilities(model, encoded, &self_bias);
        let rows = (0..probabilities.size()[0]).map(|row| Vec::try_from(probabilities.get(row)).unwrap()).collect();
        let scores: Vec<f32> = Vec::try_from(&self.scores).unwrap();
        (scores.into_iter().map(f64::from).collect(), rows)
    }
}
