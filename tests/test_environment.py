"""Processes without an account or a home, and systems that are not supported."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import REPOSITORY

from open_musiclm import environment
from open_musiclm.environment import complete_environment


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The environment, empty, of a process whose folder for temporary files is `tmp_path`/tmp."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    variables: dict[str, str] = {}
    monkeypatch.setattr(environment.os, "environ", variables)
    return variables


def given(variables: dict[str, str]) -> dict[str, str]:
    """Without those that pytest sets."""
    return {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", absent)


def test_an_account_with_a_home_needs_nothing(variables: dict[str, str], tmp_path: Path) -> None:
    variables["HOME"] = str(tmp_path)
    complete_environment()
    assert given(variables) == {"HOME": str(tmp_path)}


@pytest.mark.usefixtures("no_account")
def test_without_an_account_there_is_a_name_and_a_home(variables: dict[str, str], tmp_path: Path) -> None:
    complete_environment()
    home = tmp_path / "tmp" / f"open_musiclm-{os.getuid()}"
    assert given(variables) == {"LOGNAME": f"user{os.getuid()}", "HOME": str(home)}
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("no_account")
def test_variables_that_are_set_stay(variables: dict[str, str], tmp_path: Path) -> None:
    variables |= {"USER": "me", "HOME": "/nonexistent", "XDG_CACHE_HOME": "/cache"}
    complete_environment()
    assert variables["USER"] == "me"
    assert "LOGNAME" not in variables
    assert (variables["HOME"], variables["XDG_CACHE_HOME"]) == ("/nonexistent", "/cache")
    assert variables["NUMBA_CACHE_DIR"].startswith(str(tmp_path / "tmp"))


def test_a_home_that_cannot_be_written_is_still_read(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = tmp_path / "home" / ".cache" / "huggingface"
    downloaded.mkdir(parents=True)
    monkeypatch.setattr(environment.os, "access", lambda path, mode: not mode & os.W_OK)
    variables["HOME"] = str(tmp_path / "home")
    complete_environment()
    assert variables["HF_HOME"] == str(downloaded)
    assert variables["XDG_CACHE_HOME"].startswith(str(tmp_path / "tmp"))


@pytest.mark.usefixtures("no_account")
def test_a_folder_that_another_user_may_have_prepared_is_not_used(variables: dict[str, str], tmp_path: Path) -> None:
    theirs = tmp_path / "tmp" / f"open_musiclm-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    complete_environment()
    assert variables["HOME"] != str(theirs)
    assert Path(variables["HOME"]).stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_libraries_are_imported_without_an_account(tmp_path: Path) -> None:
    """As in a container that runs under any user id."""
    unshare = [shutil.which("unshare") or "unshare", "-U", "--map-user=54321", "--map-group=54321"]
    if sys.platform != "linux" or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user id can be taken here")
    command = "import open_musiclm.tokenizers.clap, open_musiclm.generation.musiclm"
    done = subprocess.run(
        [*unshare, "env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # no folder called ~


def test_windows_is_one_clear_line() -> None:
    code = "import sys; from open_musiclm import cli; sys.platform = 'win32'; cli.run(print, cli.parser(None))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: Windows is not supported; use Linux, macOS, or Linux within Windows (WSL)\n"
