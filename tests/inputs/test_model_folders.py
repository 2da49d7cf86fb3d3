"""Folders that say what their weights are of, made by transformers and by timm."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import safetensors.torch
import torch
from real_files import refused
from small_weights import C, K, agrees, make_net, weights

from bre.inputs import open_model
from bre.inputs.models.preprocessing import Resized

SIDE = 32
X = torch.rand(2, C, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
SHAPE = (C, SIDE, SIDE)


def resnet(transformers, **options):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=K, **options
    )
    return saved_well(transformers.ResNetForImageClassification(config))


def vit(transformers, side=48):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=side, patch_size=16, num_labels=K)
    return saved_well(transformers.ViTForImageClassification(config))


def saved_well(net):
    for p in net.parameters():  # some of its own are zero at first, and would not tell
        torch.nn.init.normal_(p, std=0.2) if p.ndim > 1 else None
    return net.eval()


@pytest.fixture
def save(tmp_path):
    """Save a network with its image processor's configuration, as save_pretrained does."""

    def save(net, processor=None, name="model", **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.save_pretrained(tmp_path / name, **options)
        if processor is not None:
            (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path / name

    return save


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


PROCESSOR = {
    "do_resize": True,
    "size": {"height": 40, "width": 40},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


# ---- transformers


def test_a_folder_of_transformers(transformers, save):
    net = resnet(transformers)
    classifier = open_model(save(net))
    assert classifier.source == "model (ResNetForImageClassification)"
    assert agrees(classifier, net, X, SHAPE)
    assert classifier.mean == (0.0,) * C


def test_a_network_of_transformers_in_memory(transformers):
    net = resnet(transformers)
    assert agrees(open_model(net), net, X, SHAPE)
    with refused("seems to be built for 48 x 48: say so .argument input_size"):
        open_model(vit(transformers)).check(SHAPE, K)


def test_its_preprocessing(transformers, save):
    net = resnet(transformers)
    folder = save(net, PROCESSOR)
    classifier = open_model(folder)
    assert (classifier.mean, classifier.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert agrees(classifier, Resized(net, (40, 40)), X, SHAPE)
    own = open_model(folder, mean=0, std=1, input_size=(SIDE, SIDE))
    assert agrees(own, Resized(net, (SIDE, SIDE)), X, SHAPE)
    assert own.mean == (0.0,) * C


@pytest.mark.parametrize(
    ("changes", "mean", "size"),
    [
        ({"do_normalize": False}, 0.0, 40),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.0] * 3, "image_std": [1.0] * 3},
            0.5,
            40,
        ),
        ({"do_rescale": False, "image_mean": [51.0] * 3, "image_std": [51.0] * 3}, 0.2, 40),  # of pixels up to 255
        ({"image_mean": [51.0] * 3, "image_std": [51.0] * 3}, None, 40),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 36}, 0.1, 36),
        ({"size": 44}, 0.1, 44),
        ({"do_resize": False}, 0.1, SIDE),
        ({"image_mean": None}, 0.0, 40),
    ],
)
def test_preprocessings(transformers, save, changes, mean, size):
    net = resnet(transformers)
    folder = save(net, PROCESSOR | changes)
    if mean is None:
        with refused("divide both by 255"):
            open_model(folder)
        return
    classifier = open_model(folder)
    assert agrees(classifier, Resized(net, (size, size)), X, SHAPE)
    assert classifier.mean[0] == pytest.approx(mean)


def test_networks_of_one_size_see_it(transformers, save):
    net = vit(transformers)
    assert agrees(open_model(save(net)), Resized(net, (48, 48)), X, SHAPE)


def test_weights_in_several_files(transformers, save):
    net = resnet(transformers)
    folder = save(net, max_shard_size="4KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert agrees(open_model(folder), net, X, SHAPE)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with refused("names files that are not in its folder"):
        open_model(folder)


def test_a_checkpoint_beside_the_configuration(transformers, save):
    net = resnet(transformers)
    folder = save(net)
    (folder / "model.safetensors").unlink()
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    assert agrees(open_model(folder), net, X, SHAPE)
    (folder / "pytorch_model.bin").unlink()
    with refused("a folder without weights: none of model.safetensors, "):
        open_model(folder)


def test_a_folder_of_the_hubs_cache(transformers, save, tmp_path):
    net = resnet(transformers)
    folder = save(net)
    cache = tmp_path / "models--someone--something"
    shutil.copytree(folder, cache / "snapshots" / "abc")
    assert agrees(open_model(cache), net, X, SHAPE)
    shutil.copytree(folder, cache / "snapshots" / "def")
    with refused("holds 2 snapshots of a model: name one"):
        open_model(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("def")
    assert agrees(open_model(cache), net, X, SHAPE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"auto_map": {"AutoModel": "code.Net"}},
            r"names code, or something that is not in the folder: \['auto_map'\]",
        ),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "names code"),
        ({"backbone": "resnet50", "use_timm_backbone": True}, "names code"),
        ({"vision_config": {"auto_map": {"AutoModel": "code.Net"}}}, "names code"),
        ({"some": {"num_layers": 10**9}}, "num_layers is 1000000000"),
        ({"model_type": "bert"}, "is a bert network .* has no image classifier"),
        ({"model_type": "timm_wrapper"}, "has no image classifier"),
        ({"model_type": "../x"}, "has no image classifier"),
        ({"model_type": None}, "neither of transformers .* nor of timm"),
        ({"hidden_sizes": [8, 17]}, "does not fit its own config.json"),
        ({"hidden_sizes": [8, 1 << 40]}, "does not fit its own config.json|cannot be built|is no configuration"),
        ({"depths": [1, 10**9]}, "depths is .* at most 1000 are built"),
        ({"layer_type": "os.system"}, "cannot be built|is no configuration"),
        ({"hidden_sizes": "x"}, "cannot be built|is no configuration"),
    ],
)
def test_configurations_that_are_refused(transformers, save, changes, said):
    with refused(said):
        open_model(edit(save(resnet(transformers)), **changes))


def test_weights_of_another_network(transformers, save):
    folder = save(resnet(transformers))
    safetensors.torch.save_file(make_net().state_dict(), folder / "model.safetensors")
    with refused("does not fit its own config.json .ResNetForImageClassification."):
        open_model(folder)


def test_without_transformers_its_extra_is_named(transformers, save, monkeypatch):
    folder = save(resnet(transformers))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with refused(r"needs transformers, which is not installed: pip install 'bre-engine\[transformers\]'"):
        open_model(folder)


# ---- timm


def test_a_folder_of_timm_needs_no_arch(timm, tmp_path):
    net = timm.create_model("resnet10t", num_classes=K)
    net.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 48, 40)}
    timm.models.save_for_hf(net, tmp_path, model_config={"num_classes": K}, safe_serialization=True)
    classifier = open_model(tmp_path)
    assert classifier.source == f"{tmp_path.name} (timm:resnet10t)"
    assert classifier.mean == (0.1, 0.2, 0.3)
    assert agrees(classifier, Resized(net, (48, 40)), X, SHAPE)
    assert agrees(open_model(tmp_path, arch="timm:resnet10t"), Resized(net, (48, 40)), X, SHAPE)


def test_how_a_network_of_timm_was_built(timm, tmp_path):
    net = timm.create_model("test_vit", num_classes=K, img_size=(32, 32))
    facts = {"num_classes": K, "model_args": {"img_size": [32, 32], "pretrained": True, "checkpoint_path": "x"}}
    timm.models.save_for_hf(net, tmp_path, model_config=facts, safe_serialization=True)
    assert agrees(open_model(tmp_path, input_size=(32, 32)), net, X, SHAPE)


@pytest.mark.parametrize("name", ["no_such_net", "hf-hub:someone/something", "local-dir:/tmp", "../resnet18"])
def test_names_that_timm_does_not_have(timm, tmp_path, name):
    weights(make_net(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": {}}))
    with refused("timm .* has no network named"):
        open_model(tmp_path)


# ---- other folders


@pytest.mark.parametrize("text", [None, "{", "[" * 100_000, "[1]", "{}", '{"architecture": 3, "pretrained_cfg": {}}'])
def test_folders_that_say_nothing(tmp_path, text):
    weights(net := make_net(), tmp_path / "model.safetensors")
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with refused("no config.json in it" if text is None else "neither of transformers .* nor of timm"):
        open_model(tmp_path)
    assert agrees(open_model(tmp_path, arch=make_net), net)


def test_kernels_that_a_configuration_names_are_not_fetched(transformers, save):
    net = resnet(transformers)
    names = {"attn_implementation": "kernels-community/x", "_attn_implementation": "x/y", "dtype": "float16"}
    assert agrees(open_model(edit(save(net), **names)), net, X, SHAPE)


def test_a_folder_of_checkpoints_names_the_last(tmp_path):
    (tmp_path / "out" / "checkpoint-500").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-500" / "config.json").write_text("{}")
    with refused("or the folder that has one, as .*checkpoint-500"):
        open_model(tmp_path / "out")
