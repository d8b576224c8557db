//! The product with a frozen matrix: candle's own would form a gradient of the matrix, as large as
//! the matrix, only to drop it.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail,
};

/// `x` `[tokens, in]` → `x·Wᵀ` `[tokens, out]`, with a gradient of `x` alone.
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let by_input = weight.t()?;
    x.contiguous()?.apply_op1(Product {
        weight: weight.clone(),
        by_input,
    })
}

struct Product {
    /// `[out, in]`
    weight: Tensor,
    /// The same, seen as `[in, out]`.
    by_input: Tensor,
}

impl Product {
    fn run<S: BackendStorage>(&self, x: &S, layout: &Layout, weight: &S) -> Result<(S, Shape)> {
        let ((tokens, inputs), outputs) = (layout.shape().dims2()?, self.weight.dim(0)?);
        let sizes = (1, tokens, outputs, inputs);
        let y = x.matmul(weight, sizes, layout, self.by_input.layout())?;
        Ok((y, Shape::from((tokens, outputs))))
    }
}

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match &*self.by_input.storage_and_layout().0 {
            Storage::Cpu(weight) => self.run(x, layout, weight),
            _ => bail!("the frozen matrix is on another device"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match &*self.by_input.storage_and_layout().0 {
            Storage::Cuda(weight) => self.run(x, layout, weight),
            _ => bail!("the frozen matrix is on another device"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        dy.contiguous()?.matmul(&self.weight).map(Some)
    }
}
