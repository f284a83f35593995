"""Look at a folder of sound before training: what can be used, and whether it is enough for each config."""

import argparse
import itertools
from pathlib import Path

from open_musiclm import cli

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of sound")
    parser.add_argument("--model_config", type=Path, default=None, help="only this one, not each shipped one")
    parser.add_argument("--training_config", type=Path, default=None, help="only this one, not each shipped one")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config, load_training_config
    from open_musiclm.data.check import check_folder, describe, enough_for, usable

    pairs = [
        (model, training, load_model_config(model), load_training_config(training))
        for model, training in config_pairs(arguments.model_config, arguments.training_config)
    ]
    files = check_folder(arguments.folder)
    lines = list(describe(files))
    titles: dict[tuple[str, ...], list[str]] = {}
    for model, training, model_config, training_config in pairs:
        facts, warnings = enough_for(files, model_config, training_config)
        verdict = [f"  ! {warning}" for warning in warnings] or ["  enough"]
        findings = (*(f"  {fact}" for fact in facts), *verdict)
        title = f"{model.parent.name}/{model.name} with {training.parent.name}/{training.name}:"
        titles.setdefault(findings, []).append(title)
    for findings, configs in titles.items():  # configs that come to the same are told together
        lines += ["", *configs, *findings]
    report = "\n".join(lines)
    cli.say(report)
    if arguments.results_folder is not None:
        arguments.results_folder.mkdir(parents=True, exist_ok=True)
        target = arguments.results_folder / "check_data.txt"
        target.write_text(report + "\n", encoding="utf-8")
        cli.say(f"wrote {target}")
    cli.say(f"\n{len(usable(files))} of {len(files)} files can be used; nothing was changed")


def config_pairs(model: Path | None, training: Path | None) -> list[tuple[Path, Path]]:
    """The given configs; for one that is not given each shipped one. The demo's two go together."""
    models = [model] if model else sorted((CONFIGS / "model").glob("*.json"))
    trainings = [training] if training else sorted((CONFIGS / "training").glob("*.json"))
    demo = (CONFIGS / "demo" / "model.json", CONFIGS / "demo" / "training.json")
    asked_for_one = model or training or not all(path.exists() for path in demo)
    return [*itertools.product(models, trainings), *([] if asked_for_one else [demo])]


if __name__ == "__main__":
    cli.run(main, arguments())
