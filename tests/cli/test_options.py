"""What options say reaches the verbs, from the command line and from a configuration file."""

import dataclasses
import inspect

import pytest
from command_line import run
from PIL import Image
from reports import flagging

from bre.cli.options import OPTIONS, Network, Reading
from bre.inputs import open_dataset, open_model


def test_options_reach_the_verbs(data, answer):
    answer.result = flagging(data, {})
    run("screen", data)
    (images,), options = answer.calls.pop()
    assert images.path == data
    here = {"workdir": None, "executor": "local", "jobs": 1, "ray_address": None, "progress": None}
    where = {"device": "cpu", "device_memory": None}
    assert options == {"seed": 0, "alpha": 0.05, "backend": "auto", **here, **where}
    run("screen", data, "--device", "cuda:1", "--device-memory", "16G")
    assert {key: answer.calls[-1][1][key] for key in where} == {"device": "cuda:1", "device_memory": 16 * 2**30}
    answer.calls.clear()
    more = ["--seed", 3, "--alpha", 0.01, "--backend", "reference", "--unsafe-pickle", "--device", "cpu"]
    run("detect", data, "--model", "m.pt2", *more, "--mean", "0.5,0.25, 0", "--std", "1,1,2")
    (model, images), options = answer.calls.pop()
    assert images.path == data
    assert options == {"seed": 3, "alpha": 0.01, "backend": "reference", "device_memory": None, **here}
    nothing = {"arch": None, "input_size": None, "run_arch": False, "device": "cpu", "precision": "float32"}
    assert model == ("m.pt2", {"mean": (0.5, 0.25, 0.0), "std": (1.0, 1.0, 2.0), "unsafe": True, **nothing})
    more = ["--arch", "mine:net", "--run-arch", "--input-size", "8,9", "--device", "cuda:1", "--precision", "bfloat16"]
    run("detect", data, "--model", "m.safetensors", *more)
    (model, _), _ = answer.calls.pop()
    assert model[1] == {
        "mean": None,
        "std": None,
        "unsafe": False,
        "arch": "mine:net",
        "run_arch": True,
        "input_size": (8, 9),
        "device": "cuda:1",
        "precision": "bfloat16",
    }


@pytest.mark.parametrize("verb", [["screen"], ["detect", "--model", "m"]])
def test_options_reach_the_dataset(data, answer, verb, tmp_path):
    listing = tmp_path / "list.csv"
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    listing.write_text("file,kind\n" + "a.png,0\na.png,1\n")
    done = run(*verb, listing, "--columns", "file,kind", "--resize", "2,3", "--convert", "L")
    assert done.exit_code == 2  # no result to answer with
    (*_, images), _ = answer.calls.pop()
    assert images.image_shape == (1, 2, 3)


@pytest.mark.parametrize("memory", ["16", "1.5G", "G", "-1G", "16GB"])
def test_memory_has_a_unit(data, answer, memory):
    done = run("screen", data, "--device-memory", memory)
    assert done.exit_code == 2
    assert not answer.calls


def test_every_option_of_the_dataset_has_the_name_of_its_argument():
    taken = set(inspect.signature(open_dataset).parameters) - {"data"}
    assert {f.name for f in dataclasses.fields(Reading)} == taken
    taken = set(inspect.signature(open_model).parameters) - {"model", "unsafe"}
    assert {f.name for f in dataclasses.fields(Network)} == taken


@pytest.mark.parametrize(
    ("options", "shape"),
    [(["--crop", "2,3"], (3, 2, 3)), (["--pad"], (3, 6, 5)), (["--pad", "--on-error=skip"], (3, 6, 5))],
)
def test_sizes_of_a_list(data, answer, tmp_path, options, shape):
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(4, 6), (5, 3)] * 2):
        Image.new("RGB", size).save(tmp_path / "images" / f"{i}.png")
    if "--on-error=skip" in options:
        (tmp_path / "images" / "3.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    run("screen", tmp_path / "list.csv", "--root", tmp_path / "images", *options)
    ((images,), _) = answer.calls.pop()
    assert images.image_shape == shape
    assert len(images) == 4 - ("--on-error=skip" in options)


# ---- a configuration file


def test_a_config_file_gives_defaults(data, answer, tmp_path):
    answer.result = flagging(data, {})
    config = tmp_path / "bre.toml"
    config.write_text('seed = 7\nalpha = 0.01\nbackend = "reference"\nmean = [0.5, 1, 0]\n')
    assert run("detect", data, "--model", "m", "--config", config, "--seed", 8).exit_code == 0
    ((_, how), _), options = answer.calls.pop()
    assert (options["seed"], options["alpha"], options["backend"]) == (8, 0.01, "reference")
    assert (how["mean"], how["std"]) == ((0.5, 1.0, 0.0), None)
    config.write_text("")
    assert run("screen", data, "--config", config).exit_code == 0
    assert answer.calls.pop()[1]["seed"] == 0
    config.write_text("resize = [2, 3]\n")
    assert run("screen", data, "--config", config).exit_code == 0
    assert answer.calls.pop()[0][0].image_shape == (3, 2, 3)
    config.write_text('device = "cuda"\n')
    assert run("screen", data, "--config", config).exit_code == 0  # the model's, of which screen has none
    run("detect", data, "--model", "m", "--config", config)
    assert answer.calls.pop()[0][0][1]["device"] == "cuda"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = true", "seed: expected an integer, got True"),
        ("alpha = '0.1'", "alpha: expected a number, got '0.1'"),
        ("convert = 3", "convert: expected text, got 3"),
        ('layout = "CHWN"', "'--layout'"),
        ('columns = ["a", 1]', "columns: expected a list of text"),
        ("seed = " + "[" * 10_000, "nested too deeply"),
        ("seed" + ".a" * 10_000 + " = 1", "seed: expected an integer"),
        ("seed = " + "[" * 100_000, "larger than 64 KiB"),
        ("sead = 1", "unknown key 'sead', known are seed, alpha,"),
        ("unsafe = true", "unknown key 'unsafe'"),
        ('seed = "1"', "seed: expected an integer, got '1'"),
        ("seed = -1", "'--seed'"),
        ("alpha = 2.0", "'--alpha'"),
        ("alpha = 1e-300", "'--alpha'"),  # with which whoever adds images beside the file would pass
        ('mean = [0.5, "a"]', "mean: expected a list of numbers, got [0.5, 'a']"),
        ("resize = [1]", "expected HEIGHT,WIDTH"),
        ("seed = ", "is no TOML"),
        ("seed = 1\nseed = 2", "is no TOML"),
        ("\udcff", "is no TOML"),
        (None, "No such file"),
    ],
)
def test_a_config_file_that_cannot_be(data, answer, tmp_path, text, message):
    config = tmp_path / "bre.toml"
    if text is not None:
        config.write_text(text, errors="surrogateescape")
    done = run("screen", data, "--config", config)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not answer.calls


def test_what_a_config_file_may_give_is_told_by_the_help():
    keys = [one.name for one in OPTIONS.values() if one.config]
    told = " ".join(run("screen", "--help").stdout.split())
    assert f"any of {', '.join(keys)}." in told
    assert {"resize", "alpha", "std"} <= set(keys)
    forbidden = {"unsafe", "run_arch", "out", "sarif", "root", "boxes", "follow_links"}
    assert not forbidden & set(keys), "what runs code, writes, or reads elsewhere is not for a file to say"
