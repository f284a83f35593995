"""Where the work is done: cuda, mps or cpu."""

import torch

from open_musiclm.errors import UserError


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or without a name the best one there is. Raises UserError."""
    if name is None:
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not available here ({reason}); use cuda, mps or cpu") from error
    return device
