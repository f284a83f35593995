"""Where the repository's parts lie."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SCRIPTS = REPOSITORY / "scripts"
DEMO = REPOSITORY / "demo"
# These scripts compute nothing on a device.
WITHOUT_MODEL = {
    "average_weights",
    "bundle",
    "check_data",
    "convert_checkpoint",
    "make_demo_corpus",
    "merge_adapter",
    "prepare_dataset",
}


def on_cpu(script: str) -> list[str]:
    """The words that run a script, by its name, on the CPU."""
    return [] if Path(script).stem in WITHOUT_MODEL else ["--device", "cpu"]
