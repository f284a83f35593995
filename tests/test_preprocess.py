"""Sound to a token store: which crops and tokens, bad files, several processes, interruptions and kills."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.preprocessing import CONFIG, content_of, preprocess, script_command, settings_of, start
from helpers.processes import run_script
from helpers.small_backbones import build_codec
from helpers.small_stack import CODEC, CPU, Stack, build_stack
from helpers.sound_files import BAD, ODD, write_ramp, write_tone
from safetensors.torch import load_file
from test_trainers import STAGE, run

from open_musiclm import audio
from open_musiclm.audio import find_sounds
from open_musiclm.checkpoints import save_weights
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.preprocess_sounds import preprocess_sounds
from open_musiclm.data.token_dataset import TokenDataset
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError


@pytest.mark.parametrize(("sample_hz", "workers"), [(8000, 0), (44100, 2), (48000, 0)])
def test_every_token_is_of_its_own_time_step(tmp_path: Path, sample_hz: int, workers: int) -> None:
    for name in ("a", "b", "below/c"):
        write_ramp(tmp_path / "sound" / f"{name}.wav", 20.0, sample_hz)
    report = preprocess(settings_of(tmp_path, num_workers=workers), 20.0)
    assert (report.files, report.seconds, report.stored_before, report.failures) == (3, 15, 0, [])
    store = TokenStore(tmp_path / "store", CONFIG)
    assert sorted(store.paths()) == ["a.wav", "b.wav", "below/c.wav"]
    for row in (store[n] for n in range(3)):
        assert row.seconds == 5.0
        start = int(row.start_seconds)
        assert row.clap[:, 0].tolist() == list(range(start, start + 4))
        for ids, rate, count in ((row.semantic, 50, 249), (row.coarse, 75, 375), (row.fine, 75, 375)):
            expected = torch.arange(start * rate, start * rate + count)
            assert len(ids) == count
            # At the very ends of a crop resampling finds zeros.
            assert int((ids[2:-2, 0] - expected[2:-2]).abs().max()) <= 1
    clap, semantic, coarse = TokenDataset(store, range(3), "coarse", CONFIG, seed=0)[5]
    assert float(semantic[20, 0]) / 50 == pytest.approx(float(coarse[30, 0]) / 75, abs=0.04)
    assert int(clap[0, 0]) * 50 <= int(semantic[3, 0])


def test_crops_are_whole_seconds_and_depend_on_seed_and_path_alone(tmp_path: Path) -> None:
    write_ramp(tmp_path / "sound" / "b.wav", 30.0, 8000)
    preprocess(settings_of(tmp_path, num_crops=3), 30.0)
    alone = content_of(tmp_path)
    assert len(alone) == 3
    assert all(start == int(start) and 0 <= start <= 25 for _, start in alone)
    write_ramp(tmp_path / "sound" / "a.wav", 30.0, 8000)
    preprocess(settings_of(tmp_path, num_crops=3, results_folder=str(tmp_path / "again" / "store")), 30.0)
    both = content_of(tmp_path / "again")
    assert {key: both[key] for key in alone} == alone
    assert {start for path, start in both if path == "a.wav"} != {start for _, start in alone}
    preprocess(settings_of(tmp_path, num_crops=3, seed=9, results_folder=str(tmp_path / "other" / "store")), 30.0)
    assert content_of(tmp_path / "other").keys() != both.keys()


def test_crops_that_are_not_random_follow_each_other(tmp_path: Path) -> None:
    write_ramp(tmp_path / "sound" / "a.wav", 13.7, 8000)
    preprocess(settings_of(tmp_path, random_crop=False, num_crops=9, max_audio_length_seconds=4.9), 13.7)
    assert sorted(start for _, start in content_of(tmp_path)) == [0.0, 4.0, 8.0, 9.0]  # the last one ends with the file


@pytest.mark.parametrize("seconds", [3.0, 4.0, 8.0, 9.7, 30.0])
def test_crops_that_are_not_random_hold_the_whole_file(tmp_path: Path, seconds: float) -> None:
    write_ramp(tmp_path / "sound" / "a.wav", seconds, 8000)
    preprocess(settings_of(tmp_path, random_crop=False, num_crops=99, max_audio_length_seconds=4.0), seconds)
    store = TokenStore(tmp_path / "store", CONFIG)
    rows = [store[row] for row in range(len(store))]
    held = {row.start_seconds + second for row in rows for second in range(int(row.seconds))}
    assert held == set(range(int(seconds)))


def test_lengths_of_odd_files(tmp_path: Path) -> None:
    lengths = {0.1: 2, 1.9: 2, 2.0: 2, 3.99: 3, 5.0: 5, 9.5: 5}
    for seconds in lengths:
        write_tone(tmp_path / "sound" / f"{seconds}.wav", seconds, 16000)
    preprocess(settings_of(tmp_path), 1.0)
    store = TokenStore(tmp_path / "store", CONFIG)
    rows = {float(store[row].path.removesuffix(".wav")): store[row] for row in range(len(store))}
    assert {seconds: row.seconds for seconds, row in rows.items()} == lengths
    for row in rows.values():
        counts = [len(row.clap), len(row.semantic), len(row.coarse), len(row.fine)]
        assert counts == [row.seconds - 1, 50 * row.seconds - 1, 75 * row.seconds, 75 * row.seconds]


def test_bad_files_are_skipped_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sound"
    folder.mkdir()
    for name, (write, _) in BAD.items():
        write(folder / name)
    for name, odd in ODD.items():
        odd(folder / name)
    shutil.copyfile(folder / "tenth_of_a_second.wav", os.fsencode(folder) + b"/\xff.wav")
    report = preprocess(settings_of(tmp_path), 3.0)
    assert report.files == len(ODD)
    assert sorted(TokenStore(tmp_path / "store", CONFIG).paths()) == sorted(ODD)
    listed = (tmp_path / "store" / "failed_sounds-00000.txt").read_text().splitlines()
    assert len(listed) == len(BAD) + 1
    assert all(any(name in line for line in listed) for name in BAD)
    assert capsys.readouterr().err.count("skipped: ") == len(BAD) + 1
    again = preprocess(settings_of(tmp_path), 3.0)
    assert (again.files, again.stored_before, len(again.failures)) == (0, len(ODD), len(BAD) + 1)


def test_new_files_are_added(tmp_path: Path) -> None:
    for name in "bdf":
        write_ramp(tmp_path / "sound" / f"{name}.wav", 6.0, 8000)
    preprocess(settings_of(tmp_path), 6.0)
    for name in "ace":
        write_ramp(tmp_path / "sound" / f"{name}.wav", 6.0, 8000)
    report = preprocess(settings_of(tmp_path), 6.0)
    assert (report.files, report.stored_before) == (3, 3)
    assert sorted(path for path, _ in content_of(tmp_path)) == [f"{name}.wav" for name in "abcdef"]


def test_changed_settings_of_stored_files_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ramp(tmp_path / "sound" / "a.wav", 30.0, 8000)
    preprocess(settings_of(tmp_path), 30.0)
    preprocess(settings_of(tmp_path, num_workers=1), 30.0)
    assert "warning" not in capsys.readouterr().err
    write_ramp(tmp_path / "sound" / "b.wav", 30.0, 8000)
    changed = settings_of(tmp_path, num_crops=2, augment={})
    for _ in range(2):
        preprocess(changed, 30.0)
        output = capsys.readouterr().err
        assert "num_crops: 1 there, 2 here" in output
        assert "augment: None there" in output
    assert "the 2 files there stay as they are" in output
    assert len(content_of(tmp_path)) == 3


def test_configs_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_audio_length_seconds: 1\.5, but .* longest window is 2 s"):
        preprocess(settings_of(tmp_path, max_audio_length_seconds=1.5), 1.0)


def test_processes_share_the_work(tmp_path: Path) -> None:
    for n in range(11):
        write_ramp(tmp_path / "sound" / f"{n}.wav", 6.0, 8000)
    settings = settings_of(tmp_path)
    processes = [start(settings, index, 2) for index in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    shared = content_of(tmp_path)
    alone = settings_of(tmp_path, results_folder=str(tmp_path / "alone" / "store"))
    preprocess(alone, 6.0)
    assert shared == content_of(tmp_path / "alone")
    assert preprocess(settings, 6.0).stored_before == 11  # by one process where there were two


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0), (signal.SIGKILL, 1)])
def test_an_interrupted_run_goes_on_to_the_same_store(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    for n in range(24):
        write_ramp(tmp_path / "sound" / f"{n:02}.wav", 6.0, 8000)
    settings = settings_of(tmp_path, num_workers=workers)
    process = start(settings, pause=0.15)
    while not list((tmp_path / "store").glob("*.arrow")):
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.1)
    for _ in range(3):  # as launchers do
        process.send_signal(number)
    assert process.wait(timeout=120) == (-signal.SIGKILL if number == signal.SIGKILL else 3)
    before = len(content_of(tmp_path))
    assert 0 < before < 24
    assert preprocess(settings, 6.0).stored_before == before
    preprocess(settings_of(tmp_path, results_folder=str(tmp_path / "whole" / "store")), 6.0)
    assert content_of(tmp_path) == content_of(tmp_path / "whole")


def test_real_tokenizers_give_the_tokens_of_each_file_alone(stack: Stack, tmp_path: Path) -> None:
    for n, seconds in enumerate((6.0, 6.0, 3.4, 0.7)):
        write_tone(tmp_path / "sound" / f"{n}.flac", seconds, 22050, hz=150 * (n + 1))
    settings = settings_of(tmp_path, clap_batch_size=3)
    tokenizer = stack.tokenizer()
    Preprocessor(stack.config, settings, tokenizer, {}, CPU).run(find_sounds(tmp_path / "sound"))
    store = TokenStore(tmp_path / "store", stack.config)
    assert len(store) == 4
    for row in (store[n] for n in range(4)):
        path = tmp_path / "sound" / row.path
        first, frames = round(row.start_seconds * 22050), round(row.seconds * 22050)
        window = audio.read_window(path, first, frames)
        normal = audio.normalize(window, audio.wave_statistics(path))
        semantic = tokenizer.semantic_ids(audio.resampled(audio.Sound(normal, 22050), 16000)[None])[0]
        acoustic = tokenizer.acoustic_ids(audio.resampled(audio.Sound(window, 22050), 24000)[None])[0]
        for_clap = audio.resampled(audio.Sound(window, 22050), 48000)
        clap = torch.cat([tokenizer.clap_ids(w[None])[0] for w in for_clap.unfold(0, 96000, 48000)])
        # Another batch may round the last digit of a distance the other way.
        assert (row.semantic == semantic).float().mean() > 0.98
        assert (torch.cat([row.coarse, row.fine], dim=1) == acoustic).float().mean() > 0.98
        assert torch.equal(row.clap, clap)
    semantic_example = TokenDataset(store, range(4), "semantic", stack.config, seed=0)[1]
    assert [tuple(ids.shape) for ids in semantic_example] == [(1, 3), (99, 1)]


def test_no_usable_file_is_an_error(stack: Stack, tmp_path: Path) -> None:
    paths = [BAD[name][0](tmp_path / name) for name in ("empty.wav", "text.mp3")]
    tokenizers = (stack.weights("clap_rvq"), stack.weights("hubert_kmeans"))
    with pytest.raises(UserError, match=r"none of its 2 sound files could be used.*empty\.wav"):
        preprocess_sounds(paths, stack.config, settings_of(tmp_path), *tokenizers, device_name="cpu")
    assert len((tmp_path / "store" / "failed_sounds-00000.txt").read_text().splitlines()) == 2


def _command(stack: Stack, tmp_path: Path, *more: str) -> list[str]:
    return [*script_command(stack, settings_of(tmp_path), tmp_path / "training.json"), *more]


def _script(stack: Stack, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return forks.run(_command(stack, tmp_path, *more))


@pytest.mark.slow
def test_the_script(stack: Stack, tmp_path: Path) -> None:
    write_tone(tmp_path / "sound" / "000002.mp3", 4.0, 44100)
    (tmp_path / "sound" / "000003.mp3").write_text("not music")
    first = _script(stack, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "wrote the tokens of 1 files (4 s of sound)" in first.stdout
    assert "could not use" in first.stdout
    assert len(TokenStore(tmp_path / "store", stack.config)) == 1
    filtered = _script(stack, tmp_path, "--filter_fma")
    assert filtered.returncode == 2
    assert "data_preprocessor_cfg.metadata_folder" in filtered.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_script_tells_a_signal_by_its_exit_status(stack: Stack, tmp_path: Path, number: signal.Signals) -> None:
    for n in range(20):
        write_tone(tmp_path / "sound" / f"{n:02}.wav", 6.0, 16000)
    process = forks.Fork(_command(stack, tmp_path), cwd=REPOSITORY)
    while not (tmp_path / "store" / "store.json").exists():
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    command = printed.splitlines()[-1].removeprefix("interrupted; resume with: python ")
    again = forks.run(command.split(), cwd=REPOSITORY)
    assert again.returncode == 0, again.stderr
    assert len(TokenStore(tmp_path / "store", stack.config)) == 20


@pytest.mark.slow
def test_accelerate_shares_the_script_among_processes(stack: Stack, tmp_path: Path) -> None:
    for name in "ace":
        write_tone(tmp_path / "sound" / f"{name}.wav", 3.0, 16000)
    for name in "bdf":  # all that the second process has
        (tmp_path / "sound" / f"{name}.wav").write_text("not music")
    script, *words = _command(stack, tmp_path)
    run_script(Path(script), words, processes=2)
    assert sorted(TokenStore(tmp_path / "store", stack.config).paths()) == ["a.wav", "c.wav", "e.wav"]
    assert len((tmp_path / "store" / "failed_sounds-00001.txt").read_text().splitlines()) == 3
    again = _script(stack, tmp_path)
    assert "wrote the tokens of 0 files" in again.stdout
    assert "3 were there before, 3 could not be used" in again.stdout


def test_a_store_is_not_continued_with_another_backbone(tmp_path: Path) -> None:
    """Its tokens would be of two codecs; the config, which names it by its place, is the same."""
    stack = build_stack(tmp_path / "model")
    paths = [write_tone(tmp_path / "sound" / f"{name}.wav", 3.0, 16000) for name in "ab"]
    tokenizers = (stack.weights("clap_rvq"), stack.weights("hubert_kmeans"))
    preprocess_sounds(paths[:1], stack.config, settings_of(tmp_path), *tokenizers, device_name="cpu")
    preprocess_sounds(paths, stack.config, settings_of(tmp_path), *tokenizers, device_name="cpu")
    build_codec(stack.folder / "encodec", CODEC, seed=1)
    with pytest.raises(UserError, match="another checkpoint of encodec; give that one"):
        preprocess_sounds(paths, stack.config, settings_of(tmp_path), *tokenizers, device_name="cpu")


def test_a_stage_refuses_tokens_of_another_quantizer(tmp_path: Path) -> None:
    stack, other = build_stack(tmp_path / "model"), tmp_path / "other.safetensors"
    paths = [write_tone(tmp_path / "sound" / f"{name}.wav", 3.0, 16000) for name in "ab"]
    tokenizers = (stack.weights("clap_rvq"), stack.weights("hubert_kmeans"))
    preprocess_sounds(paths, stack.config, settings_of(tmp_path), *tokenizers, device_name="cpu")
    weights = load_file(tokenizers[0])
    save_weights(other, "clap_rvq", {name: tensor.flip(-1) for name, tensor in weights.items()}, stack.config)
    section = {"stage": "semantic", "folder": str(tmp_path / "store"), "use_preprocessed_data": True, "valid_frac": 0.0}
    training_config = tmp_path / "training.json"
    training_config.write_text(json.dumps({"semantic_trainer_cfg": STAGE | section}))
    words = ["--model_config", stack.model_config, "--training_config", training_config, "--results_folder"]
    with pytest.raises(UserError, match="another checkpoint of clap_rvq; give that one"):
        run("train_semantic_stage", *words, tmp_path / "run", "--rvq_path", other)
    run("train_semantic_stage", *words, tmp_path / "run", "--rvq_path", tokenizers[0], "--kmeans_path", tokenizers[1])
    run("train_semantic_stage", *words, tmp_path / "without")
