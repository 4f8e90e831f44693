//! Which sentence of a table belongs to which row of a pickle.

use std::collections::HashSet;

use crate::error::Problem;
use crate::import::Findings;
use crate::read::sentences::Sentences;

/// The sentence of each row, counted over all splits.
#[derive(Debug, Default)]
pub(super) struct Matching {
    of_row: Vec<Option<usize>>,
    /// Whether the order alone tells.
    pub(super) by_row: bool,
}

impl Matching {
    /// Matches by id, or by row if most ids are unknown and there are as many sentences as rows.
    pub(super) fn find(ids: &[Vec<Result<String, Problem>>], sentences: &Sentences, findings: &mut Findings) -> Self {
        let of_row: Vec<Option<usize>> = ids.iter().flatten().map(|id| sentences.find(id.as_deref().ok()?)).collect();
        let found = of_row.iter().flatten().count();
        let (rows, lines) = (of_row.len(), sentences.rows.len());
        if found * 2 >= rows || rows != lines {
            findings.note(format!("{found} of {rows} rows have their sentence by id in {}", sentences.file));
            return Self { of_row, by_row: false };
        }
        findings.note(format!("the ids of {found} of {rows} rows are in {}: matched by row", sentences.file));
        Self { of_row: (0..rows).map(Some).collect(), by_row: true }
    }

    pub(super) fn of(&self, row: usize) -> Option<usize> {
        self.of_row.get(row).copied().flatten()
    }

    /// The sentences that belong to no row.
    pub(super) fn unused(&self, sentences: &Sentences) -> impl Iterator<Item = usize> + use<> {
        let used: HashSet<usize> = self.of_row.iter().flatten().copied().collect();
        (0..sentences.rows.len()).filter(move |row| !used.contains(row))
    }
}
