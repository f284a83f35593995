"""The embedding models of an evaluation, loaded as measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.config import ModelConfig, load_model_config
from open_musiclm.evaluation.embeddings import ClapMeasure, MertMeasure
from open_musiclm.evaluation.measure import Measure
from open_musiclm.evaluation.options import NEEDS_CLAP, MetricName
from open_musiclm.evaluation.passt import PasstMeasure
from open_musiclm.evaluation.sound_measures import LevelMeasure, TempoMeasure
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import Mert


@dataclass(frozen=True)
class ModelChoice:
    """Model configs by path: `embeddings` names the CLAP and MERT that sets are compared by, `own` is the evaluated
    model's, None if it is not known."""

    embeddings: Path | None
    own: Path | None
    device: torch.device
    trust_remote_code: bool = False


def load_measures(metrics: Sequence[MetricName], choice: ModelChoice) -> dict[str, Measure]:
    """The measures that the metrics take: levels always; clap, own_clap, mert, tempo and passt. Raises UserError.

    Where the model's own CLAP is the one that embeds, `own_clap` and `clap` are the same object.
    """
    measures: dict[str, Measure] = {"levels": LevelMeasure()}
    if "tempo" in metrics:
        measures["tempo"] = TempoMeasure()
    if "kl" in metrics:
        measures["passt"] = PasstMeasure.load(choice.device)
    path = choice.embeddings or choice.own
    if path is None:
        return measures
    config = load_model_config(path)
    if NEEDS_CLAP.intersection(metrics):
        measures["clap"] = _clap(path, config, choice.device)
    if "prompts" in metrics and choice.own is not None:
        same = choice.embeddings in (None, choice.own)
        measures["own_clap"] = (
            measures["clap"] if same else _clap(choice.own, load_model_config(choice.own), choice.device)
        )
    if "mert" in metrics:
        mert = Mert.load(config, choice.device, choice.trust_remote_code)
        measures["mert"] = MertMeasure(mert, config.hubert_kmeans_cfg)
    return measures


def _clap(path: Path, config: ModelConfig, device: torch.device) -> ClapMeasure:
    section = config.clap_rvq_cfg
    name = section.checkpoint_path or section.model_name or "laion/clap-htsat"
    clap = Clap.load(config, device)
    return ClapMeasure(clap, config.global_cfg.clap_audio_length_seconds, f"{name} of {path}")
