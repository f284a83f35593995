"""store.json: what a token store was made with. Another model config or other weights are an error."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from open_musiclm.checkpoints import differing_keys
from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.config.json_files import read_json_object, section_from_content, shown
from open_musiclm.errors import UserError
from open_musiclm.files import write_json
from open_musiclm.tokens import TokenStream, token_streams

DESCRIPTION_NAME = "store.json"
FORMAT_VERSION = 1
CLAP_WINDOWS_HZ = 1  # a store has the CLAP tokens of one window per second
# The keys that affect tokens; the path of a backbone and the shape of a stage do not.
_KEYS = {
    "global_cfg": ("clap_audio_length_seconds", "num_coarse_quantizers", "num_fine_quantizers"),
    "clap_rvq_cfg": ("rq_num_quantizers", "codebook_size", "enable_fusion", "sample_hz"),
    "hubert_kmeans_cfg": (
        "normalize_embeds",
        "embed_layer",
        "target_sample_hz",
        "seq_len_multiple_of",
        "codebook_size",
        "output_hz",
    ),
    "encodec_cfg": ("bandwidth", "codebook_size", "output_hz", "sample_hz"),
}
# The keys of data_preprocessor_cfg that decide which seconds of a file are stored, and how they are changed.
_CROP_KEYS = ("max_audio_length_seconds", "random_crop", "num_crops", "repeat", "augment", "seed")


@dataclass(frozen=True)
class StoreDescription:
    """The model config of a store, fingerprints of the weights that its tokens come from, and the crop settings of its
    first run (empty: not recorded)."""

    model_config: ModelConfig
    fingerprints: Mapping[str, str]
    crops: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "StoreDescription":
        """Reads store.json. Raises UserError."""
        path = folder / DESCRIPTION_NAME
        if not os.path.lexists(path):
            raise UserError(
                f"{folder}: no preprocessed tokens there (it has no {DESCRIPTION_NAME}); "
                "run scripts/preprocess_data.py first"
            )
        try:
            content = read_json_object(path)
            version = content.get("format_version")
            if version != FORMAT_VERSION:
                raise UserError(f"{path}: format_version {shown(version)}, this code reads {FORMAT_VERSION}")
            config = section_from_content(content.get("model_config"), f"{path}: model_config", ModelConfig)
            fingerprints = content.get("fingerprints")
            if not isinstance(fingerprints, dict) or not all(isinstance(text, str) for text in fingerprints.values()):
                raise UserError(f"{path}: fingerprints: expected a text for each, found {shown(fingerprints)}")
            crops = content.get("crops", {})
            if not isinstance(crops, dict):
                raise UserError(f"{path}: crops: expected an object, found {shown(crops)}")
        except UserError as error:
            raise UserError(f"{error}; restore this file, or preprocess into another folder") from error
        return cls(config, fingerprints, crops)

    def write(self, folder: Path) -> None:
        """Writes store.json; rates, windows, codebook sizes and quantizers are for readers without our configs."""
        config = self.model_config
        streams = token_streams(config)
        content = {
            "format_version": FORMAT_VERSION,
            "tokens_per_second": {name: stored_hz(stream) for name, stream in streams.items()},
            "clap_window_seconds": config.global_cfg.clap_audio_length_seconds,
            "shortest_seconds": shortest_seconds(config),
            "codebook_sizes": {name: stream.codebook_size for name, stream in streams.items()},
            "quantizers": {name: stream.quantizers for name, stream in streams.items()},
            "fingerprints": dict(self.fingerprints),
            "crops": dict(self.crops),
            "model_config": config.model_dump(mode="json"),
        }
        write_json(folder / DESCRIPTION_NAME, content)

    def check_config(self, folder: Path, config: ModelConfig) -> None:
        """Raises UserError if tokens of `config` would differ from those in the store (it names the keys), or where
        the crops there may be shorter than the windows of `config`."""
        differing = [
            line
            for section, keys in _KEYS.items()
            for line in differing_keys(self.model_config, config, section)
            if line.split(":")[0].split(".")[1] in keys
        ]
        if differing:
            raise UserError(
                f"{folder}: these tokens were made with another model config: {'; '.join(differing)}; "
                "use that config, or preprocess into another folder"
            )
        if shortest_seconds(config) > shortest_seconds(self.model_config):
            seconds = config.global_cfg.semantic_audio_length_seconds
            raise UserError(
                f"{folder}: global_cfg.semantic_audio_length_seconds is {seconds}, but the crops there may be as short "
                f"as {shortest_seconds(self.model_config)} s; preprocess into another folder"
            )

    def check_fingerprints(self, folder: Path, fingerprints: Mapping[str, str]) -> None:
        """Raises UserError if the tokens were made with other weights; it checks what store.json records."""
        differing = [name for name, found in fingerprints.items() if self.fingerprints.get(name, found) != found]
        if differing:
            raise UserError(
                f"{folder}: these tokens were made with another checkpoint of {' and '.join(differing)}; "
                "give that one, or preprocess into another folder"
            )

    def other_crops(self, crops: Mapping[str, object]) -> list[str]:
        """The settings in which `crops` differ from those of the first run, as 'key: there, here'."""
        return [
            f"{key}: {self.crops[key]} there, {here} here"
            for key, here in crops.items()
            if key in self.crops and self.crops[key] != here
        ]


def crops_of(settings: DataPreprocessorConfig) -> dict[str, object]:
    """The crop settings that `store.json` records."""
    return settings.model_dump(mode="json", include=set(_CROP_KEYS))


def stored_hz(stream: TokenStream) -> int:
    """The time steps a second of a stream in a store: its frames, or for CLAP one window a second."""
    return CLAP_WINDOWS_HZ if stream.frame_hz is None else stream.frame_hz


def shortest_seconds(config: ModelConfig) -> int:
    """The whole seconds that every stored crop has at least: the longest window fits."""
    return math.ceil(max(config.global_cfg.semantic_audio_length_seconds, config.global_cfg.clap_audio_length_seconds))
