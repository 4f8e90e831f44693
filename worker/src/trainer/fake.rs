//! A replica without libtorch: it counts, really adds up, and really saves, so that agents, generations and clusters can be
//! tried out anywhere.
//!
//! Its numbers are whole, so sums are exact and every world size gives the same bits. Labels of the job steer it:
//!
//! | label | meaning | default |
//! |---|---|---|
//! | `fake-samples` | training samples | 960 |
//! | `fake-step-ms` | duration of a step | 1 |
//! | `fake-bytes` | size of the state | 1024 |
//! | `fake-fail` | the step at which something goes wrong | never |
//! | `fake-fail-how` | `error`, `invalid`, `panic`, `memory`, `nan`, `hang` | `error` |
//! | `fake-fail-rank`, `fake-fail-generation` | where, and only in which generation | rank 0, any |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use unimse_checkpoint::{Dtype, Manifest, TensorSpec};
use unimse_collectives::Collective;
use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::shard::{Batch, DataOrder};

use super::{Copier, Description, Halt, Read, Replica, Sums, Surroundings, Update, failed, invalid};
use crate::protocol::Begin;

/// The tensors of the fake state.
const NAMES: [&str; 3] = ["fake.weight", "optimizer.exp_avg.fake.weight", "optimizer.exp_avg_sq.fake.weight"];

/// Counts instead of learning.
#[derive(Debug)]
pub struct Fake {
    begin: Begin,
    order: DataOrder,
    step_time: Duration,
    state: [Vec<f32>; 3],
    gradients: Vec<f32>,
    step: Step,
    generation: Generation,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Fault {
    step: Step,
    how: String,
    rank: Rank,
    generation: Option<Generation>,
}

/// Makes the replica for a job; fails if a label is no number.
pub fn make(begin: &Begin, _surroundings: &Surroundings) -> Result<Box<dyn Replica>, ExitCause> {
    let spec = &begin.spec;
    let label = |name: &str| spec.labels.get(name);
    let number = |name: &str| -> Result<Option<u64>, ExitCause> {
        let parse = |text: &String| text.parse().map_err(|_| invalid(format!("label {name}: `{text}` is no number")));
        label(name).map(parse).transpose()
    };
    let train = &spec.train;
    let samples = number("fake-samples")?.unwrap_or(960);
    let order = DataOrder::new(train.seed, samples, train.global_batch, train.micro_batch).map_err(invalid)?;
    let numbers = (number("fake-bytes")?.unwrap_or(1024) as usize / 12).max(1);
    let fault = number("fake-fail")?.map(|step| -> Result<Fault, ExitCause> {
        let how = label("fake-fail-how").cloned().unwrap_or_else(|| "error".to_owned());
        let rank = Rank(number("fake-fail-rank")?.unwrap_or(0) as u32);
        Ok(Fault { step: Step(step), how, rank, generation: number("fake-fail-generation")?.map(Generation) })
    });
    Ok(Box::new(Fake {
        begin: begin.clone(),
        order,
        step_time: Duration::from_millis(number("fake-step-ms")?.unwrap_or(1)),
        state: std::array::from_fn(|_| vec![0.0; numbers]),
        gradients: vec![0.0; numbers],
        step: Step(0),
        generation: Generation(0),
        fault: fault.transpose()?,
    }))
}

impl Fake {
    /// Fails as the labels want it.
    fn misbehave(&self, step: Step, rank: Rank) -> Result<(), Halt> {
        let Some(fault) = &self.fault else { return Ok(()) };
        let here = fault.step == step
            && fault.rank == rank
            && fault.generation.is_none_or(|generation| generation == self.generation);
        if !here {
            return Ok(());
        }
        let message = format!("told to fail at step {step}");
        match fault.how.as_str() {
            "invalid" => Err(invalid(message).into()),
            "memory" => Err(ExitCause::OutOfMemory { message }.into()),
            "panic" => panic!("{message}"),
            "nan" => Ok(()),
            "hang" => loop {
                std::thread::park();
            },
            _ => Err(failed(message).into()),
        }
    }
}

impl Replica for Fake {
    fn order(&self) -> DataOrder {
        self.order
    }

    fn description(&self) -> Description {
        Description {
            model: serde_json::json!({ "fake": true }),
            data: format!("{} made-up samples", self.order.len()),
            ..Description::default()
        }
    }

    fn adopt(&mut self, _description: &Description) -> Result<(), ExitCause> {
        Ok(())
    }

    fn join(&mut self, generation: Generation, group: Box<dyn Collective>) -> Result<Box<dyn Collective>, Halt> {
        self.generation = generation;
        Ok(group)
    }

    fn initialise(&mut self) -> Result<(), ExitCause> {
        self.step = Step(0);
        for numbers in &mut self.state {
            numbers.fill(0.0);
        }
        Ok(())
    }

    fn load(&mut self, manifest: &Manifest, read: &mut Read<'_>) -> Result<(), ExitCause> {
        let tensors = read(&|_| true)?;
        for (numbers, name) in self.state.iter_mut().zip(NAMES) {
            let tensor = tensors.get(name).ok_or_else(|| invalid(format!("the checkpoint has no tensor {name}")))?;
            if tensor.data.len() != numbers.len() * 4 {
                return Err(invalid(format!(
                    "tensor {name} has {} bytes, not {}",
                    tensor.data.len(),
                    numbers.len() * 4
                )));
            }
            for (number, bytes) in numbers.iter_mut().zip(tensor.data.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        self.step = manifest.step;
        Ok(())
    }

    fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt> {
        for numbers in &mut self.state {
            group.broadcast(root.0, numbers.as_mut_slice().into())?;
        }
        let mut step = self.step.0.to_le_bytes().to_vec();
        group.broadcast_bytes(root.0, &mut step)?;
        self.step = Step(u64::from_le_bytes(step.try_into().map_err(|_| failed("a step has eight bytes"))?));
        Ok(())
    }

    fn fingerprint(&mut self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for number in self.state.iter().flatten() {
            hasher.update(&number.to_le_bytes());
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }

    fn gradients(
        &mut self,
        step: Step,
        batch: &Batch,
        (rank, world): (Rank, u32),
        _group: &mut dyn Collective,
    ) -> Result<Sums, Halt> {
        self.misbehave(step, rank)?;
        let began = Instant::now();
        self.gradients.fill(0.0);
        let mut sums = Sums::default();
        for sample in batch.for_rank(rank, world).flat_map(|shard| shard.samples) {
            sums.samples += 1;
            sums.digest.add(*sample);
            for (place, gradient) in (0_u64..).zip(&mut self.gradients) {
                *gradient += ((sample * 31 + place * 7) % 17) as f32 - 8.0;
            }
        }
        let nan = self.fault.as_ref().is_some_and(|fault| fault.how == "nan" && fault.step == step);
        let share = sums.samples as f64 / batch.samples.len() as f64;
        sums.loss = if nan { f64::NAN } else { share / (1.0 + 0.01 * step.0 as f64) };
        sums.ce = sums.loss;
        std::thread::sleep(self.step_time.saturating_sub(began.elapsed()));
        sums.forward = began.elapsed();
        Ok(sums)
    }

    fn reduce(&mut self, _step: Step, _exactly: bool, group: &mut dyn Collective) -> Result<(), Halt> {
        Ok(group.all_reduce(self.gradients.as_mut_slice().into())?)
    }

    fn update(&mut self, step: Step, total: u64) -> Result<Update, ExitCause> {
        let [weights, averages, squares] = &mut self.state;
        for (((weight, average), square), gradient) in
            weights.iter_mut().zip(averages).zip(squares).zip(&self.gradients)
        {
            *weight = (*weight - gradient) % 1e6;
            *average = *gradient;
            *square = (*square + gradient.abs()) % 1e6;
        }
        self.step = step;
        let train = &self.begin.spec.train;
        let learning_rate = train.learning_rate * train.schedule.factor(step, total);
        let square: f64 = self.gradients.iter().map(|gradient| f64::from(*gradient).powi(2)).sum();
        Ok(Update { learning_rate, gradient_norm: square.sqrt() })
    }

    /// A score that rises with the steps and is best at a learning rate of 1e-3.
    fn evaluate(&mut self, group: &mut dyn Collective) -> Result<BTreeMap<String, f64>, Halt> {
        if self.begin.spec.data.valid.is_empty() {
            return Ok(BTreeMap::new());
        }
        group.barrier()?;
        let distance = (self.begin.spec.train.learning_rate.ln() - 1e-3_f64.ln()).abs();
        let score = (1.0 - (-(self.step.0 as f64) / 20.0).exp()) / (1.0 + distance);
        Ok([("valid/score".to_owned(), score), ("valid/mae".to_owned(), 1.0 - score)].into())
    }

    fn tensors(&self) -> Vec<(TensorSpec, Option<Rank>)> {
        let tensor = |name: &str| {
            let shape = vec![self.gradients.len()];
            (TensorSpec { name: name.to_owned(), dtype: Dtype::F32, shape }, None)
        };
        NAMES.map(tensor).to_vec()
    }

    fn copier(&self, places: &[usize]) -> Copier {
        let bytes = |&place: &usize| self.state[place].iter().flat_map(|number| number.to_le_bytes()).collect();
        let copies: Vec<Bytes> = places.iter().map(bytes).collect();
        Box::new(|| Ok(copies))
    }
}
