"""LoRA on a stage (Hu et al. 2021): peft's layers in training, and the same update merged into the weights elsewhere.

An adapter has two matrices of each adapted layer, A [rank, inputs] and B [outputs, rank]; the layer's weight becomes
W + scale B A. Tables of tokens count as layers whose weight is transposed.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from open_musiclm.checkpoints.adapters import Adapter
from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.checkpoints.state_comparison import state_differences
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError
from open_musiclm.models.example_rng import ExampleDropout, Seeds, derive_seeds
from open_musiclm.models.stages import Stage
from open_musiclm.models.transformer import Block

_NAME = "default"  # peft's name of the one adapter
_SEEDS = 1 << 18  # the number that derive_seeds gets for a layer's dropout; see models/stages.py for those below
_MATRICES = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
_SHOWN = 3


def add_adapter(stage: Stage, config: LoraConfig) -> None:
    """Adds an untrained adapter, which changes nothing yet, to a stage and freezes all other weights.

    Raises UserError if peft is not installed.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            'lora: needs the package peft, which is not installed here: pip install "peft>=0.17"'
        ) from error
    names = [name for name, _ in _target_layers(stage.layout, config)]
    peft_config = PeftConfig(r=config.rank, lora_alpha=round(config.scale * config.rank), target_modules=names)
    inject_adapter_in_model(peft_config, stage.layout, _NAME)
    for module in stage.layout.modules():
        scaling: Any = getattr(module, "scaling", {})
        if _NAME in scaling:
            scaling[_NAME] = config.scale  # peft's alpha is a whole number
    if config.dropout:
        _add_dropout(stage, config.dropout)


def without_adapter(stage: Stage) -> Stage:
    """A copy whose layers are plain ones, with the adapter merged."""
    plain = copy.deepcopy(stage)
    for name, module in list(plain.layout.named_modules()):
        if not hasattr(module, "base_layer"):
            continue
        merged: Any = module
        merged.merge()
        parent, _, last = name.rpartition(".")
        _set_child(plain.layout.get_submodule(parent), last, merged.base_layer)
    return plain


def adapter_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's matrices out of a layout's state, by the names that they have in a file."""
    return {name.replace(f".{_NAME}", ""): tensor for name, tensor in state.items() if _is_adapters(name)}


def load_adapter_tensors(stage: Stage, tensors: Mapping[str, Tensor], source: object) -> None:
    """Takes the matrices of a file into the adapter of a stage. Raises UserError if they do not fit it."""
    own = {name: name.replace(f".{_NAME}", "") for name in stage.layout.state_dict() if _is_adapters(name)}
    state = stage.layout.state_dict()
    differences = state_differences({name: state[full] for full, name in own.items()}, tensors)
    if differences:
        raise UserError(f"{source}: the lora section here describes another adapter: {differences}")
    stage.layout.load_state_dict({full: tensors[name] for full, name in own.items()}, strict=False)


@torch.no_grad()
def merge_adapters(stage: Stage, adapters: Sequence[tuple[Adapter, float]], base: object) -> None:
    """Adds adapters to the weights of a stage, each times its weight; `base` is what messages call the stage's weights.

    Raises UserError, before anything is changed, where an adapter was made for other weights.
    """
    if not adapters:
        return
    modules = dict(stage.layout.named_modules())
    pairs = [(adapter, weight, _pairs(adapter, modules, stage.name, base)) for adapter, weight in adapters]
    fingerprint = fingerprint_of(stage.layout.state_dict())
    for adapter, _ in adapters:
        adapter.check_base(stage.name, fingerprint, str(base))
    for adapter, weight, layers in pairs:
        for name, (a, b) in layers.items():
            layer = modules[name]
            assert isinstance(layer, nn.Linear | nn.Embedding)
            update = b.to(layer.weight) @ a.to(layer.weight) * (adapter.lora.scale * weight)
            layer.weight += update if isinstance(layer, nn.Linear) else update.T


def _pairs(
    adapter: Adapter, modules: Mapping[str, nn.Module], stage: str, base: object
) -> dict[str, tuple[Tensor, Tensor]]:
    """Both matrices of each layer of an adapter. Raises UserError if they fit no such layers."""
    adapter.check_stage(stage, str(base))
    found: dict[str, dict[int, Tensor]] = {}
    problems = []
    for name, tensor in adapter.tensors.items():
        suffix = next((end for pair in _MATRICES for end in pair if name.endswith(end)), None)
        layer = modules.get(name.removesuffix(suffix)) if suffix else None
        if suffix is None or not isinstance(layer, nn.Linear | nn.Embedding):
            problems.append(f"{name[:80]} belongs to no layer")
            continue
        outputs, inputs = layer.weight.shape if isinstance(layer, nn.Linear) else layer.weight.T.shape
        is_b = suffix in [pair[1] for pair in _MATRICES]
        expected = [outputs, adapter.lora.rank] if is_b else [adapter.lora.rank, inputs]
        if list(tensor.shape) != expected:
            problems.append(f"{name} is {list(tensor.shape)}, the layer wants {expected}")
        found.setdefault(name.removesuffix(suffix), {})[is_b] = tensor
    problems += [f"{name} has one matrix of two" for name, pair in found.items() if len(pair) < 2]
    _refuse(problems, adapter.path, f"made for a {stage} stage of another shape than {base}")
    return {name: (pair[0], pair[1]) for name, pair in found.items()}


def _set_child(parent: nn.Module, name: str, child: nn.Module) -> None:
    if isinstance(parent, nn.ModuleList):
        parent[int(name)] = child
    else:
        setattr(parent, name, child)


def _refuse(problems: Sequence[str], source: object, what: str) -> None:
    if problems:
        rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{source}: {what}: {'; '.join(problems[:_SHOWN])}{rest}")


def _is_adapters(name: str) -> bool:
    return ".lora_" in name


def _target_layers(layout: nn.Module, config: LoraConfig) -> Iterator[tuple[str, nn.Module]]:
    """The layers that get an adapter, by name: linear ones by the last part of it, and the tables."""
    for name, module in layout.named_modules():
        is_table = isinstance(module, nn.Embedding) and not name.startswith("position_embeddings")
        is_linear = isinstance(module, nn.Linear) and name.startswith("transformer.blocks.")
        if (is_table and "embeddings" in config.targets) or (is_linear and name.split(".")[-1] in config.targets):
            yield name, module


class _SeededDropout(nn.Module):
    """Dropout of one layer's adapter; `seeds` are those that its block runs with."""

    def __init__(self, probability: float, number: int) -> None:
        super().__init__()
        self.dropout, self.number = ExampleDropout(probability), number
        self.seeds: Seeds | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x, None if self.seeds is None else derive_seeds(self.seeds, _SEEDS + self.number))


def _add_dropout(stage: Stage, probability: float) -> None:
    """peft's own dropout would take from the process's random numbers; this one belongs to the example."""
    for block in stage.layout.transformer.blocks:
        assert isinstance(block, Block)
        dropouts: list[_SeededDropout] = []
        for module in block.modules():
            by_adapter: Any = getattr(module, "lora_dropout", None)
            if isinstance(by_adapter, nn.ModuleDict):
                dropouts.append(_SeededDropout(probability, len(dropouts)))
                by_adapter[_NAME] = dropouts[-1]
        block.register_forward_pre_hook(_giving_seeds(dropouts), with_kwargs=True)


def _giving_seeds(dropouts: Sequence[_SeededDropout]) -> Any:
    def give(block: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
        for dropout in dropouts:
            dropout.seeds = named.get("seeds")

    return give
