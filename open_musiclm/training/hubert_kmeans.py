"""k-means over MERT's features, in memory bounded by one batch (Sculley 2010, web-scale k-means)."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans

from open_musiclm.audio import SoundError, sound_info
from open_musiclm.checkpoints import save_weights, weights_name
from open_musiclm.config import HubertKmeansTrainerConfig, ModelConfig
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.mert import Mert
from open_musiclm.training.data_stream import TrainingData, TrainingStream
from open_musiclm.training.failure_list import FailureList
from open_musiclm.training.run import Run
from open_musiclm.training.run_folder import FAILURES_NAME
from open_musiclm.training.tracking import RunLog


class HubertKmeansTrainer:
    """Fits the centroids to the features of `feature_extraction_num_steps` batches of crops."""

    def __init__(
        self, accelerator: Accelerator, mert: Mert, model_config: ModelConfig, config: HubertKmeansTrainerConfig
    ) -> None:
        self.accelerator, self.mert, self.model_config, self.config = accelerator, mert, model_config, config
        self.clusters = model_config.hubert_kmeans_cfg.codebook_size
        self.kmeans = MiniBatchKMeans(self.clusters, random_state=config.seed, n_init=1, reassignment_ratio=0.01)
        self._waiting: list[np.ndarray] = []

    def train(self, data: TrainingData, run: Run) -> Path:
        """Fits, and writes hubert_kmeans.safetensors into the run's folder; returns its path. Raises UserError."""
        run.open_folder()
        steps = self.config.feature_extraction_num_steps
        log = RunLog(self.accelerator, run.folder, "hubert_kmeans", step=0, steps=steps)
        failures = FailureList(run.folder / FAILURES_NAME, self.accelerator)
        stream = TrainingStream(data, self.accelerator, failures, position=0)
        try:
            for step, indexed in enumerate(stream.take(steps), start=1):
                log.step(step, self.update(indexed.batch))
        finally:
            stream.close()
            log.close()
        failures.report()
        path = run.folder / weights_name("hubert_kmeans")
        if self.accelerator.is_main_process:
            save_weights(path, "hubert_kmeans", {"centroids": self._centroids()}, self.model_config)
        self.accelerator.wait_for_everyone()
        return path

    def update(self, batch: SoundBatch) -> dict[str, float]:
        """One update with the frames of a batch and of those before it that wait for one.

        An update takes at least as many frames as there are clusters; fewer wait, and are left out at the end of the
        run. Returns the frames' mean squared distance from their centroids and the share of clusters that they fall
        into, nothing while they wait.
        Raises UserError if features are not finite.
        """
        features = self.accelerator.gather(self.mert.features(batch.waves["semantic"]).flatten(0, 1))
        if not features.isfinite().all():
            raise UserError(
                f"hubert_kmeans_cfg: model_name: the features of {self.model_config.hubert_kmeans_cfg.model_name} are "
                "not finite; its weights are not usable"
            )
        if not self.accelerator.is_main_process:
            return {}
        self._waiting.append(features.cpu().numpy())
        if sum(len(frames) for frames in self._waiting) < self.clusters:
            return {}
        frames = np.concatenate(self._waiting)
        self._waiting = []
        self.kmeans.partial_fit(frames)
        used = len(np.unique(self.kmeans.labels_))
        return {"inertia": float(self.kmeans.inertia_) / len(frames), "cluster_usage": used / self.clusters}

    def _centroids(self) -> Float[torch.Tensor, "codebook features"]:
        if not hasattr(self.kmeans, "cluster_centers_"):
            found = sum(len(frames) for frames in self._waiting)
            raise UserError(
                f"hubert_kmeans_cfg: codebook_size: {self.clusters} clusters, but only {found} frames were extracted; "
                "raise feature_extraction_num_steps or feature_extraction_batch_size"
            )
        return torch.from_numpy(self.kmeans.cluster_centers_).float()


def check_enough_frames(paths: list[Path], config: ModelConfig) -> None:
    """Raises UserError if all files together have fewer frames than there are clusters; reads few headers."""
    clusters, frames = config.hubert_kmeans_cfg.codebook_size, 0
    for path in paths:
        try:
            frames += int(sound_info(path).seconds * config.hubert_kmeans_cfg.output_hz)
        except SoundError:
            continue
        if frames >= clusters:
            return
    raise UserError(
        f"hubert_kmeans_cfg: codebook_size: {clusters} clusters, but the sound found has only {frames} frames; "
        "give more music or lower codebook_size"
    )
