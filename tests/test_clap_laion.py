"""LAION's CLAP files: equal to the laion-clap package on the same weights, and refused where anything is amiss."""

import functools
import importlib
import re
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.small_clap import build_clap, build_tokenizer, randomize, small_clap_config
from test_clap import model_config
from transformers import ClapModel, RobertaConfig, RobertaModel

from open_musiclm.config import ClapRvqConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.clap_laion import load_laion, model_of, rename_laion

CPU = torch.device("cpu")
ROBERTA_TOKENS = 50265
PROMPTS = ["fast violin tune", "a calm and slow piano piece in a minor key " * 20, "한국 음악"]


def laions_names(model: ClapModel) -> dict[str, torch.Tensor]:
    """A ClapModel's tensors under LAION's names, with the parts that only LAION's training needs."""
    renamed = {}
    for ours, tensor in model.state_dict().items():
        name = ours.replace("audio_model.audio_encoder", "audio_branch").replace("text_model", "text_branch")
        if name.startswith("audio_branch"):
            for old, new in (
                (r"attention\.self\.(relative_position)", r"attn.\1"),
                (r"attention\.output\.dense", "attn.proj"),
                (r"intermediate\.dense", "mlp.fc1"),
                (r"output\.dense", "mlp.fc2"),
                (r"layernorm_before", "norm1"),
                (r"layernorm_after", "norm2"),
                (r"batch_norm", "bn0"),
            ):
                name = re.sub(old, new, name) if "fusion_model" not in name else name
        name = name.replace("_projection.linear1", "_projection.0").replace("_projection.linear2", "_projection.2")
        if ".attention.self." in name and name.startswith("audio_branch"):
            part = re.search(r"query|key|value", name)[0]
            if part == "query":
                thirds = [model.state_dict()[ours.replace("query", other)] for other in ("query", "key", "value")]
                renamed[name.replace("attention.self.query", "attn.qkv")] = torch.cat(thirds)
        else:
            renamed[name] = tensor
    renamed["audio_branch.layers.0.blocks.0.attn_mask"] = torch.zeros(1)
    renamed["text_transform.sequential.0.weight"] = torch.zeros(1)
    renamed["audio_branch.head.weight"] = torch.zeros(1)
    renamed["audio_branch.logmel_extractor.melW"] = torch.zeros(1)
    return {f"module.{name}": tensor for name, tensor in renamed.items()}


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def small_model(request) -> ClapModel:
    model = ClapModel(small_clap_config(40, enable_fusion=request.param))
    randomize(model)
    return model


def test_every_tensor_finds_its_place(small_model: ClapModel) -> None:
    loaded = model_of(Path("a.pt"), rename_laion(laions_names(small_model)), small_model.config)
    assert loaded.state_dict().keys() == small_model.state_dict().keys()
    for name, tensor in small_model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop("module.audio_projection.0.bias"), "missing audio_projection.linear1"),
        (lambda tensors: tensors.update({"module.extra.weight": torch.ones(1)}), "unexpected extra.weight"),
        (
            lambda tensors: tensors.update({"module.audio_branch.norm.weight": torch.ones(3)}),
            r"audio_encoder\.norm\.weight is \[3\], not \[64\]",
        ),
    ],
)
def test_one_wrong_key_is_named(small_model: ClapModel, change, complaint: str) -> None:
    tensors = laions_names(small_model)
    change(tensors)
    with pytest.raises(UserError, match=r"a\.pt: not the weights.*" + complaint):
        model_of(Path("a.pt"), rename_laion(tensors), small_model.config)


def test_file_of_another_shape_names_the_key_to_change(tmp_path: Path) -> None:
    patches = {"module.audio_branch.patch_embed.proj.weight": torch.ones(128, 1, 4, 4)}
    torch.save({"state_dict": patches}, tmp_path / "base.pt", pickle_protocol=4)
    with pytest.raises(UserError, match=r"amodel_type: HTSAT-tiny, but .*base\.pt holds HTSAT-base"):
        load_laion(tmp_path / "base.pt", ClapRvqConfig())
    with pytest.raises(UserError, match=r"enable_fusion: true, but .*base\.pt was trained without fusion"):
        load_laion(tmp_path / "base.pt", ClapRvqConfig(amodel_type="HTSAT-base", enable_fusion=True))
    with pytest.raises(UserError, match=r"base\.pt: not the weights of LAION's CLAP: missing .*, and \d+ more"):
        load_laion(tmp_path / "base.pt", ClapRvqConfig(amodel_type="HTSAT-base"))


def test_file_that_is_no_clap(tmp_path: Path) -> None:
    for name, content in (("step", {"step": 3}), ("other", {"weight": torch.ones(2)})):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match=rf"{name}\.pt: .*LAION's CLAP"):
            load_laion(tmp_path / f"{name}.pt", ClapRvqConfig())


@pytest.fixture(scope="module")
def laion_clap() -> ModuleType:
    """The package, kept from the model hub, which it reaches for when it is imported."""
    with (
        mock.patch("transformers.BertTokenizer.from_pretrained"),
        mock.patch("transformers.RobertaTokenizer.from_pretrained"),
        mock.patch("transformers.BartTokenizer.from_pretrained"),
    ):
        try:
            return importlib.import_module("laion_clap")
        except ImportError as error:
            pytest.skip(f"laion-clap cannot be imported: {error}")


def middle(first: int, last: int) -> int:
    return (last - 1 - first) // 2


@pytest.mark.upstream
@pytest.mark.slow
@pytest.mark.parametrize(("amodel", "fusion"), [("HTSAT-tiny", False), ("HTSAT-base", True)])
def test_equals_the_laion_clap_package(laion_clap, tmp_path: Path, amodel: str, fusion: bool) -> None:
    tokenizer = build_tokenizer(tmp_path / "roberta", ROBERTA_TOKENS)
    roberta = RobertaConfig(
        vocab_size=ROBERTA_TOKENS, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )
    with (
        mock.patch("clap_module.model.RobertaModel.from_pretrained", return_value=RobertaModel(roberta)),
        mock.patch("laion_clap.hook.RobertaTokenizer.from_pretrained", return_value=tokenizer),
    ):
        theirs = laion_clap.CLAP_Module(enable_fusion=fusion, device="cpu", amodel=amodel)
    randomize(theirs.model)
    state = {f"module.{name}": tensor for name, tensor in theirs.model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514).unsqueeze(0)
    content = {"epoch": 15, "name": "run", "lr": np.float64(1e-4), "state_dict": state}
    torch.save(content, tmp_path / "laion.pt", pickle_protocol=4)
    section = ClapRvqConfig(
        checkpoint_path=str(tmp_path / "laion.pt"),
        amodel_type=amodel,
        enable_fusion=fusion,
        model_name=str(tmp_path / "roberta"),
    )
    ours = Clap.load(model_config(section), CPU)

    texts = torch.from_numpy(theirs.get_text_embedding(PROMPTS))
    assert (texts[0] - texts[1]).abs().max() > 1e-2
    torch.testing.assert_close(ours.embed_text(PROMPTS), texts, rtol=0, atol=1e-4)
    generator = torch.Generator().manual_seed(0)
    for seconds in (1.37, 10, 23.4):
        time = torch.arange(round(seconds * 48000)) / 48000
        noise = torch.randn(2, len(time), generator=generator)
        waves = torch.stack([0.2 * noise[0], 0.5 * torch.sin(440 * time * (2 + time)) + 0.01 * noise[1]])
        # The crops in the middle, where they take random ones; torchvision smoothed nothing when CLAP was trained.
        with (
            mock.patch("numpy.random.randint", middle),
            mock.patch("numpy.random.choice", lambda third: third[len(third) // 2]),
            mock.patch(
                "torchvision.transforms.Resize",
                functools.partial(importlib.import_module("torchvision.transforms").Resize, antialias=False),
            ),
        ):
            sounds = torch.from_numpy(theirs.get_audio_embedding_from_data(waves.numpy()))
        assert (sounds[0] - sounds[1]).abs().max() > 1e-3
        torch.testing.assert_close(ours.embed_audio(waves), sounds, rtol=0, atol=1e-4)


def test_tokenizer_comes_from_model_name_beside_a_laion_file(tmp_path: Path) -> None:
    build_clap(tmp_path / "clap")
    section = ClapRvqConfig(checkpoint_path=str(tmp_path / "absent.pt"), model_name=str(tmp_path / "clap"))
    with pytest.raises(UserError, match=r"absent\.pt: cannot read"):
        Clap.load(model_config(section), CPU)
