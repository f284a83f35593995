"""Packaging; the versions known to work together are pinned in constraints.txt."""

from setuptools import find_packages, setup

setup(
    name="open_musiclm",
    version="0.3.0",
    description="Text-to-music generation after MusicLM, with open models: CLAP, MERT + k-means and EnCodec",
    license="MIT",
    classifiers=["Operating System :: POSIX :: Linux", "Operating System :: MacOS"],
    packages=find_packages(include=["open_musiclm", "open_musiclm.*", "demo", "demo.*"]),
    package_data={"open_musiclm.analysis": ["page.html"], "open_musiclm.app": ["live.js"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "torch>=2.6",
        "torchaudio>=2.6",
        "transformers>=5.0,<6",
        "encodec>=0.1.1",
        "vocos>=0.1.0",
        "pyyaml>=6",
        "vector-quantize-pytorch>=1.27",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "einops>=0.8",
        "accelerate>=1.0",
        "peft>=0.17",
        "psutil>=5.9",
        "beartype>=0.18",
        "jaxtyping>=0.3",
        "pydantic>=2.8",
        "soundfile>=0.13",
        "pillow>=11",
        "pyarrow>=17",
        "safetensors>=0.5",
        "huggingface_hub>=0.30",
        "tensorboard>=2.17",
        "tqdm>=4.66",
    ],
    extras_require={
        # and without dependencies: pip install --no-deps tinysoundfont pretty_midi (whose wheel carries a soundfont)
        "demo": ["music21>=9.3"],
        # laion-clap needs numpy 1, which Python 3.13 does not have
        "laion": ['laion-clap>=1.1.7; python_version < "3.13"', 'torchvision>=0.21; python_version < "3.13"'],
        "analyze": ["umap-learn>=0.5.12"],
        "app": ["gradio>=6.31"],
        "browser": ["playwright>=1.50"],
        "wandb": ["wandb>=0.17"],
        "evaluate": ["librosa>=0.10", "matplotlib>=3.9"],
        "passt": ["hear21passt>=0.0.26"],
        "test": ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "pandas>=2.2"],
        "lint": ["ruff>=0.9", "mypy>=1.13", "import-linter>=2.15"],
    },
)
