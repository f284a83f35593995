"""Print the reference of all config files, docs/configs.md, from the fields themselves:

python -m open_musiclm.config.document > docs/configs.md
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from open_musiclm.config.backbones import ClapTrainingConfig, EncodecTrainerConfig, MertTrainingConfig
from open_musiclm.config.codecs import SpectralCodecTrainerConfig, VocosShape, VocosTrainerConfig
from open_musiclm.config.fields import LARGEST_FLOAT, LARGEST_INT
from open_musiclm.config.generation import GENERATION_CONFIG_NAME, GenerationConfig
from open_musiclm.config.json_files import Section
from open_musiclm.config.model import ModelConfig
from open_musiclm.config.training import TrainingConfig

INTRODUCTION = f"""# Config files

Generated from the code: `python -m open_musiclm.config.document > docs/configs.md`. Do not edit by hand.

Configs are JSON files. They are checked when they are read: an unknown key, a missing key, a wrong type or values that
contradict each other end the command with one line that names the file, the section, the key and what was expected.
A key that is left out has its default. Times are in seconds, rates in Hz. If no other bound is given, integers are
at most {LARGEST_INT} and numbers at most {LARGEST_FLOAT:.0f}. A file may begin with a byte order mark. Duplicate
keys, NaN, infinity, and files that are not regular (a pipe, a device) are errors.
"""
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


@dataclass(frozen=True)
class ConfigFile:
    """A kind of config file: its title, what is said of it, and its sections by key ("" for a file of one section)."""

    title: str
    introduction: str
    sections: Mapping[str, type[Section]]


def config_files() -> list[ConfigFile]:
    """Every kind of config file."""
    return [
        ConfigFile(
            "Model config",
            "The model: `--model_config`, and `model_config.json` in a bundle and in a results folder. "
            "Shipped in `configs/model/`; the demo's is `demo/configs/model.json`.",
            _sections_of(ModelConfig),
        ),
        ConfigFile(
            "Training config",
            "Training of the tokenizers and stages: `--training_config`. Shipped in `configs/training/`. A script "
            "reads only the sections it needs; a section may be left out or empty (`{}`).",
            _sections_of(TrainingConfig),
        ),
        ConfigFile(
            "Generation config",
            f"Generation: `{GENERATION_CONFIG_NAME}` in a bundle. Scripts and Python use it; a flag of the "
            "same name replaces one of its values.",
            {"": GenerationConfig},
        ),
        ConfigFile(
            "Backbone training: codec",
            "`--config` of `scripts/train_encodec.py`; shipped is `configs/backbones/train_encodec.json`. The section "
            "`architecture` is `EncodecArchitecture` in `open_musiclm/tokenizers/encodec_directory.py`.",
            {"trainer": EncodecTrainerConfig},
        ),
        ConfigFile(
            "Backbone training: spectral codec",
            "`--config` of `scripts/train_spectral_codec.py`. The section `architecture` is `SpectralArchitecture` in "
            "`open_musiclm/tokenizers/spectral_codec.py`.",
            {"trainer": SpectralCodecTrainerConfig},
        ),
        ConfigFile(
            "Backbone training: Vocos decoder",
            "`--config` of `scripts/train_vocos.py`; an example is `configs/backbones/train_vocos.json`.",
            {"architecture": VocosShape, "trainer": VocosTrainerConfig},
        ),
        ConfigFile(
            "Backbone training: CLAP",
            "`--config` of `scripts/train_clap.py`; the demo's is `demo/configs/train_clap.json`.",
            _sections_of(ClapTrainingConfig),
        ),
        ConfigFile(
            "Backbone training: MERT",
            "`--config` of `scripts/train_mert.py`; the demo's is `demo/configs/train_mert.json`.",
            _sections_of(MertTrainingConfig),
        ),
    ]


def document() -> str:
    """The whole reference as Markdown."""
    return "\n".join([INTRODUCTION, *(line for file in config_files() for line in _file(file))])


def _file(file: ConfigFile) -> Iterable[str]:
    yield from (f"## {file.title}", "", file.introduction, "")
    for names, kinds in _alike(file.sections):
        if names != [""]:
            yield from ("### " + ", ".join(f"`{name}`" for name in names), "")
        yield from (_text(kinds), "", *_table(kinds), "")
    inner = {key: kind for section in file.sections.values() for key, kind in _inner(section)}
    for key, kind in inner.items():
        yield from (f"### `{key}` within a section", "", _text([kind]), "", *_table([kind]), "")


def _inner(section: type[Section]) -> Iterable[tuple[str, type[Section]]]:
    """The sections within a section, by their key."""
    for key, field in section.model_fields.items():
        options = (field.annotation, *get_args(field.annotation))
        if any(inspect.isclass(option) and issubclass(option, Section) for option in options):
            yield key, _section(field.annotation)


def _alike(sections: Mapping[str, type[Section]]) -> list[tuple[list[str], list[type[Section]]]]:
    """Sections in their order; those of the same keys, as the three stages are, come as one."""
    groups: dict[tuple[str, ...], tuple[list[str], list[type[Section]]]] = {}
    for name, kind in sections.items():
        names, kinds = groups.setdefault(tuple(kind.model_fields), ([], []))
        names.append(name)
        kinds.append(kind)
    return list(groups.values())


def _table(kinds: list[type[Section]]) -> Iterable[str]:
    schemas = [kind.model_json_schema()["properties"] for kind in kinds]
    yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for key, schema in schemas[0].items():
        defaults = list(dict.fromkeys(_default(other[key]) for other in schemas))
        yield f"| `{key}` | {_type(schema)} | {' / '.join(defaults)} | {_sentence(schema.get('description', ''))} |"


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "object (below)"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [
        f"{sign} {_number(schema[bound])}"
        for bound, sign in _BOUNDS.items()
        if bound in schema and schema[bound] not in (LARGEST_INT, LARGEST_FLOAT)
    ]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _sentence(text: str) -> str:
    """A description as a sentence: some are also help texts of flags, which begin small and have no full stop."""
    return text[:1].upper() + text[1:].removesuffix(".") + "." if text else ""


def _default(schema: Mapping[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else "required"


def _sections_of(file: type[Section]) -> dict[str, type[Section]]:
    """The sections of a config file by their key."""
    return {name: _section(field.annotation) for name, field in file.model_fields.items()}


def _section(annotation: Any) -> type[Section]:
    """The section that a field holds, which may also be null."""
    (kind,) = [
        option
        for option in (annotation, *get_args(annotation))
        if inspect.isclass(option) and issubclass(option, Section)
    ]
    return kind


def _text(kinds: list[type[Section]]) -> str:
    """What a section is; of several kinds what they have in common."""
    (kind,) = set(kinds) if len(set(kinds)) == 1 else kinds[0].__bases__
    return inspect.getdoc(kind) or ""


if __name__ == "__main__":
    print(document(), end="")
