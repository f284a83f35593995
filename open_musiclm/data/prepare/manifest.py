"""manifest.jsonl of a prepared folder: a line with the options, then a line per source with its result.

A line is written after all clips of its source, so a killed run can be resumed.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from open_musiclm.config.json_files import Section, parse_json, problems_of, section_from_content
from open_musiclm.data.prepare.audio_fingerprints import AudioFingerprint
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write
from open_musiclm.text_files import read_lines

MANIFEST_NAME = "manifest.jsonl"
Split = Literal["train", "valid"]


class ManifestHeader(Section):
    """The first line: the options, and the split of each group of sources."""

    options: dict[str, Any]
    groups: dict[str, Split]


class ClipLine(Section):
    """A clip of a source."""

    file: str
    start_seconds: float
    seconds: float


class SourceLine(Section):
    """The result of a source, by its path below the folder of music."""

    source: str
    result: Literal["written", "duplicate", "unusable"]
    group: str
    clips: list[ClipLine] = Field(default=[])
    duplicate_of: str | None = None
    reason: str | None = None
    fingerprint: str | None = None

    def audio_fingerprint(self) -> AudioFingerprint | None:
        """The fingerprint of a written source."""
        return None if self.fingerprint is None else np.frombuffer(base64.b64decode(self.fingerprint), np.uint32)


def encoded(audio_fingerprint: AudioFingerprint) -> str:
    """A fingerprint as text."""
    return base64.b64encode(audio_fingerprint.tobytes()).decode()


class Manifest:
    """The manifest of a folder, read and then appended to.

    Raises UserError if the folder holds anything else, or was made with other options.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.path = folder / MANIFEST_NAME
        self.lines: dict[str, SourceLine] = {}
        self.groups: dict[str, Split] = {}
        self._options = json.loads(json.dumps(dict(options)))
        if self.path.exists():
            self._read()
        elif any(entry.name[:1] != "." for entry in folder.iterdir()):
            raise UserError(
                f"--results_folder {folder}: not empty, and without a {MANIFEST_NAME} of this script; nothing is "
                "overwritten: name a new folder"
            )

    def begin(self, groups: Mapping[str, Split]) -> None:
        """Writes the first line again, with further groups, and drops a truncated last line."""
        self.groups = dict(sorted({**groups, **self.groups}.items()))
        making = ManifestHeader(options=self._options, groups=self.groups)
        with atomic_write(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(making.model_dump_json() + "\n")
            file.writelines(line.model_dump_json(exclude_defaults=True) + "\n" for line in self.lines.values())

    def add(self, line: SourceLine) -> None:
        """Appends the line of a source. Raises UserError if writing fails."""
        self.lines[line.source] = line
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line.model_dump_json(exclude_defaults=True) + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot write: {error.strerror}") from error

    def _read(self) -> None:
        found = list(read_lines(self.path))
        if not found:
            return
        place, first = found[0]
        making = section_from_content(parse_json(first, place), place, ManifestHeader)
        differing = [key for key, value in self._options.items() if making.options.get(key) != value]
        if differing:
            differences = ", ".join(
                f"--{key} {making.options.get(key)} there, {self._options[key]} here" for key in differing
            )
            raise UserError(f"{self.path}: made with other options: {differences}; use those, or name a new folder")
        self.groups = dict(making.groups)
        for number, (place, text) in enumerate(found[1:], start=2):
            try:
                line = SourceLine.model_validate(parse_json(text, place))
            except (UserError, ValidationError) as error:
                if number == len(found):  # truncated by a kill
                    return
                reason = problems_of(error, SourceLine) if isinstance(error, ValidationError) else error
                raise UserError(f"{place}: not a line of a manifest: {reason}") from error
            self.lines[line.source] = line
