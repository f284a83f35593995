"""Finds a General MIDI soundfont."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from open_musiclm.errors import UserError

SYSTEM_FOLDERS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/soundfonts"))
DEBIAN_PACKAGE = "timgm6mb-soundfont"
REMEDIES = f"pip install --no-deps pretty_midi, or apt-get install {DEBIAN_PACKAGE}, or pass --soundfont PATH (.sf2)"


def find_soundfont(given: Path | None = None) -> Path:
    """The soundfont `given`, else pretty_midi's (so that every machine plays the same), else a system one, else
    Debian's, unpacked into the user's cache without root. Raises UserError that names the remedies."""
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: no such soundfont; {REMEDIES}")
        return given
    found = _from_wheel() or _from_system() or _from_debian()
    if found is None:
        raise UserError(f"no General MIDI soundfont on this machine: {REMEDIES}")
    return found


def _from_wheel() -> Path | None:
    package = importlib.util.find_spec("pretty_midi")  # found, not imported: importing needs its dependencies
    folders = package.submodule_search_locations if package else None
    return _first_in([Path(folder) for folder in folders or ()])


def _from_system() -> Path | None:
    return _first_in(SYSTEM_FOLDERS)


def _from_debian() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "open_musiclm" / "soundfont"
    if _first_in([cache]) is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as folder:
            download = subprocess.run(["apt-get", "download", DEBIAN_PACKAGE], cwd=folder, capture_output=True)
            for archive in Path(folder).glob("*.deb") if download.returncode == 0 else ():
                subprocess.run(["dpkg-deb", "-x", archive, folder], capture_output=True, check=False)
            for found in Path(folder).rglob("*.sf2"):
                cache.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, cache / f".{os.getpid()}")
                os.replace(cache / f".{os.getpid()}", cache / found.name)
    return _first_in([cache])


def _first_in(folders: tuple[Path, ...] | list[Path]) -> Path | None:
    return next((path for folder in folders for path in sorted(folder.glob("*.sf[23]"))), None)
