"""The token store: shards, several writers, kills, other configs; and examples whose streams share their start."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from helpers.small_tokens import FINGERPRINTS, SIZE, description, time_config, time_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from open_musiclm.config import EncodecConfig, HubertKmeansConfig, ModelConfig, SemanticConfig, StageName
from open_musiclm.data.example_order import ExampleSampler
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.split import split
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError
from open_musiclm.tokens import STREAM_NAMES

CONFIG = time_config()
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORK = multiprocessing.get_context("fork")


def _equal(left: StoredTokens, right: StoredTokens) -> bool:
    return (left.path, left.start_seconds, left.seconds) == (right.path, right.start_seconds, right.seconds) and all(
        torch.equal(getattr(left, name), getattr(right, name)) for name in STREAM_NAMES
    )


def _fill(folder: Path, rows: list[StoredTokens], config: ModelConfig = CONFIG, shard_bytes: int = 1 << 14) -> None:
    with TokenStoreWriter(folder, description(config), shard_bytes=shard_bytes) as writer:
        for row in rows:
            writer.add([row])


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("tokens-*.arrow"))


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [time_row(CONFIG, 2 + n % 5, f"höhle/{n}.wav", first=n) for n in range(40)]
    _fill(tmp_path, rows)
    assert len(_shards(tmp_path)) > 3
    store = TokenStore(tmp_path, CONFIG)
    assert len(store) == 40
    assert all(_equal(store[place], row) for place, row in enumerate(rows))
    assert store.paths() == [row.path for row in rows]
    for beyond in (-1, 40):
        with pytest.raises(IndexError):
            store[beyond]


def test_rows_of_one_acoustic_stage_come_back(tmp_path: Path) -> None:
    windows = CONFIG.global_cfg.model_copy(update={"num_fine_quantizers": 0})
    config = CONFIG.model_copy(update={"global_cfg": windows})
    row = time_row(config, 3)
    _fill(tmp_path, [row], config)
    found = TokenStore(tmp_path, config)[0]
    assert torch.equal(found.coarse, row.coarse)
    assert found.fine.numel() == 0


def test_pandas_reads_a_shard(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 3)])
    with pa.memory_map(str(_shards(tmp_path)[0])) as file:
        table = pa.ipc.open_stream(file).read_pandas()
    assert list(table.columns) == ["path", "start_seconds", "seconds", "clap", "semantic", "coarse", "fine"]
    assert table["clap"][0].dtype == "uint16"
    assert list(table["coarse"][0][:6]) == [0, 0, 1, 1, 2, 2]
    described = json.loads((tmp_path / "store.json").read_text())
    assert described["tokens_per_second"] == {"clap": 1, "semantic": 50, "coarse": 75, "fine": 75}
    assert described["quantizers"] == {"clap": 2, "semantic": 1, "coarse": 2, "fine": 3}


def test_large_codebooks(tmp_path: Path) -> None:
    large = HubertKmeansConfig(codebook_size=100_000)
    config = CONFIG.model_copy(update={"hubert_kmeans_cfg": large})
    row = time_row(config, 2)
    row.semantic[:] = 99_999
    _fill(tmp_path, [row], config)
    assert int(TokenStore(tmp_path, config)[0].semantic.min()) == 99_999


def _write_share(folder: Path, process: int, count: int) -> None:
    with TokenStoreWriter(folder, description(CONFIG), process, shard_bytes=1 << 14) as writer:
        for n in range(process, count, 2):
            writer.add([time_row(CONFIG, 3, f"{n:03}.wav", first=n)])


def test_two_processes_write_one_store(tmp_path: Path) -> None:
    processes = [FORK.Process(target=_write_share, args=(tmp_path, process, 60)) for process in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = TokenStore(tmp_path, CONFIG)
    assert sorted(store.paths()) == [f"{n:03}.wav" for n in range(60)]
    assert all(_equal(store[row], time_row(CONFIG, 3, path, int(path[:3]))) for row, path in enumerate(store.paths()))


def test_one_part_of_a_store_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with TokenStoreWriter(tmp_path, description(CONFIG)):
        process = FORK.Process(target=_refused, args=(tmp_path,))
        process.start()
        process.join()
    assert process.exitcode == 0
    with TokenStoreWriter(tmp_path, description(CONFIG)):
        pass


def _refused(folder: Path) -> None:
    with pytest.raises(UserError, match="another run is writing"):
        TokenStoreWriter(folder, description(CONFIG))


def _write_what_is_missing(folder: Path, count: int, pause: float) -> None:
    with TokenStoreWriter(folder, description(CONFIG), shard_bytes=1 << 13) as writer:
        stored = writer.stored_paths()
        for n in range(count):
            if f"{n:03}.wav" not in stored:
                writer.add([time_row(CONFIG, 3, f"{n:03}.wav", first=n)])
                time.sleep(pause)


@pytest.mark.parametrize("shards", [0, 3, 10])
def test_a_killed_writer_leaves_whole_shards_and_goes_on(tmp_path: Path, shards: int) -> None:
    process = FORK.Process(target=_write_what_is_missing, args=(tmp_path, 100, 0.005))
    process.start()
    while len(_shards(tmp_path)) < shards:
        time.sleep(0.001)
        assert process.is_alive()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (tmp_path / ".99.tokens-00000-000777-3.arrow").write_bytes(b"what a kill leaves of a shard")
    before = len(TokenStore(tmp_path, CONFIG)) if _shards(tmp_path) else 0
    assert before < 100
    _write_what_is_missing(tmp_path, 100, 0.0)
    store = TokenStore(tmp_path, CONFIG)
    assert sorted(store.paths()) == [f"{n:03}.wav" for n in range(100)]
    assert all(_equal(store[row], time_row(CONFIG, 3, path, int(path[:3]))) for row, path in enumerate(store.paths()))
    assert list(tmp_path.glob(".*.arrow")) == []


def test_what_makes_no_other_tokens_may_differ(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 4)])
    moved = CONFIG.hubert_kmeans_cfg.model_copy(update={"model_name": "./elsewhere"})
    shorter = time_config(semantic=1.0, coarse=0.8, fine=0.4)
    config = shorter.model_copy(update={"semantic_cfg": SemanticConfig(dim=8), "hubert_kmeans_cfg": moved})
    assert len(TokenStore(tmp_path, config)) == 1
    _fill(tmp_path, [time_row(CONFIG, 4)], config)


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("global_cfg", {"clap_audio_length_seconds": 1.0}, "global_cfg.clap_audio_length_seconds: 2.0 there, 1.0 here"),
        ("global_cfg", {"semantic_audio_length_seconds": 8.0}, "semantic_audio_length_seconds is 8.0"),
        ("clap_rvq_cfg", {"rq_num_quantizers": 5}, "clap_rvq_cfg.rq_num_quantizers: 2 there, 5 here"),
        ("hubert_kmeans_cfg", {"embed_layer": 3}, "hubert_kmeans_cfg.embed_layer: 7 there, 3 here"),
        ("encodec_cfg", {"bandwidth": 3.0}, "encodec_cfg.bandwidth: 6.0 there, 3.0 here"),
    ],
)
def test_another_config_is_refused_by_name(tmp_path: Path, section: str, change: dict, named: str) -> None:
    _fill(tmp_path, [time_row(CONFIG, 4)])
    config = CONFIG.model_copy(update={section: getattr(CONFIG, section).model_copy(update=change)})
    with pytest.raises(UserError, match=named):
        TokenStore(tmp_path, config)
    with pytest.raises(UserError, match=named):
        TokenStoreWriter(tmp_path, description(config))
    with TokenStoreWriter(tmp_path, description(CONFIG)):  # a refusal keeps nobody out
        pass


def test_tokens_of_another_checkpoint_are_not_mixed_in(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 4)])
    with pytest.raises(UserError, match="another checkpoint of hubert_kmeans;"):
        TokenStoreWriter(tmp_path, StoreDescription(CONFIG, {**FINGERPRINTS, "hubert_kmeans": "c"}))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run scripts/preprocess_data\.py first"):
        TokenStore(tmp_path, CONFIG)
    with TokenStoreWriter(tmp_path, description(CONFIG)):
        pass
    with pytest.raises(UserError, match="holds no tokens yet"):
        TokenStore(tmp_path, CONFIG)


@pytest.mark.parametrize("content", ["", "[]", '{"format_version": 2}', '{"format_version": 1, "model_config": {}}'])
def test_a_bad_description(tmp_path: Path, content: str) -> None:
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(UserError, match=r"store\.json"):
        TokenStore(tmp_path, CONFIG)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 4)])
    shard = _shards(tmp_path)[0]
    content = shard.read_bytes()
    for damaged in (content[:500], content[: len(content) // 2], b"", b"not a shard"):
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{shard.name}: .*remove"):
            TokenStore(tmp_path, CONFIG)[0]


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write there"):
        TokenStoreWriter(tmp_path / "file", description(CONFIG))


@FEW
@given(data=st.data())
@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_all_sequences_of_an_example_start_at_the_same_instant(
    tmp_path: Path, stage: StageName, data: st.DataObject
) -> None:
    semantic_hz = data.draw(st.sampled_from([50, 75, 25, 30]))
    grid = time_config(4, 2, 2, 2, semantic_hz).token_grid
    ticks = sorted((data.draw(st.integers(2, int(4 / grid))) for _ in range(3)), reverse=True)
    windows = [float(tick * grid) for tick in ticks]
    config = time_config(*windows, clap=data.draw(st.sampled_from([1.0, 2.0, 3.5])), semantic_hz=semantic_hz)
    first, seconds = data.draw(st.integers(0, 9)), data.draw(st.integers(4, 12))
    shutil.rmtree(tmp_path)
    _fill(tmp_path, [time_row(config, seconds, first=first)], config)
    dataset = TokenDataset(TokenStore(tmp_path, config), [0], stage, config, seed=data.draw(st.integers(-2, 5)))
    clap, *rest = dataset[data.draw(st.integers(0, 1000))]
    rates = {"semantic": [semantic_hz], "coarse": [semantic_hz, 75], "fine": [75, 75]}[stage]
    quantizers = {"semantic": [1], "coarse": [1, 2], "fine": [2, 3]}[stage]
    window = windows[["semantic", "coarse", "fine"].index(stage)]
    assert clap.shape == (1, 2)
    counts = [round(window * rate) - (1 if width == 1 else 0) for rate, width in zip(rates, quantizers, strict=True)]
    assert [tuple(ids.shape) for ids in rest] == list(zip(counts, quantizers, strict=True))
    starts = [float(ids[0, 0]) / rate for ids, rate in zip(rest, rates, strict=True) if len(ids)]
    outer = float(clap[0, 0])
    for start, ids in zip(starts, [ids for ids in rest if len(ids)], strict=True):
        assert start == pytest.approx(starts[0], abs=1e-9)
        assert outer - 1e-9 <= start <= outer + windows[0] - window + 1e-9
        assert torch.equal(ids, ids[:1] + torch.arange(len(ids))[:, None])
    assert first <= outer <= first + seconds - max(windows[0], config.global_cfg.clap_audio_length_seconds) + 1e-9


def test_examples_start_everywhere(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 10)])
    dataset = TokenDataset(TokenStore(tmp_path, CONFIG), [0], "coarse", CONFIG, seed=0)
    examples = [dataset[index] for index in range(300)]
    assert {int(clap[0, 0]) for clap, _, _ in examples} == set(range(9))
    offsets = {int(coarse[0, 0]) - 75 * int(clap[0, 0]) for clap, _, coarse in examples}
    assert offsets == set(range(0, 61, 3))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_stream(tmp_path: Path, context: str) -> None:
    _fill(tmp_path, [time_row(CONFIG, 3 + n % 3, f"{n}.wav", first=n) for n in range(20)])
    dataset = TokenDataset(TokenStore(tmp_path, CONFIG), range(20), "fine", CONFIG, seed=7)
    expected = [dataset[index] for index in range(8)]  # the parent has mapped shards, too
    loader = DataLoader(dataset, 4, sampler=ExampleSampler(0, 4, 0, 1), num_workers=1, multiprocessing_context=context)
    for step, batch in zip(range(2), loader, strict=False):
        for place in range(4):
            assert all(torch.equal(ids[place], own) for ids, own in zip(batch, expected[step * 4 + place], strict=True))


def test_rows_of_a_file_stay_on_one_side(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 3, f"{n % 10}.wav", first=n) for n in range(40)])
    store = TokenStore(tmp_path, CONFIG)
    train, valid = (rows.tolist() for rows in split_rows(store, 0.2, seed=0))
    assert sorted(train + valid) == list(range(40))
    assert len(valid) == 8
    assert {store[row].path for row in train}.isdisjoint(store[row].path for row in valid)
    assert [rows.tolist() for rows in split_rows(store, 0.0, seed=0)] == [list(range(40)), []]
    names = split(sorted(set(store.paths())), 0.2, seed=0)[1]  # as on-the-fly training divides the files
    assert {store[row].path for row in valid} == set(names)
    with pytest.raises(UserError, match="no rows are left"):
        TokenDataset(store, [], "fine", CONFIG, seed=0)


def test_a_store_opens_without_its_shards_and_maps_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = time_row(CONFIG, 4)
    _fill(tmp_path, [row] * 3000, shard_bytes=1 << 16)
    mapped: list[str] = []
    memory_map = pa.memory_map
    monkeypatch.setattr(pa, "memory_map", lambda path: (mapped.append(path), memory_map(path))[1])
    store = TokenStore(tmp_path, CONFIG)
    dataset = TokenDataset(store, range(len(store)), "fine", CONFIG, seed=0)
    assert len(store) == 3000
    assert mapped == []
    for index in range(1000):
        dataset[index]
    assert sorted(mapped) == [str(path) for path in _shards(tmp_path)]
    assert len(mapped) > 50
    assert sum("tokens-" in os.readlink(f"/proc/self/fd/{n}") for n in _descriptors()) == 0


def _descriptors() -> list[str]:
    return [n for n in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{n}")]


def test_unused_sections_do_not_matter(tmp_path: Path) -> None:
    _fill(tmp_path, [time_row(CONFIG, 4)])
    renamed = CONFIG.model_copy(update={"encodec_cfg": EncodecConfig(codebook_size=SIZE, model_name="./codec")})
    assert len(TokenStore(tmp_path, renamed)) == 1
