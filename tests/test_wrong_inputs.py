"""Hundreds of wrong inputs of every sort: each is refused with one line and status 2, or used; none ends otherwise.

A sort is a function that yields trials; a trial is a name and the words of a script, or of a Python call. To add one,
add a line. The numbers are seeded: the same trials on every machine. By hand, for three times as many seeded ones:
WRONG_INPUTS=3 pytest tests/test_wrong_inputs.py
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile
import torch
from helpers import python_trials
from helpers.paths import DEMO, REPOSITORY
from helpers.released_layout import released_rvq, released_stage, write_released_kmeans
from helpers.small_stack import MODEL, Stack
from helpers.sound_files import BAD, write_tone
from helpers.trial_process import CRASHED, HUNG, Outcome, TrialProcess
from helpers.wrong_files import IN_PLACE, WRONG_VALUES, json_with, mutated, wrong_json

from open_musiclm.checkpoints.bundle import bundle_kinds, pack
from open_musiclm.config import GenerationConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FEWEST = 400
TIMES = int(os.environ.get("WRONG_INPUTS", "1"))
MOST_SECONDS, MOST_GIGABYTES = 30.0, 2.0
Trial = tuple[str, list[str]]
ERROR = re.compile(r"^(error|[\w.]+\.py: error): \S", re.MULTILINE)
STAGE_TRAINING = {
    "semantic_trainer_cfg": {
        "stage": "semantic",
        "folder": "tokens",
        "num_train_steps": 1,
        "batch_size": 2,
        "num_workers": 0,
        "valid_frac": 0.2,
        "save_reconstructed_wave": False,
        "use_preprocessed_data": True,
        "cross_entropy_loss_weights": [0, 1],
        "lr": 1e-3,
        "seed": 0,
    },
    "data_preprocessor_cfg": {"folder": "sound", "results_folder": "store", "num_workers": 0, "num_crops": 1},
    "clap_rvq_trainer_cfg": {"folder": "sound", "num_train_steps": 1, "batch_size": 2, "num_workers": 0},
}
LINES = {"file": "0.wav", "caption": "slow tone"}


class World:
    """Right inputs to spoil, and a fresh place for each spoilt one."""

    def __init__(self, folder: Path, stack: Stack, sounds: Path, tokens: Path) -> None:
        self.folder, self.stack, self.sounds, self.tokens = folder, stack, sounds, tokens
        self.count = 0
        self.sound = write_tone(folder / "tone.wav", 1.0)
        self.bundle = folder / "bundle"
        pack(stack.model_config, {kind: stack.weights(kind) for kind in bundle_kinds(stack.config)}, self.bundle)
        self.training = json.loads(json.dumps(STAGE_TRAINING))
        self.training["semantic_trainer_cfg"]["folder"] = str(tokens)
        for section in ("data_preprocessor_cfg", "clap_rvq_trainer_cfg"):
            self.training[section]["folder"] = str(sounds)
        self.training_config = self.file("training.json", json.dumps(self.training).encode())
        self.tokenizers = ["--rvq_path", str(stack.weights("clap_rvq"))]
        self.tokenizers += ["--kmeans_path", str(stack.weights("hubert_kmeans"))]

    def new(self, name: str) -> Path:
        """A path of that name that nothing else has."""
        self.count += 1
        folder = self.folder / f"{self.count:04}"
        folder.mkdir()
        return folder / name

    def file(self, name: str, content: bytes) -> Path:
        path = self.new(name)
        path.write_bytes(content)
        return path

    def copy(self, folder: Path) -> Path:
        """A folder of the same files: what is changed in it is removed first, see `replace`."""
        return Path(shutil.copytree(folder, self.new(folder.name), copy_function=os.link))

    def infer(self, *words: object, prompt: str = "slow tune", script: str = "infer_top_match.py") -> list[str]:
        """Words that generate; the last of a flag's values counts."""
        short = ["--duration", "0.4", "--num_samples", "1", "--device", "cpu"] if script == "infer_top_match.py" else []
        first = [f"scripts/{script}", *([prompt] if script == "infer_top_match.py" else [])]
        return [*first, *self.stack.arguments(), *short, "--results_folder", str(self.new("out")), *map(str, words)]

    def train(self, *words: object, script: str = "train_semantic_stage.py") -> list[str]:
        configs = ["--model_config", str(self.stack.model_config), "--training_config", str(self.training_config)]
        more = [] if script == "train_clap_rvq.py" else self.tokenizers
        more = more if script == "preprocess_data.py" else [*more, "--log_with", "none"]
        out = ["--results_folder", str(self.new("out")), "--device", "cpu"]
        return [f"scripts/{script}", *configs, *more, *out, *map(str, words)]

    def train_backbone(self, name: str, config: Path) -> list[str]:
        more = ["--model_config", str(self.stack.model_config)] if name == "mert" else []
        out = ["--results_folder", str(self.new("out")), "--log_with", "none", "--device", "cpu"]
        return [f"scripts/train_{name}.py", "--config", str(config), *more, *out]

    def train_clap(self, captions: Path) -> list[str]:
        config = json.loads((DEMO / "configs/train_clap.json").read_text())
        config["trainer"] |= {"folder": str(captions.parent), "spectrogram_folder": None}
        return self.train_backbone("clap", self.file("config.json", json.dumps(config).encode()))

    def convert(self, checkpoint: Path, kind: str) -> list[str]:
        given = [checkpoint, "--kind", kind, "--model_config", self.stack.model_config]
        return ["scripts/convert_checkpoint.py", *map(str, [*given, "--output", self.new("new.safetensors")])]


def replace(path: Path, content: bytes) -> None:
    """Writes a file in the place of another, of which there may be more names."""
    path.unlink()
    path.write_bytes(content)


WRONG_WORDS = {
    "--duration": ("0", "-1", "nan", "inf", "1e-9", "1e9", "1e308", "x", "", "9" * 5000),
    "--num_samples": ("0", "-1", "1.5", "x", str(10**9), "9" * 5000),
    "--num_top_matches": ("0", "2", "x"),
    "--seed": ("x", "1.5", str(10**30), "9" * 5000, "-" * 3),
    "--semantic_temperature": ("-1", "nan", "inf", "1e-45", "1e40", "x"),
    "--semantic_advance": ("0", "1", "-0.5", "nan", "x"),
    "--top_k": ("0", "-1", "1.5", str(10**30), "x"),
    "--top_p": ("0", "-1", "1.5", "nan", "x"),
    "--cfg_scale": ("-1", "1e40", "3", "1,2", "1,2,x", "nan", ","),
    "--max_batch_size": ("0", "-1", "x", str(10**9)),
    "--negative_prompt": ("", " ", "noise", "x" * 20_000),
    "--style_audio": ("", ":", ":2", "nowhere.wav", "/", "/dev/null:1", "a\0b:1", "x" * 5000),
    "--precision": ("float8", "", "FLOAT32"),
    "--device": ("abacus", "cuda:99", "", "cpu:-1", "meta"),
    "--input_audio": ("", "nowhere.wav", "/", "/dev/null", "a\x01b", "a\0b"),
    "--checkpoint_dir": ("", "nowhere", "/", "/dev/null", "a//b", "../..", "x" * 5000),
    "--model_config": ("", "nowhere.json", "/", "/dev/null", "x" * 5000),
    "--rvq_path": ("", "nowhere", "/dev/null", "x" * 5000),
    "--results_folder": ("/dev/null", "/dev/null/x", "/proc/x", "x" * 300),
}
WRONG_PROMPTS = ("", " ", "\t\n", "x" * 100_000, "\u2028", "\x1b[2J", "../../x", "-x", "a\ud800b", "%s%n{0}$(x)`x`")


def arguments(world: World) -> Iterator[Trial]:
    for flag, values in WRONG_WORDS.items():
        for value in values:
            yield f"{flag} {value[:20]!r}", world.infer(flag, value)
    for value in ("", "-", "2", "2-1", "0-9", "0.9-0.95", "nan-1", "5-", "1e3-", "9" * 5000 + "-", "0-0"):
        yield f"--regenerate {value[:9]!r}", _edit(world, "--regenerate", value, "--input_audio", world.sound)
    for words in (["--first_stage", "fine"], ["--duration", "1"], ["--mix"], ["--num_variations", "0"], ["a tune"]):
        yield f"--variation_of {words}", _edit(world, "--variation_of", world.sound, *words)
    for words in (["0-0.5"], ["0-0.5", "--duration", "1"], ["0-0.5", "--num_candidates", "0"]):
        yield f"--regenerate {words}", _edit(world, "--regenerate", *words)
    for prompt in WRONG_PROMPTS:
        yield f"prompt {prompt[:20]!r}", world.infer(prompt=prompt)
    for story in ("", "a", "0:a;", "1:a", "0:a; 0:b", "0:a; 9:b", "0: ", "nan:a", "0:a; inf:b", "0:a;" * 5000 + "1:b"):
        yield f"story {story[:9]}", world.infer("--story", story, script="infer.py")
    for seconds in ("-1", "nan", "inf", "x", "0.3", "9" * 5000):
        words = ("--duration", "0.4", "--story", "0:a; 0.2:b", "--crossfade", seconds)
        yield f"crossfade {seconds[:9]}", world.infer(*words, script="infer.py")
    yield "a story beside a prompt", world.infer("--story", "0:a")
    yield "a crossfade of no story", world.infer("--crossfade", "1")
    for weight in ("-1", "nan", "inf", "1e7", "0", "9" * 5000):
        yield f"mixture of weight {weight[:9]}", world.infer("--mix", prompt=f"slow tune:{weight}")
        yield f"style of weight {weight[:9]}", world.infer("--style_audio", f"{world.sound}:{weight}")
    for script in sorted((REPOSITORY / "scripts").glob("*.py")):
        yield f"{script.name} without words", [f"scripts/{script.name}"]
        yield f"{script.name} --nothing", [f"scripts/{script.name}", "--nothing"]
    for flag in ("--fine_tune_from", "--continue_from_dir"):
        for value in ("nowhere", "/dev/null", str(world.sounds), str(world.stack.weights("coarse"))):
            yield f"{flag} {value}", world.train(flag, value)
    for value in ("0", "-1", "x", "9" * 5000, "5"):
        yield f"--continue_from_step {value[:9]}", world.train("--continue_from_step", value)
    for value in ("", "wand", "NONE"):
        yield f"--log_with {value}", world.train("--log_with", value)
    for value in ("0", "-1", "nan", "1e308", "x"):
        corpus = ["scripts/make_demo_corpus.py", "--output", str(world.new("corpus")), "--soundfont", "nowhere.sf2"]
        yield f"--hours {value}", [*corpus, "--hours", value]
    for kind in ("", "melody", "coarse"):
        yield f"--kind {kind}", world.convert(world.stack.weights("fine"), kind)


def json_files(world: World) -> Iterator[Trial]:
    model = {**MODEL}
    for section, name in (("clap_rvq_cfg", "clap"), ("hubert_kmeans_cfg", "mert"), ("encodec_cfg", "encodec")):
        model[section] = {**model[section], "model_name": str(world.stack.folder / name)}
    for number, content in enumerate(wrong_json(model, 48 * TIMES, "model")):
        path = world.file("model_config.json", content)
        yield f"model config {number}", world.infer("--model_config", path)
    for number, content in enumerate(wrong_json(world.training, 24 * TIMES, "training")):
        path = world.file("training.json", content)
        yield f"training config {number}", world.train("--training_config", path)
    for name, folder in (
        ("encodec", REPOSITORY / "configs/backbones"),
        ("clap", DEMO / "configs"),
        ("mert", DEMO / "configs"),
    ):
        right = json.loads((folder / f"train_{name}.json").read_text())
        right["trainer"]["folder"] = "nowhere"  # so that none trains for hours
        for number, content in enumerate(wrong_json(right, 8 * TIMES, name)):
            yield f"train_{name} config {number}", world.train_backbone(name, world.file("config.json", content))
    for number, content in enumerate(wrong_json(GenerationConfig(duration=0.4).model_dump(), 12 * TIMES, "generation")):
        bundle = world.copy(world.bundle)
        replace(bundle / "generation_config.json", content)
        yield f"generation config {number}", _from_bundle(world, bundle)


def texts(world: World) -> Iterator[Trial]:
    prompts = {
        "empty": b"",
        "blank lines": b"\n \n\t\n",
        "byte order mark": "\ufeffslow tune\n".encode(),
        "utf-16": "slow tune\n".encode("utf-16"),
        "latin-1": "höhle\n".encode("latin-1"),
        "zeros": bytes(1000),
        "U+2028": "slow\u2028tune\n".encode(),
        "carriage returns": b"slow tune\rfast tune\r",
        "a long line": b"tune " * 20_000,
        "surrogate": b"slow \xed\xa0\x80 tune\n",
        "escape": b"slow \x1b[2J tune\n",
    }
    for name, content in prompts.items():
        path = world.file("prompts.txt", content)
        yield f"prompts {name}", world.infer("--prompts_file", path, "--duration", "0.4", script="infer.py")
    lines = [
        *(json_with(LINES, (key,), value) for key in ("caption", "file") for value in WRONG_VALUES[:4]),
        b"\xef\xbb\xbf" + json.dumps(LINES).encode(),
        json.dumps({**LINES, "caption": "slow\u2028tone"}, ensure_ascii=False).encode(),
        json.dumps({**LINES, "file": "/data/music/ok.wav"}).encode(),
        b"{",
        b"\xff\xfe",
        b"",
    ]
    for number, line in enumerate(lines):
        yield f"captions {number}", world.train_clap(world.file("captions.jsonl", line))


def sounds(world: World) -> Iterator[Trial]:
    rng, formats = (
        random.Random("sounds"),
        {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"},
    )
    for suffix, subtype in formats.items():
        right = world.new(f"right.{suffix}")
        soundfile.write(right, 0.3 * torch.randn(16000).clamp(-3, 3).numpy(), 16000, subtype=subtype)
        for number in range(2 * TIMES):  # test_mutated_sounds.py has many more
            path = world.file(f"a.{suffix}", mutated(right.read_bytes(), rng, 60))
            yield f"{suffix} {number} as a prompt", world.infer("--input_audio", path)
            yield f"{suffix} {number} checked", _check(world, path.parent)
    for number, (name, (make, _)) in enumerate(BAD.items()):
        path = make(world.new(name))
        yield f"{name} as a prompt", world.infer("--input_audio", path)
        uses = [
            (f"{name} as a style", world.infer("--style_audio", path)),
            (f"{name} to vary", _edit(world, "--variation_of", path)),
            (f"{name} to infill", _edit(world, "--input_audio", path, "--regenerate", "0.2-0.4")),
            *((f"{name} from {stage}", _regenerate(world, path, stage)) for stage in ("coarse", "fine")),
        ]
        yield from (uses[(2 * number + more) % len(uses)] for more in range(min(2 * TIMES, len(uses))))
    for samples in (0, 1, 2, 100):
        path = world.new("short.wav")
        soundfile.write(path, torch.full((samples,), 0.1).numpy(), 16000)
        yield f"{samples} samples", world.infer("--input_audio", path)
        yield f"{samples} samples from coarse", _regenerate(world, path, "coarse")


def weights(world: World) -> Iterator[Trial]:
    rng, stack = random.Random("weights"), world.stack
    flags = {"semantic": "semantic", "fine": "fine", "clap_rvq": "rvq", "hubert_kmeans": "kmeans"}
    for kind, flag in flags.items():
        right = stack.weights(kind).read_bytes()
        for number in range(7 * TIMES):
            path = world.file("a.safetensors", mutated(right, rng, 400))
            yield f"{kind} {number}", world.infer(f"--{flag}_path", path)
    released = {
        "fine": partial(torch.save, released_stage(stack.stages(["fine"])["fine"].layout)),
        "clap_rvq": partial(torch.save, released_rvq(stack.tokenizer().quantizer)),
        "hubert_kmeans": partial(write_released_kmeans, stack.tokenizer().semantic.centroids),
    }
    for kind, write in released.items():
        right_file = world.new("right.joblib" if kind == "hubert_kmeans" else "right.pt")
        write(right_file)
        for number in range(7 * TIMES):
            path = world.file(right_file.name, mutated(right_file.read_bytes(), rng, 2000))
            yield f"released {kind} {number}", world.convert(path, kind)
    contents: dict[str, object] = {
        "not a number": {"codebooks": torch.full((3, 40, 16), float("nan"))},
        "a list": [torch.zeros(3)],
        "a number": 7,
        "nothing": {},
        "nested": {"state_dict": {"model": {"module": {}}}},
        "wide": {"codebooks": torch.zeros(1).expand(1 << 30)},
    }
    for name, content in contents.items():
        path = world.new("a.pt")
        torch.save(content, path)
        for kind in ("clap_rvq", "coarse"):
            yield f"{name} as {kind}", world.convert(path, kind)


def bundles(world: World) -> Iterator[Trial]:
    rng = random.Random("bundles")
    files = sorted(path.relative_to(world.bundle) for path in world.bundle.rglob("*") if path.is_file())
    kinds = ("empty file", "text", "zeros", "empty folder", "pipe", "endless device", "link to itself")
    for place, name in enumerate(files):
        bundle = world.copy(world.bundle)
        (bundle / name).unlink()
        yield f"without {name}", _from_bundle(world, bundle)
        for kind in (kinds[(2 * place + number) % len(kinds)] for number in range(min(2 * TIMES, len(kinds)))):
            bundle = world.copy(world.bundle)
            (bundle / name).unlink()
            IN_PLACE[kind](bundle / name)
            yield f"{kind} for {name}", _from_bundle(world, bundle)
    for name in files:
        if name.suffix != ".json":
            continue
        content = json.loads((world.bundle / name).read_text())
        for number, wrong in enumerate(wrong_json(content, 3 * TIMES, str(name)) if isinstance(content, dict) else ()):
            bundle = world.copy(world.bundle)
            replace(bundle / name, wrong)
            yield f"{name} {number}", _from_bundle(world, bundle)
    for name in files:
        if name.suffix == ".safetensors":
            bundle = world.copy(world.bundle)
            replace(bundle / name, mutated((bundle / name).read_bytes(), rng, 400))
            yield f"mutated {name}", _from_bundle(world, bundle)


def stores(world: World) -> Iterator[Trial]:
    rng = random.Random("stores")
    (shard,) = world.tokens.glob("tokens-*.arrow")
    for number in range(20 * TIMES):
        store = world.copy(world.tokens)
        replace(store / shard.name, mutated(shard.read_bytes(), rng, 1500))
        yield f"shard {number}", _from_store(world, store)
    description = json.loads((world.tokens / "store.json").read_text())
    for number, content in enumerate(wrong_json(description, 12 * TIMES, "store")):
        store = world.copy(world.tokens)
        replace(store / "store.json", content)
        yield f"description {number}", _from_store(world, store)
    with pa.OSFile(str(shard), "rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    values: dict[str, list[list]] = {
        "seconds": [[value] * len(table) for value in (None, -1.0, 0.0, 1e18, float("nan"), float("inf"), 2.0)],
        "semantic": [[[]] * len(table), [None] * len(table), [[65535] * 149] * len(table), [[1] * 148] * len(table)],
        "clap": [[[1]] * len(table), [[1] * 7] * len(table)],
    }
    for name, columns in values.items():
        for number, column in enumerate(columns):
            store, kind = world.copy(world.tokens), table.column(name).type
            changed = table.set_column(table.column_names.index(name), name, pa.array(column, kind))
            (store / shard.name).unlink()
            with pa.OSFile(str(store / shard.name), "wb") as out, pa.ipc.new_stream(out, changed.schema) as stream:
                stream.write_table(changed)
            yield f"column {name} {number}", _from_store(world, store)
    for kind, put in IN_PLACE.items():
        store = world.copy(world.tokens)
        (store / shard.name).unlink()
        put(store / shard.name)
        yield f"{kind} for a shard", _from_store(world, store)


def folders(world: World) -> Iterator[Trial]:
    for kind, put in IN_PLACE.items():
        places = [world.new("here") for _ in range(8)]
        for place in places:
            put(place)
        sound, bundle, results, store, continued, model, audio, weight = map(str, places)
        yield f"{kind} as a folder of sound", _check(world, Path(sound))
        yield f"{kind} as a bundle", _from_bundle(world, Path(bundle))
        yield f"{kind} as results of generation", world.infer("--results_folder", results)
        yield f"{kind} as a store", _from_store(world, Path(store))
        yield f"{kind} to continue from", world.train("--continue_from_dir", continued)
        yield f"{kind} as a model config", world.infer("--model_config", model)
        yield f"{kind} as a sound", world.infer("--input_audio", audio)
        yield f"{kind} as weights", world.infer("--coarse_path", weight)
        place = world.new("here")
        put(place)
        training = world.file("t.json", json_with(world.training, ("data_preprocessor_cfg", "folder"), _quoted(place)))
        yield f"{kind} to preprocess", world.train("--training_config", training, script="preprocess_data.py")


def python_calls(world: World) -> Iterator[Trial]:
    return ((name, ["python", name]) for name in python_trials.TRIALS)


SORTS: dict[str, Callable[[World], Iterator[Trial]]] = {
    sort.__name__: sort
    for sort in (arguments, json_files, texts, sounds, weights, bundles, stores, folders, python_calls)
}


def _quoted(path: Path) -> str:
    return json.dumps(str(path))


def _check(world: World, folder: Path) -> list[str]:
    configs = ["--model_config", str(world.stack.model_config), "--training_config", str(world.training_config)]
    return ["scripts/check_data.py", str(folder), *configs, "--results_folder", str(world.new("out"))]


def _regenerate(world: World, sound: Path, stage: str) -> list[str]:
    parts = world.stack.arguments()
    first = parts.index(f"--{stage}_path")
    out = ["--results_folder", str(world.new("out")), "--device", "cpu"]
    return [f"scripts/infer_{stage}.py", str(sound), *parts[first:], *out]


def _edit(world: World, *words: object) -> list[str]:
    return world.infer(*words, "--return_coarse_wave", "--device", "cpu", script="infer.py")


def _from_bundle(world: World, bundle: Path) -> list[str]:
    short = ["--duration", "0.4", "--num_samples", "1", "--num_top_matches", "1", "--device", "cpu"]
    out = ["--results_folder", str(world.new("out"))]
    return ["scripts/infer_top_match.py", "slow tune", "--checkpoint_dir", str(bundle), *short, *out]


def _from_store(world: World, store: Path) -> list[str]:
    path = ("semantic_trainer_cfg", "folder")
    return world.train("--training_config", world.file("t.json", json_with(world.training, path, _quoted(store))))


def wrong_with(outcome: Outcome) -> str | None:
    """What an outcome must not be; None where it ended well."""
    names = {CRASHED: "the process ended", HUNG: f"not ended after {MOST_SECONDS:g} s"}
    if outcome.status in names:
        return names[outcome.status]
    if "Traceback" in outcome.errors or "Traceback" in outcome.output:
        return "a traceback"
    if outcome.status not in (0, 2):
        return f"exit status {outcome.status}"
    lines = len(ERROR.findall(outcome.errors))
    if lines != (outcome.status == 2):
        return f"exit status {outcome.status} with {lines} lines of error"
    if outcome.gigabytes > MOST_GIGABYTES:
        return f"{outcome.gigabytes:.1f} GB of memory"
    return None


@pytest.fixture(scope="module")
def world(stack: Stack, sounds: Path, tokens: Path) -> Iterator[World]:
    """In a folder of its own: pytest cannot remove a thousand nested folders."""
    folder = Path(tempfile.mkdtemp(prefix="open_musiclm_wrong_inputs_"))
    yield World(folder, stack, sounds, tokens)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def process(world: World) -> Iterator[TrialProcess]:
    os.environ["TRIAL_BUNDLE"] = str(world.bundle)
    folder = world.folder / "process"
    folder.mkdir()
    trials = TrialProcess(folder, MOST_SECONDS)
    yield trials
    trials.close()


@pytest.mark.parametrize(
    "right",
    [
        lambda world: world.infer(),
        lambda world: world.infer("--input_audio", world.sound),
        lambda world: world.infer("--prompts_file", world.file("p.txt", b"a tune"), script="infer.py"),
        lambda world: _edit(world, "--input_audio", world.sound, "--regenerate", "0.2-0.4"),
        lambda world: _edit(world, "--variation_of", world.sound),
        lambda world: world.train(),
        lambda world: world.train(script="preprocess_data.py"),
        lambda world: _from_bundle(world, world.copy(world.bundle)),
        lambda world: _from_store(world, world.copy(world.tokens)),
        lambda world: _regenerate(world, world.sound, "coarse"),
        lambda world: _check(world, world.sounds),
        lambda world: world.convert(world.stack.weights("fine"), "fine"),
    ],
)
def test_what_is_spoilt_is_right_before(
    world: World, process: TrialProcess, right: Callable[[World], list[str]]
) -> None:
    outcome = process.run(right(world))
    assert outcome.status == 0, outcome.errors


def test_there_are_hundreds(world: World) -> None:
    assert sum(len(list(trials(world))) for trials in SORTS.values()) >= FEWEST


@pytest.mark.parametrize("sort", SORTS)
def test_wrong_inputs(world: World, process: TrialProcess, sort: str) -> None:
    found, count = [], 0
    for name, words in SORTS[sort](world):
        count += 1
        outcome = process.run(words)
        problem = wrong_with(outcome)
        if problem is not None:
            last = (outcome.errors.strip().splitlines() or [""])[-1]
            found.append(f"{name}: {problem}: {last[:200]}")
    assert not found, f"{len(found)} end badly:\n" + "\n".join(found)
    assert count


@pytest.mark.parametrize(
    "trial",
    [
        lambda world: world.infer("--input_audio", world.file("a.wav", b"RIFF" + bytes(100))),
        lambda world: world.train_clap(world.file("captions.jsonl", b'{"file": "a.wav", "caption": 7}')),
    ],
)
def test_some_as_real_processes(world: World, trial: Callable[[World], list[str]]) -> None:
    script, *words = trial(world)
    command = [sys.executable, str(REPOSITORY / script), *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ended.returncode == 2
    assert wrong_with(Outcome(2, ended.stdout, ended.stderr)) is None
