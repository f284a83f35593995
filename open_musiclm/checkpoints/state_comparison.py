"""Compares the tensors of a file with those of the model that they are for."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from open_musiclm.errors import UserError

_MOST_SHOWN = 3
_LONGEST_SHOWN = 100


def state_differences(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], may_lack: Collection[str] = ()
) -> str:
    """Why the tensors `found` cannot be the state `expected` of a model, as one line; empty if they can.

    Every name must be there, except those in `may_lack`, and no other; shapes must be the same, and real numbers where
    the model has them.
    """
    shared = sorted(expected.keys() & found.keys())
    missing = sorted(expected.keys() - found.keys() - set(may_lack))
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {list(found[name].shape)}, not {list(expected[name].shape)}"
        for name in shared
        if found[name].shape != expected[name].shape
    ]
    types = [
        f"{name} is of type {str(found[name].dtype).removeprefix('torch.')}"
        for name in shared
        if expected[name].is_floating_point() and not found[name].is_floating_point()
    ]
    problems = [f"missing {_listed(missing)}"] if missing else []
    problems += [f"unexpected {_listed(unexpected)}"] if unexpected else []
    problems += [_listed(several) for several in (shapes, types) if several]
    return "; ".join(problems)


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copies tensors into a module. Raises UserError, which begins with `what`, if they are not those of its state."""
    differences = state_differences(module.state_dict(), tensors)
    if differences:
        raise UserError(f"{what}: {differences}")
    module.load_state_dict(dict(tensors))


def _listed(items: Sequence[str]) -> str:
    rest = f", and {len(items) - _MOST_SHOWN} more" if len(items) > _MOST_SHOWN else ""
    return ", ".join(item[:_LONGEST_SHOWN] for item in items[:_MOST_SHOWN]) + rest
