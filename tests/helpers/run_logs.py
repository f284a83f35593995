"""Reads the log of a run."""

import json
from pathlib import Path


def log(folder: Path) -> list[dict]:
    """All lines of a results folder's log.jsonl."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def logged(folder: Path, key: str = "loss") -> list[float]:
    """The values of a key, of those lines that have it."""
    return [line[key] for line in log(folder) if key in line]


def losses(folder: Path) -> dict[int, float]:
    """The training loss of each step."""
    return {line["step"]: line["loss"] for line in log(folder) if "loss" in line}
