"""The tags of musicnn's MTT_musicnn (Pons and Serra 2019) for every wave of folders, into musicnn_tags.json in each.

musicnn needs TensorFlow's old layers, so it has an environment of its own, without this project:

    python -m venv musicnn && musicnn/bin/pip install tensorflow-cpu==2.15.1 "numpy<2" librosa==0.10.2
    musicnn/bin/pip install --no-deps musicnn
    musicnn/bin/python benchmarks/musicnn_tags.py FOLDER [FOLDER ...]
"""

import json
import sys
from pathlib import Path

from musicnn.extractor import extractor


def main(folders: list[str]) -> None:
    for folder in map(Path, folders):
        tags = {}
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".wav", ".flac", ".ogg")):
            scores, names = extractor(str(path), model="MTT_musicnn", extract_features=False)
            tags[path.name] = dict(zip(names, scores.mean(axis=0).tolist(), strict=True))
        (folder / "musicnn_tags.json").write_text(json.dumps(tags))
        print(f"{folder}: {len(tags)} waves")


if __name__ == "__main__":
    main(sys.argv[1:])
