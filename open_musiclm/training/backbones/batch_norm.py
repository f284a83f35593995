"""Batch norm of CLAP's spectrograms, by the statistics of all processes' batches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.training.distributed import all_reduce_mean, num_processes


class GlobalBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` for data that needs no gradient; every process has as many examples."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Normalised over the examples of all processes in training, by the running statistics else."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        mean = all_reduce_mean(x.mean(dim=(0, 2, 3)))
        variance = all_reduce_mean((x - mean[:, None, None]).square().mean(dim=(0, 2, 3)))
        count = num_processes() * x.numel() / x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, training=False, eps=self.eps)


def normalise_over_all(norm: nn.BatchNorm2d) -> GlobalBatchNorm:
    """The same batch norm, with its weights and statistics, over the batches of all processes."""
    result = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum)
    result.load_state_dict(norm.state_dict())
    return result
