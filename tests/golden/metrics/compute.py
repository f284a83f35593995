"""Computes values.json with the packages fadtk, kadtk, prdc and mauve-text. README.md says how to run it."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.metric_sets import SEED_OF_DRAWS, clustered_sets, random_sets


def frechet() -> dict[str, object]:
    from fadtk import fad

    evaluated, reference = random_sets()
    statistics = [fad.calc_embd_statistics(vectors) for vectors in (reference, evaluated)]
    distance = fad.FrechetAudioDistance.__new__(fad.FrechetAudioDistance)
    distance.ml = type("Model", (), {"name": "made up"})
    distance.load_stats = lambda path: statistics[0]
    distance._load_embeddings = lambda files, concat: evaluated
    rng = np.random.default_rng(SEED_OF_DRAWS)
    np.random.choice = lambda count, size, replace: np.sort(rng.integers(count, size=size))
    extrapolated = distance.score_inf("", [Path("a.wav")])
    songs = [fad.calc_embd_statistics(evaluated[first : first + 4]) for first in range(0, 20, 4)]
    return {
        "fad": float(fad.calc_frechet_distance(*statistics[0], *statistics[1])),
        "fad_inf": float(extrapolated.score),
        "fad_inf_slope": float(extrapolated.slope),
        "fad_inf_r2": float(extrapolated.r2),
        "per_song": [float(fad.calc_frechet_distance(*statistics[0], *song)) for song in songs],
    }


def kernel() -> dict[str, float]:
    from kadtk.kad import calc_kernel_audio_distance, median_pairwise_distance

    evaluated, reference = (torch.from_numpy(vectors) for vectors in random_sets())
    bandwidth = {"evaluated": median_pairwise_distance(evaluated), "reference": median_pairwise_distance(reference)}
    distances = {
        f"kad_{name}": float(
            calc_kernel_audio_distance(
                reference, evaluated, (None, None), torch.device("cpu"), value, precision=torch.float64
            )
        )
        for name, value in bandwidth.items()
    }
    as_shipped = calc_kernel_audio_distance(reference, evaluated, (None, None), torch.device("cpu"))
    return {**{f"median_{name}": value for name, value in bandwidth.items()}, **distances, "kad": float(as_shipped)}


def density() -> dict[str, float]:
    from prdc import compute_prdc

    evaluated, reference = random_sets()
    found = compute_prdc(reference, evaluated, nearest_k=5)
    return {"density": float(found["density"]), "coverage": float(found["coverage"])}


def divergence() -> dict[str, object]:
    from mauve import compute_mauve

    evaluated, reference = clustered_sets()
    found = compute_mauve(p_features=evaluated, q_features=reference)
    histograms = {"evaluated": found.p_hist.tolist(), "reference": found.q_hist.tolist()}
    return {"mauve": float(found.mauve), "buckets": found.num_buckets, "histograms": histograms}


if __name__ == "__main__":
    values = {**frechet(), **kernel(), **density(), **divergence()}
    Path(__file__).with_name("values.json").write_text(json.dumps(values, indent=2) + "\n")
