"""Checks the tensor shapes in the package's signatures while the tests run; a small model and a run for all tests."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import helpers.typechecker
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"
# Each test process has its own folder for code that comes with a model: two that write one at once break it.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="open_musiclm_tests_")
# Under nohup this process ignores the signal, and its children would too; a handler is not passed on to them.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
install_import_hook(["open_musiclm", "demo"], "helpers.typechecker.checked")

import numpy as np  # noqa: E402 (the hook has to come first)
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from helpers.small_stack import Stack, build_stack  # noqa: E402
from hypothesis import settings  # noqa: E402

from open_musiclm.data.shards import StoredTokens  # noqa: E402
from open_musiclm.data.store_description import StoreDescription  # noqa: E402
from open_musiclm.data.token_store_writer import TokenStoreWriter  # noqa: E402

# A busy machine is no fault of a test; the blob repeats a failure.
settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")
SLOWEST = (
    *("test_wrong_inputs", "test_mutated_sounds", "test_clap_laion", "test_clap", "test_atlas_measures"),
    *("test_preprocess_faults", "test_training_forward", "test_evaluate_sets", "test_instrument_matching"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first: of several processes none is then left with one of them at the end."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


@pytest.fixture(autouse=True)
def checks_of_signatures() -> None:
    """Each test begins with them."""
    helpers.typechecker.check_the_next_calls()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A whole small model on disk."""
    return build_stack(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of noise of 2.5 s, and one that is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    noise = np.random.default_rng(0)
    for number in range(7):
        soundfile.write(folder / f"{number}.wav", noise.normal(0, 0.1, 40000), 16000)
    (folder / "broken.wav").write_bytes(b"no sound at all")
    return folder


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Path:
    """A token store of six files of 3 s with random tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    config = stack.config
    generator = torch.Generator().manual_seed(0)

    def draw(codes: int, time: int, quantizers: int) -> torch.Tensor:
        return torch.randint(codes, (time, quantizers), generator=generator)

    rvq, acoustic = config.clap_rvq_cfg, config.encodec_cfg
    with TokenStoreWriter(folder, StoreDescription(config, {})) as writer:
        for number in range(6):
            clap = draw(rvq.codebook_size, 2, rvq.rq_num_quantizers)
            semantic = draw(config.hubert_kmeans_cfg.codebook_size, 3 * 50 - 1, 1)
            coarse, fine = (draw(acoustic.codebook_size, 3 * acoustic.output_hz, count) for count in (3, 5))
            writer.add([StoredTokens(f"{number}.wav", 0.0, 3.0, clap, semantic, coarse, fine)])
    return folder


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Each test begins a run of its own."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run of six steps."""
    from helpers.run_folders import train  # which imports much

    folder = tmp_path_factory.mktemp("finished") / "run"
    train(folder)
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
