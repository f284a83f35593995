"""The models of the analysis."""

from dataclasses import dataclass
from pathlib import Path

from open_musiclm.analysis.mert_layers import MertLayers
from open_musiclm.checkpoints.bundle import open_bundle
from open_musiclm.config import MODEL_CONFIG_NAME, load_model_config
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder
from open_musiclm.tokenizers.rvq import ClapQuantizer


@dataclass(frozen=True)
class Models:
    """CLAP; without an RVQ there are no tokens, without MERT none of its layers."""

    clap: ClapEmbedder
    quantizer: ClapQuantizer | None
    mert: MertLayers | None


def load_models(
    bundle: str | None,
    model_config: Path | None,
    rvq_path: Path | None,
    device: str | None,
    with_mert: bool,
    trust_remote_code: bool = False,
) -> Models:
    """Those of a bundle, folder or hub id, or of a model config; paths that are given replace the bundle's.

    Raises UserError.
    """
    if bundle is not None:
        folder = open_bundle(bundle)
        model_config, rvq_path = model_config or folder / MODEL_CONFIG_NAME, rvq_path or folder
    if model_config is None:
        raise UserError("missing --model_config, or --checkpoint_dir with a bundle")
    config, on = load_model_config(model_config), choose_device(device)
    quantizer = None if rvq_path is None else ClapQuantizer.load(rvq_path, config, on)
    mert = MertLayers.load(config, on, trust_remote_code) if with_mert else None
    clap = Clap.load(config, on)
    if quantizer is not None:
        quantizer.check_fits(clap.embedding_dim, rvq_path)
    embedder = ClapEmbedder(clap, config.global_cfg.clap_audio_length_seconds, clap.sample_hz)
    return Models(embedder, quantizer, mert)
