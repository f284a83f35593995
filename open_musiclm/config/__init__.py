"""Model, training and generation configs: JSON files as validated types, without torch."""

from open_musiclm.config.fields import (
    STAGE_NAMES,
    PositiveFloat,
    Precision,
    StageName,
    TrainingPrecision,
)
from open_musiclm.config.generation import GENERATION_CONFIG_NAME, GenerationConfig, load_generation_config
from open_musiclm.config.model import (
    BACKBONES,
    MODEL_CONFIG_NAME,
    ClapRvqConfig,
    EncodecConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    load_model_config,
    model_config_from_json,
)
from open_musiclm.config.stages import AcousticConfig, CoarseConfig, FineConfig, SemanticConfig, TransformerConfig
from open_musiclm.config.training import (
    ClapRvqTrainerConfig,
    DataPreprocessorConfig,
    HubertKmeansTrainerConfig,
    StageTrainerConfig,
    TrainerConfig,
    TrainingConfig,
    load_training_config,
    require,
)
