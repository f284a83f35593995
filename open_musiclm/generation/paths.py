"""Where a model's parts are (no torch in here)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_musiclm.config import MODEL_CONFIG_NAME, ModelConfig, StageName, load_model_config
from open_musiclm.errors import UserError


@dataclass(frozen=True)
class AdapterPath:
    """An adapter file, or a folder of adapters, and the factor of their updates."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class ModelPaths:
    """The parts of a model: files or results folders; a bundle, by folder or hub id, has all that are not named.

    `adapters` None means those of the bundle, if it has any.
    """

    bundle: str | None = None
    model_config: Path | str | None = None
    semantic: Path | str | None = None
    coarse: Path | str | None = None
    fine: Path | str | None = None
    rvq: Path | str | None = None
    kmeans: Path | str | None = None
    adapters: Sequence[AdapterPath] | None = None

    def resolved(self, stages: Sequence[StageName]) -> dict[str, Path]:
        """The path of every part that is needed, by its flag; the bundle must be a folder. Raises UserError."""
        named: dict[str, Path | str | None] = {
            f"{name}_path": getattr(self, name) for name in (*stages, "rvq", "kmeans")
        }
        named["model_config"] = self.model_config
        if self.bundle is not None:
            folder = Path(self.bundle)
            others = {flag: folder / MODEL_CONFIG_NAME if flag == "model_config" else folder for flag in named}
            named = {flag: path or others[flag] for flag, path in named.items()}
        missing = [f"--{flag}" for flag in ("model_config", "rvq_path", "kmeans_path", *named) if named[flag] is None]
        if missing:
            raise UserError(f"missing {', '.join(dict.fromkeys(missing))}")
        return {flag: Path(path) for flag, path in named.items() if path is not None}

    def described(self, stages: Sequence[StageName]) -> dict[str, str]:
        """The resolved paths and the adapters as text, for cards and the JSON beside a wave. Raises UserError."""
        found = {flag: str(path) for flag, path in self.resolved(stages).items()}
        if self.adapters:
            found["adapter_path"] = ", ".join(f"{adapter.path} x {adapter.weight:g}" for adapter in self.adapters)
        return found

    def read_model_config(self) -> ModelConfig:
        """The model config at its path, or the bundle's. Raises UserError."""
        return load_model_config(self.resolved([])["model_config"])
