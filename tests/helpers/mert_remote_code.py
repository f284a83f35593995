"""Python files as MERT-v1 brings them: a HubertModel subclass of an older style, reached by trust_remote_code."""

import json
from pathlib import Path

_CONFIGURATION = """
from transformers import HubertConfig


class MERTConfig(HubertConfig):
    model_type = "mert_model"
"""

_MODELING = """
from transformers import HubertModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_MERT import MERTConfig


class MERTModel(HubertModel):
    config_class = MERTConfig

    def forward(self, input_values, attention_mask=None, output_hidden_states=None, return_dict=None):
        features = self.feature_extractor(input_values).transpose(1, 2)
        hidden_states = self.encoder(self.feature_projection(features))[0]
        return BaseModelOutput(last_hidden_state=hidden_states, hidden_states=None)
"""


def add_remote_code(folder: Path) -> Path:
    """Adds the two files to a MERT directory and names them in its config.json; returns the folder."""
    (folder / "configuration_MERT.py").write_text(_CONFIGURATION)
    (folder / "modeling_MERT.py").write_text(_MODELING)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MERTModel"]
    config["auto_map"] = {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
