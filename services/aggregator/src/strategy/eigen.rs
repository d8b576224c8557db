//! Eigenvectors of symmetric matrices, in memory that is taken once.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, MatMut, MatRef, Par};

/// What one thread takes matrices apart in.
#[derive(Default)]
pub(super) struct Eigen {
    vectors: Vec<f64>,
    scratch: Option<MemBuffer>,
    room: usize,
}

impl Eigen {
    /// Takes memory for matrices of this size, for good.
    pub(super) fn reserve(&mut self, size: usize) {
        if size <= self.room {
            return;
        }
        touch(&mut self.vectors, size * size);
        let wanted = self_adjoint_evd_scratch::<f64>(
            size,
            ComputeEigenvectors::Yes,
            Par::Seq,
            Default::default(),
        );
        let mut scratch = MemBuffer::new(wanted);
        scratch.fill(std::mem::MaybeUninit::new(1));
        self.scratch = Some(scratch);
        self.room = size;
    }

    /// Eigenvalues and -vectors, largest first, at most `keep`; only the lower triangle is read. `None` if
    /// they do not converge.
    pub(super) fn leading(
        &mut self,
        matrix: MatRef<'_, f64>,
        keep: usize,
    ) -> Option<(Vec<f64>, Mat<f64>)> {
        let size = matrix.nrows();
        let (values, vectors) = self.decomposed(matrix)?;
        let kept = keep.min(size);
        let found: Vec<f64> = (0..kept)
            .map(|j| values.column_vector()[size - 1 - j])
            .collect();
        let vectors = Mat::from_fn(size, kept, |row, j| vectors[(row, size - 1 - j)]);
        let finite = found.iter().all(|value| value.is_finite());
        finite.then_some((found, vectors))
    }

    /// All eigenvectors, in this memory, in columns, in no order that counts; only the lower triangle is read. `None` if they
    /// do not converge.
    pub(super) fn vectors(&mut self, matrix: MatRef<'_, f64>) -> Option<MatRef<'_, f64>> {
        let (values, vectors) = self.decomposed(matrix)?;
        let mut values = values.column_vector().iter();
        values.all(|value| value.is_finite()).then_some(vectors)
    }

    /// Eigenvalues and -vectors, smallest first.
    fn decomposed(&mut self, matrix: MatRef<'_, f64>) -> Option<(Diag<f64>, MatRef<'_, f64>)> {
        let size = matrix.nrows();
        self.reserve(size);
        let mut values = Diag::<f64>::zeros(size);
        let vectors = self.vectors.get_mut(..size * size)?;
        self_adjoint_evd(
            matrix,
            values.as_mut(),
            Some(MatMut::from_column_major_slice_mut(vectors, size, size)),
            // One order of sums, whatever else the machine does.
            Par::Seq,
            MemStack::new(self.scratch.as_mut()?),
            Default::default(),
        )
        .ok()?;
        let vectors = self.vectors.get(..size * size)?;
        Some((values, MatRef::from_column_major_slice(vectors, size, size)))
    }
}

impl std::fmt::Debug for Eigen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eigen")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// Makes a buffer of so many values resident now: memory that is asked for and not touched is none yet.
pub(super) fn touch(buffer: &mut Vec<f64>, count: usize) {
    if buffer.len() < count {
        buffer.resize(count, 1.0);
    }
}
