"""The page without a browser: its API over HTTP, what it refuses, and what it keeps."""

import asyncio
import gc
import inspect
import io
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from helpers import forks
from helpers.app_serving import LIMITS, ServedApp, free_port, served_app
from helpers.small_stack import Stack

pytest.importorskip("gradio", reason="gradio is not installed")

from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError

from open_musiclm import Prompt, Story
from open_musiclm.app.handlers import Handlers
from open_musiclm.app.history import History
from open_musiclm.app.jobs import Job as RunnerJob
from open_musiclm.app.jobs import JobRunner
from open_musiclm.app.limits import Limits
from open_musiclm.app.page import build_page
from open_musiclm.app.server import check_server, served
from open_musiclm.app.uploads import read_upload, remove_oldest
from open_musiclm.audio import is_longer, read_sound
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError


class App:
    """A page that is served, and how the tests talk to it."""

    def __init__(self, behind: ServedApp) -> None:
        self.address, self.model, self.gate, self.folder = behind.address, behind.model, behind.gate, behind.folder
        self.client = Client(self.address, verbose=False)

    def generate(self, prompt: Any = None, **named: Any) -> Any:
        return self.client.predict(prompt, **named, api_name="/generate")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path)

    def post(self, path: str, **named: Any) -> httpx.Response:
        return httpx.post(f"{self.address}gradio_api/{path}", **named)


def first_answer(job: Job) -> Any:
    """Asked for now and then: next(job) all but keeps the client's lock, and has no end where the job is cancelled."""
    while not job.outputs():
        assert not job.done()
        time.sleep(0.02)
    return job.outputs()[0]


@pytest.fixture(scope="module")
def app(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with served_app(stack, tmp_path_factory.mktemp("results")) as behind:
        yield App(behind)


def test_what_is_asked_for_is_generated(app: App) -> None:
    answer = app.generate("slow piano", seed=5, duration=1.5, num_samples=2)
    assert answer["finished"]
    config = app.model.generation_config.updated({"seed": 5})
    assert any("slow piano" in asked for asked in app.gate.asked)
    waves = app.model.generate("slow piano", 1.5, 2, config)
    for number, (sample, wave) in enumerate(zip(answer["samples"], waves, strict=True)):
        heard, sample_hz = soundfile.read(io.BytesIO(app.get(sample["sound"]).content), dtype="float32")
        assert sample_hz == app.model.sample_hz
        torch.testing.assert_close(torch.from_numpy(heard), wave.clamp(-1, 1), rtol=0, atol=1e-4)
        story = app.get(sample["json"]).json()
        assert (story["prompt"], story["seed"], story["sample"]) == ("slow piano", 5, number)
        assert story["similarity"] == sample["similarity"]
        assert app.get(sample["spectrogram"]).content.startswith(b"\x89PNG")


def test_sound_is_heard_while_it_is_made(app: App) -> None:
    app.gate.opened.clear()
    job = app.client.submit("fast flute", duration=2.4, num_samples=1, api_name="/generate")
    first = first_answer(job)
    whole = 44 + 2 * round(2.4 * app.model.sample_hz)
    with httpx.stream("GET", app.address + first["samples"][0]["sound"], timeout=60) as response:
        blocks = response.iter_bytes()
        heard = b""
        while len(heard) <= 44:
            heard += next(blocks)
        assert len(heard) < whole
        app.gate.opened.set()
        heard += b"".join(blocks)
    assert len(heard) == whole
    played, _ = soundfile.read(io.BytesIO(heard))
    written, _ = soundfile.read(io.BytesIO(app.get(job.result()["samples"][0]["sound"]).content))
    np.testing.assert_allclose(played, written, atol=1e-4)


def test_a_finished_job_keeps_no_sound_and_its_readers_go_on() -> None:
    job = RunnerJob("slow piano", GenerationConfig(duration=1.0, num_samples=1), 8000)
    (sound,) = job.sounds
    sound.append(torch.zeros(4000))

    async def read() -> list[int]:
        reader = sound.follow()
        sizes = [len(await anext(reader))]
        sound.append(torch.zeros(4000))
        job.end()
        sizes += [len(block) async for block in reader]
        return [*sizes, *[len(block) async for block in sound.follow()]]

    assert asyncio.run(read()) == [44 + 8000, 8000]
    assert sound.seconds == 1


def test_cancelling_stops_the_generation(app: App) -> None:
    app.gate.opened.clear()
    before = app.gate.chunks
    job = app.client.submit("slow organ", duration=4, num_samples=1, api_name="/generate")
    sound = first_answer(job)["samples"][0]["sound"]
    with httpx.stream("GET", app.address + sound, timeout=60) as response:
        blocks = response.iter_bytes()
        while app.gate.chunks == before:
            next(blocks)
        job.cancel()  # the server has closed the job when this returns
        app.gate.opened.set()
        assert sum(map(len, blocks)) < 2 * 4 * app.model.sample_hz  # its end, for nothing more comes
    assert app.gate.chunks - before <= 2  # one more than was heard
    assert app.get(sound).status_code == 404
    assert app.generate("slow organ", duration=0.5, num_samples=1)["finished"]  # the next one runs


def test_style_sounds(app: App, sounds: Path, tmp_path: Path) -> None:
    style = tmp_path / "style.wav"
    soundfile.write(style, soundfile.read(sounds / "0.wav")[0][:24000], 16000)
    asked = {"duration": 0.8, "num_samples": 1}
    for text, prompt in ((None, Prompt(audio=read_sound(style))), ("a", Prompt("a", read_sound(style)))):
        answer = app.generate(text, style_sound=handle_file(style), **asked)
        (wave,) = app.model.generate(prompt, 0.8, 1)
        heard, _ = soundfile.read(io.BytesIO(app.get(answer["samples"][0]["sound"]).content), dtype="float32")
        torch.testing.assert_close(torch.from_numpy(heard), wave.clamp(-1, 1), rtol=0, atol=1e-4)


def test_stories(app: App) -> None:
    answer = app.generate(story="0:slow piano; 0.6:choir", crossfade=0.4, duration=1.2, num_samples=1)
    story = Story([(0, "slow piano"), (0.6, "choir")], crossfade=0.4)
    (wave,) = app.model.generate(story, 1.2, 1)
    heard, _ = soundfile.read(io.BytesIO(app.get(answer["samples"][0]["sound"]).content), dtype="float32")
    torch.testing.assert_close(torch.from_numpy(heard), wave.clamp(-1, 1), rtol=0, atol=1e-4)
    told = app.get(answer["samples"][0]["json"]).json()
    assert [part["seconds"] for part in told["story"]] == [0, 0.6]
    assert told["crossfade"] == 0.4


def test_defaults_stay_within_the_limits() -> None:
    config = Limits(duration=30, samples=4).within(GenerationConfig(duration=60, num_samples=2))
    assert (config.duration, config.num_samples) == (30, 2)


@pytest.mark.parametrize(
    ("duration", "limits"),
    [(10.0, Limits(samples=1)), (10.0, Limits(duration=1.0)), (10.0, Limits(duration=0.4)), (0.5, Limits())],
)
def test_the_page_accepts_its_own_defaults(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duration: float, limits: Limits
) -> None:
    for name in ("generate", "generate_on_page"):  # gradio tells generators by what the type checks wrap
        monkeypatch.setattr(Handlers, name, inspect.unwrap(getattr(Handlers, name)))
    model = stack.musiclm()
    model.generation_config = GenerationConfig(duration=duration, num_samples=4)
    runner = JobRunner(model, {}, limits, History(tmp_path, limits.results))
    page = build_page(Handlers(runner, tmp_path))
    fields = {block.label: block for block in page.blocks.values() if hasattr(block, "label")}
    wanted = {"Duration (seconds)": min(duration, limits.duration), "Samples": min(4, limits.samples)}
    for name, value in wanted.items():
        assert fields[name].preprocess(fields[name].value) == value
    assert fields["Samples"].interactive is (False if limits.samples == 1 else None)


def test_style_sounds_that_cannot_be_used(app: App, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound at all")
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 3), 8000)
    for name, message in (("broken.wav", "not a sound file"), ("long.wav", "longer than 2 s")):
        with pytest.raises(AppError, match=rf"^style sound: {name}: {message}"):
            app.generate("slow piano", style_sound=handle_file(tmp_path / name))
    with pytest.raises(AppError, match="not uploaded here"):
        app.generate("slow piano", style_sound=[7])
    for nothing in ({}, {"path": None, "url": "http://127.0.0.1/a.wav"}):
        with pytest.raises(AppError, match="not uploaded here"):
            app.generate("slow piano", style_sound=nothing)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"duration": 5}, r"duration 5: at most 4 s are allowed here"),
        ({"num_samples": 3}, r"num_samples 3: at most 2 are allowed here"),
        ({"num_samples": "many"}, r"num_samples"),
        ({"seed": 2**70}, r"seed"),
        ({"guidance": [1, 2]}, r"expected one number, or one for each of semantic, coarse, fine"),
        ({"guidance": 3, "num_samples": 1}, r"condition_dropout"),
        ({"negative_prompt": "choir"}, r"negative_prompt 'choir' needs guidance"),
        ({"prompt": " "}, r"a prompt is empty"),
        ({"prompt": None}, r"^no prompt: describe the music"),
        ({"prompt": ["a", "b"]}, r"expected texts"),
        ({"story": "0:a; 1:b"}, r"^story: has all prompts in it; leave the prompt out"),
        ({"prompt": None, "story": "calm piano"}, r"^story: 'calm piano' is not SECONDS:PROMPT"),
        ({"prompt": None, "story": "0:"}, r"a prompt is empty"),
        ({"prompt": None, "story": {"0": "a"}}, r"^story: expected a text"),
        (
            {"prompt": None, "story": "0:a; 3:b", "duration": 2, "num_samples": 1},
            r"^story: .* beyond the duration of 2 s",
        ),
        ({"prompt": None, "story": "0:a; 1:b; 2:c", "crossfade": 2}, r"^story: a crossfade of 2 s is longer"),
        ({"crossfade": 1}, r"^crossfade: there is no story"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(app: App, given: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=message):
        app.generate(**{"prompt": "slow piano", **given})


def test_an_argument_that_there_is_not_is_told(app: App) -> None:
    answer = app.post("call/v2/generate", json={"prompt": "slow piano", "colour": 2})
    assert answer.status_code == 400
    assert "colour" in answer.text
    assert "\n" not in answer.text


def test_only_so_many_wait(app: App) -> None:
    app.gate.opened.clear()
    body = {"prompt": "slow piano", "duration": 0.5, "num_samples": 1}
    codes = [app.post("call/v2/generate", json=body).status_code for _ in range(LIMITS.waiting + 4)]
    app.gate.opened.set()
    assert codes[: LIMITS.waiting] == [200] * LIMITS.waiting
    assert codes[-1] == 503


@pytest.mark.parametrize("route", ["run/generate", "run/generate/", "api/generate", "run/predict"])
def test_no_route_passes_the_queue_by(app: App, route: str) -> None:
    """Jobs of other tests may still run."""
    body = {"data": ["past the queue", 0, 0.5, 1, None, None, None, None, None], "api_name": "/generate"}
    assert app.post(route, json=body).status_code >= 300
    assert not any("past the queue" in asked for asked in app.gate.asked)


def test_only_the_upload_itself_may_be_large_or_name_any_file(app: App) -> None:
    named = {"path": "http://example.invalid/a.wav", "meta": {"_type": "gradio.FileData"}}
    assert app.post("run/upload", json={"data": [named], "fn_index": 0}).status_code == 400
    assert app.post("run/upload", json={"data": ["a" * LIMITS.request_bytes]}).status_code == 413


@pytest.mark.parametrize("path", ["/etc/passwd", "http://example.com/a.wav", "../setup.py", 7])
def test_files_that_were_not_uploaded_are_refused(app: App, path: Any) -> None:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in (named, [[named]], {"a": named}):
        answer = app.post("call/generate", json={"data": [data, 0, 0.5, 1, None, None, None]})
        assert (answer.status_code, answer.text) == (400, "a file is named that was not uploaded here")


def test_nothing_else_is_given_or_fetched(app: App) -> None:
    for path in ("/etc/passwd", str(Path(__file__).resolve()), str(app.folder)):
        assert app.get(f"gradio_api/file={path}").status_code == 403
    for path in ("file=http://example.com/", "file=HTTP://example.com/", "file/http://example.com/", "file/a"):
        assert app.get(f"gradio_api/{path}").status_code == 403
    for path in ("results/../../etc/passwd", "results/x/1.wav", "results/x/..%2F1.wav"):
        assert app.get(path).status_code == 404
    assert httpx.get(app.address, headers={"host": "example.com"}).status_code == 400


def test_large_requests_are_refused(app: App) -> None:
    assert app.post("call/generate", json={"data": ["a" * LIMITS.request_bytes]}).status_code == 413
    endless = (b"a" * 1000 for _ in range(LIMITS.request_bytes))
    assert app.post("call/generate", content=endless).status_code == 413
    large = {"files": ("large.wav", b"\0" * LIMITS.upload_bytes)}
    assert app.post("upload", files=large).status_code == 413


def test_older_results_are_removed(app: App) -> None:
    sounds = [app.generate("slow piano", duration=0.5, num_samples=1)["samples"][0]["sound"] for _ in range(3)]
    assert [app.get(sound).status_code for sound in sounds] == [404, 200, 200]
    assert {path.name for path in app.folder.iterdir()} == {sound.split("/")[1] for sound in sounds[1:]}


def test_the_end_removes_what_is_temporary(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with served(stack.musiclm(), {}, LIMITS, "127.0.0.1", free_port()) as address:
        job = Client(address, verbose=False).submit("a", duration=2, num_samples=1, api_name="/generate")
        first_answer(job)
        assert list(tmp_path.glob("open_musiclm_app_*"))
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = forks.run(["scripts/app.py", "--checkpoint_dir", tmp_path, "--port", port])
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --host 127.0.0.1 --port {port}: cannot listen there: Address already in use; choose another\n"
    )


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gradio, the extra app: pip install .*'\.\[app\]'"):
        check_server("127.0.0.1", 7860)


def test_a_sound_of_a_high_rate_may_have_as_many_samples(tmp_path: Path) -> None:
    """Silence of minutes at 655 kHz is a small FLAC, and gigabytes in memory."""
    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(655350), 655350)
    assert read_upload(tmp_path, str(path), most_seconds=7.0, most_hz=96_000).seconds == 1.0
    with pytest.raises(UserError, match=r"silence.flac: longer than 0.878\d* s"):
        read_upload(tmp_path, str(path), most_seconds=6.0, most_hz=96_000)


def test_only_so_many_uploads_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.wav").write_bytes(b"")
        os.utime(tmp_path / str(number) / "a.wav", (number, number))
    remove_oldest(tmp_path, most_bytes=100, most_files=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]


def test_what_ended_a_job_keeps_no_tensors(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the frames of a traceback they would stay until Python collects cycles, which tensors do not hasten."""
    made: list[weakref.ref] = []

    def fail(*given: object, **named: object) -> Iterator[object]:
        chunk = torch.zeros(4)
        made.append(weakref.ref(chunk))
        raise UserError("no") from ValueError(1)
        yield

    model = stack.musiclm()
    monkeypatch.setattr(model, "stream", fail)
    runner = JobRunner(model, {}, LIMITS, History(tmp_path, 3))
    gc.disable()
    try:
        job = runner.start("a", {"duration": 0.5, "num_samples": 1})
        runner.close()
        assert made[0]() is None
    finally:
        gc.enable()
    with pytest.raises(UserError, match="no"):
        job.finished()


def test_a_long_sound_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    whole = path.read_bytes()
    assert is_longer(path, 0.5)
    assert not is_longer(path, 1.5)
    path.write_bytes(whole[: len(whole) * 3 // 4])  # its length has to be counted
    assert is_longer(path, 0.5)
    assert not is_longer(path, 0.9)
