"""The mean of several weights of one stage, parameter by parameter.

The mean of the weights before and after a fine-tuning often keeps more of what the model knew than the latter alone
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Of runs from one start it is their "model soup"
(Wortsman et al. 2022).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from open_musiclm.checkpoints import check_new_output, save_weights, trained_config
from open_musiclm.config import ModelConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.models.stages import load_stage


def write_average(
    name: StageName, config: ModelConfig, paths: Sequence[Path], shares: Sequence[float], output: Path
) -> None:
    """Writes the weighted mean of the weights of stage `name` at `paths`, this project's or released ones.

    The file gets the config with the lowest condition dropout: guidance needs it in the training of all of them.
    `shares` are at least 0, one for each path, and are divided by their sum. Raises UserError.
    """
    check_new_output(output)
    if len(paths) < 2:
        raise UserError(f"a mean needs two checkpoints or more; found {len(paths)}")
    if len(shares) != len(paths):
        raise UserError(f"--weights: found {len(shares)} for {len(paths)} checkpoints; give one for each")
    if sum(shares) == 0:
        raise UserError("--weights: all are 0; give at least one above 0")
    mean: dict[str, torch.Tensor] = {}
    for path, share in zip(paths, shares, strict=True):
        for key, tensor in load_stage(path, name, config, torch.device("cpu")).layout.state_dict().items():
            mean[key] = mean.get(key, 0) + tensor * (share / sum(shares))
    configs = [trained_config(path, name, config) for path in paths]
    save_weights(output, name, mean, min(configs, key=lambda trained: trained.stage(name).condition_dropout))
