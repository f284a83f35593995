"""An error of one file in a data worker: the file is named and skipped, and no worker is said to have died."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from helpers.preprocessing import content_of, preprocess, settings_of
from helpers.sound_files import write_ramp
from torch._utils import ExceptionWrapper

from open_musiclm.audio import SoundInfo, header_info
from open_musiclm.config import TrainerConfig
from open_musiclm.data import statistics
from open_musiclm.data.crops import Crop
from open_musiclm.data.failures import SoundFailure, as_sound_error, first_usable
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.workers import is_death
from open_musiclm.errors import UserError
from open_musiclm.training.data_stream import TrainingStream
from open_musiclm.training.failure_list import FailureList
from open_musiclm.training.sound_data import sound_data

ERRORS = {
    "memory": (MemoryError("76.0 TiB"), "needs more memory than there is; split it"),
    "torch": (RuntimeError("DefaultCPUAllocator: can't allocate\nmore"), "RuntimeError: DefaultCPUAllocator"),
    "file": (FileNotFoundError(2, "gone"), "FileNotFoundError"),
    "end": (EOFError(), "EOFError"),
    "value": (ValueError("array is too big"), "ValueError: array is too big"),
}


def _failing_at(name: str, error: Exception) -> Callable[[Path], SoundInfo]:
    def failing(path: Path) -> SoundInfo:
        if path.name == name:
            raise error
        return header_info(path)

    return failing


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("workers", [0, 2])
def test_preprocessing_skips_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, workers: int) -> None:
    error, message = ERRORS[name]
    for number in range(5):
        write_ramp(tmp_path / "sound" / f"{number}.wav", 6.0, 8000)
    monkeypatch.setattr(statistics, "header_info", _failing_at("3.wav", error))
    report = preprocess(settings_of(tmp_path, num_workers=workers), 6.0)
    assert [failure.path.name for failure in report.failures] == ["3.wav"]
    assert message in report.failures[0].reason
    assert "\n" not in report.failures[0].reason
    assert {place[0] for place in content_of(tmp_path)} == {f"{number}.wav" for number in (0, 1, 2, 4)}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_with_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, workers: int
) -> None:
    error, message = ERRORS[name]
    for number in range(4):
        write_ramp(tmp_path / "sound" / f"{number}.wav", 2.0)
    monkeypatch.setattr(statistics, "header_info", _failing_at("3.wav", error))
    crops = [Crop("clap", 1.0, 16000, normalized=False)]
    config = TrainerConfig(
        folder=str(tmp_path / "sound"), num_train_steps=1, batch_size=2, num_workers=workers, valid_frac=0.0
    )
    data = sound_data(config, crops, StatisticsCache())
    accelerator = Accelerator(cpu=True)
    failures = FailureList(tmp_path / "failed.txt", accelerator)
    stream = TrainingStream(data, accelerator, failures, position=0)
    try:
        batches = list(stream.take(4))
    finally:
        stream.close()
    assert all(indexed.batch.waves["clap"].shape == (2, 16000) for indexed in batches)
    assert list(failures.reasons) == [str(tmp_path / "sound" / "3.wav")]
    assert message in failures.reasons[str(tmp_path / "sound" / "3.wav")]


def test_a_resumed_run_adds_to_the_list_of_failures(tmp_path: Path) -> None:
    for name in ("old.mp3", "new.mp3", "\udcff.mp3"):
        failures = FailureList(tmp_path / "failed.txt", Accelerator(cpu=True))
        failures.add([SoundFailure(tmp_path / name, f"{name}: damaged")])
        failures.report()
    lines = (tmp_path / "failed.txt").read_text().splitlines()
    assert lines == ["old.mp3: damaged", "new.mp3: damaged", "\\udcff.mp3: damaged"]


@pytest.mark.parametrize("error", [RuntimeError, EOFError, ConnectionResetError, FileNotFoundError, MemoryError])
def test_an_exception_in_a_worker_is_no_death(error: type[Exception]) -> None:
    try:
        raise error("something else")
    except error:
        from_worker = ExceptionWrapper(where="in DataLoader worker process 0")  # as a worker hands it over
    with pytest.raises(error) as caught:
        from_worker.reraise()
    assert not is_death(caught.value)


def test_other_errors_for_the_user_stay_what_they_are() -> None:
    """A disk that refuses is no fault of a sound file."""
    with pytest.raises(UserError, match=r"^cannot write$"), as_sound_error(Path("a.wav")):
        raise UserError("cannot write")


def test_all_files_fail() -> None:
    def fail(path: Path) -> None:
        raise MemoryError

    with pytest.raises(UserError, match=r"none of the 2 sound files can be used; the first one is a\.wav: needs more"):
        first_usable([Path("a.wav"), Path("b.wav")], fail, lambda path: path)
