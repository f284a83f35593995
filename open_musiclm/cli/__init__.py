"""The command line: what the scripts share.

Imports nothing heavy, so that every script answers `--help` at once; scripts import torch inside `main`.
"""

from open_musiclm.cli.argument_types import (
    OFF,
    fraction,
    loudness,
    non_negative_float,
    positive_float,
    positive_int,
    prompt,
    sample_rate,
    seed,
)
from open_musiclm.cli.edits import add_edit_arguments, add_regeneration_arguments, edit_from, regenerate
from open_musiclm.cli.generation import (
    LENGTH_FIELDS,
    OUTPUT_FIELDS,
    PRECISIONS,
    SAMPLING_FIELDS,
    SEARCH_FIELDS,
    add_audio_prompt_argument,
    add_generation_arguments,
    generation_config_from,
)
from open_musiclm.cli.model import (
    UNUSED_PACKAGES,
    adapter_paths_from,
    add_adapter_arguments,
    add_checkpoint_arguments,
    add_model_arguments,
    add_model_config_argument,
    add_part_arguments,
    add_tokenizer_arguments,
    add_trust_argument,
    check_fine_arguments,
    hidden,
    load_model,
    model_paths_from,
)
from open_musiclm.cli.process import (
    add_device_argument,
    exclude_arguments,
    parser,
    plain_parser,
    print_each,
    require_arguments,
    run,
)
from open_musiclm.cli.prompts import add_prompt_arguments, no_prompt, prompts_from
from open_musiclm.cli.training import (
    RUN_FOLDER,
    add_config_arguments,
    add_run_arguments,
    backbone_parser,
    flags,
    repeated,
    run_options_from,
    stage_parser,
    train_stage_from,
)
from open_musiclm.config import STAGE_NAMES
from open_musiclm.terminal import print_stdout
