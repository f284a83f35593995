"""The documentation against the repository: links, named paths, the generated reference of configs, README's size."""

import re
from functools import cache
from pathlib import Path

import pytest
from helpers.documentation import LOG, pages
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from open_musiclm.config.document import config_files, document
from open_musiclm.config.json_files import Section

LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
NAMED_PATH = re.compile(r"(?<![\w./-])((?:open_musiclm|scripts|docs|dev|configs|demo|tests|benchmarks)/[\w./-]*[\w/])")
SECTIONS = {kind for file in config_files() for kind in file.sections.values()}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", names([*pages(), LOG]))
def test_links_lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", names(pages()))
def test_named_paths_exist(name: str) -> None:
    found = NAMED_PATH.findall((REPOSITORY / name).read_text(encoding="utf-8"))
    assert [path for path in found if not (REPOSITORY / path).exists()] == []


def test_the_readme_is_short() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 120] == []


def test_the_reference_of_configs_is_current() -> None:
    written = (REPOSITORY / "docs" / "configs.md").read_text(encoding="utf-8")
    assert written == document(), "run: python -m open_musiclm.config.document > docs/configs.md"


@pytest.mark.parametrize("kind", sorted(SECTIONS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_config_field_is_described(kind: type[Section]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names(pages()) if "```python" in (REPOSITORY / name).read_text()])
def test_python_examples_run(name: str, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of README with the demo's bundle, the others with a small model in its place."""
    bundle = REPOSITORY / "demo/bundle" if name == "README.md" else stack.folder
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/bundle").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", (REPOSITORY / name).read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(re.sub(r"(duration\"?[=:] ?)[\d.]+", r"\g<1>1", code), {})
