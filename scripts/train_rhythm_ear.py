"""Fit a rhythm scorer to stored tokens and captions: demo/train_rhythm_scorer.py under its earlier name."""

from demo.train_rhythm_scorer import arguments, main
from open_musiclm import cli

if __name__ == "__main__":
    cli.run(main, arguments())
