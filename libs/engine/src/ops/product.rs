//! Matrix products on slices, through the `gemm` crate, or in plain code on compute threads whose
//! results must be those of every other machine.
//!
//! Either splits the result among threads, never the inner dimension, so that the number of threads
//! does not change a bit.
#![expect(
    unsafe_code,
    reason = "gemm takes pointers; the views assert their bounds when they are made"
)]

mod portable;
mod thin;

use gemm::Parallelism;

use crate::threads;

/// A matrix `[rows, cols]` somewhere in a slice.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix `[rows, cols]` to be written, its columns adjacent.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix that fills `data`.
    ///
    /// # Panics
    /// `data` is shorter than `rows · cols`.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    ///
    /// # Panics
    /// `data` ends before the last row does.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(
            fits(data.len(), rows, cols, row_stride),
            "a view must lie inside its data"
        );
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The slice behind it, gaps between rows included.
    #[must_use]
    pub const fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The same places of another slice.
    ///
    /// # Panics
    /// `data` has another length.
    #[must_use]
    pub fn over(self, data: &'a [f32]) -> Self {
        assert!(
            data.len() == self.data.len(),
            "another slice of the same length"
        );
        Self { data, ..self }
    }

    /// A row of a matrix that was not transposed; none beyond the last.
    ///
    /// # Panics
    /// The matrix was transposed.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<&'a [f32]> {
        assert!(self.col_stride == 1, "a row must lie in one piece");
        let start = row * self.row_stride;
        (row < self.rows).then(|| self.data.get(start..start + self.cols))?
    }

    /// `count` columns from `first` on, of a matrix that was not transposed.
    ///
    /// # Panics
    /// There are not so many, or the matrix was transposed.
    #[must_use]
    pub fn columns(self, first: usize, count: usize) -> Self {
        assert!(
            self.col_stride == 1 && first + count <= self.cols,
            "columns must lie inside the view"
        );
        let data = self.data.get(first..).unwrap_or_default();
        Self::strided(data, self.rows, count, self.row_stride)
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub const fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> ViewMut<'a> {
    /// A row-major matrix that fills `data`.
    ///
    /// # Panics
    /// `data` is shorter than `rows · cols`.
    #[must_use]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    ///
    /// # Panics
    /// `data` ends before the last row does.
    #[must_use]
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(
            fits(data.len(), rows, cols, row_stride),
            "a view must lie inside its data"
        );
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

impl ViewMut<'_> {
    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Values from one row to the next.
    #[must_use]
    pub const fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The first value.
    pub const fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    /// The same, to be read.
    #[must_use]
    pub const fn view(&self) -> View<'_> {
        View {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: 1,
        }
    }

    /// A view of the same for a while.
    pub const fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
        }
    }

    /// A row.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "a view has its rows alone");
        let start = row * self.row_stride;
        self.data
            .get_mut(start..start + self.cols)
            .unwrap_or_default()
    }
}

/// What becomes of the values already in the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// They are overwritten.
    Overwrite,
    /// The product is added to them.
    Add,
}

const fn fits(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    rows == 0 || cols == 0 || (row_stride >= cols && (rows - 1) * row_stride + cols <= len)
}

/// `dst ← scale · lhs · rhs` (or added to it), on all threads of the current pool.
///
/// # Panics
/// The shapes do not match.
pub fn multiply(dst: ViewMut<'_>, lhs: View<'_>, rhs: View<'_>, scale: f32, into: Into) {
    product(dst, lhs, rhs, scale, into, Parallelism::Rayon(0));
}

/// Like [`multiply`], on the calling thread: for products inside an already parallel loop.
///
/// # Panics
/// The shapes do not match.
pub fn multiply_here(dst: ViewMut<'_>, lhs: View<'_>, rhs: View<'_>, scale: f32, into: Into) {
    product(dst, lhs, rhs, scale, into, Parallelism::None);
}

/// `dst` `[rank, cols]` ← `scale · lhsᵀ · rhs`, where `lhs` `[tokens, rank]` is thin and both are tall:
/// the gradient of a low-rank factor. On all threads of the current pool.
///
/// # Panics
/// The shapes do not match, or a matrix was transposed.
pub fn multiply_tall(dst: &mut [f32], lhs: View<'_>, rhs: View<'_>, scale: f32) {
    if threads::are_portable() {
        let dst = ViewMut::new(dst, lhs.cols, rhs.cols);
        return portable::product(dst, lhs.t(), rhs, scale, Into::Overwrite);
    }
    thin::outer(dst, lhs, rhs, scale);
}

fn product(
    dst: ViewMut<'_>,
    lhs: View<'_>,
    rhs: View<'_>,
    scale: f32,
    into: Into,
    parallelism: Parallelism,
) {
    assert!(
        lhs.cols == rhs.rows && dst.rows == lhs.rows && dst.cols == rhs.cols,
        "shapes of a product must match"
    );
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    if threads::are_portable() {
        return portable::product(dst, lhs, rhs, scale, into);
    }
    let stride = |n: usize| n as isize;
    // SAFETY: each view's constructor proved that every element (row, col) lies inside its slice,
    // `t` only renames the two, and the destination is borrowed mutably, so nothing aliases it.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            lhs.cols,
            dst.data.as_mut_ptr(),
            1,
            stride(dst.row_stride),
            into == Into::Add,
            lhs.data.as_ptr(),
            stride(lhs.col_stride),
            stride(lhs.row_stride),
            rhs.data.as_ptr(),
            stride(rhs.col_stride),
            stride(rhs.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::random;

    #[test]
    fn products_of_every_orientation_equal_the_definition() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 7),
            (1, 64, 33),
            (65, 17, 130),
            (40, 300, 2),
        ] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let mut want = vec![1.0; m * n];
            for i in 0..m {
                for j in 0..n {
                    want[i * n + j] +=
                        0.5 * (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f32>();
                }
            }
            for lhs in [View::new(&a, m, k), View::new(&at, k, m).t()] {
                for rhs in [View::new(&b, k, n), View::new(&bt, n, k).t()] {
                    for product in [multiply, portable::product] {
                        let mut got = vec![1.0; m * n];
                        product(ViewMut::new(&mut got, m, n), lhs, rhs, 0.5, Into::Add);
                        crate::ops::check::close(&got, &want, 1e-5);
                    }
                }
            }
        }
    }

    fn transposed(a: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols)
            .map(|i| a[(i % rows) * cols + i / rows])
            .collect()
    }
}
