"""Results as files: what comes back is what was given, and what was damaged or made by somebody else is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import safetensors.numpy
import torch

from bre import InputError
from bre.runs import packing


@dataclass(frozen=True, eq=False)
class Pair:
    first: object
    second: object


@dataclass(frozen=True)
class Other:
    value: int


VALUE = {
    "plain": (None, True, 3, 0.1, float("inf"), "é", [1, (2,)], {}),
    4: Pair(np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2], Pair(torch.ones(2, 0), np.float32(0.5))),
}


def test_what_comes_back_is_what_was_given():
    found = packing.from_bytes(packing.to_bytes(VALUE, (Pair,)), "here", (Pair,))
    assert found["plain"] == VALUE["plain"]
    np.testing.assert_array_equal(found[4].first, [[0, 2], [3, 5]])
    assert found[4].first.dtype == np.int64
    assert found[4].second.first.shape == (2, 0)
    assert found[4].second.second == 0.5
    assert packing.digest_of(found, (Pair,)) == packing.digest_of(VALUE, (Pair,))


def test_equal_values_have_one_name_and_others_another():
    names = {packing.digest_of((1, np.arange(n, dtype=kind))) for n in (3, 4) for kind in (np.int32, np.int64)}
    assert len(names) == 4
    assert packing.digest_of((1, np.arange(3))) == packing.digest_of((1, np.arange(6)[:3]))


def test_every_damaged_byte_is_noticed():
    data = packing.to_bytes(VALUE, (Pair,))
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        with pytest.raises(InputError, match=r"here is damaged.*remove it"):
            packing.from_bytes(bytes(damaged), "here", (Pair,))
    for size in (0, 4, 9, len(data) // 2, len(data) - 1):
        with pytest.raises(InputError, match="damaged"):
            packing.from_bytes(data[:size], "here", (Pair,))


@pytest.mark.parametrize("tree", ['{"class": "Other", "fields": {"value": 1}}', '{"array": 3}', '{"os": []}', "[1]"])
def test_what_nobody_wrote_is_refused(tree):
    metadata = {"bre": tree, "format": "1", "digest": packing._digest(tree, [])}
    with pytest.raises(InputError, match="damaged"):
        packing.from_bytes(safetensors.numpy.save({}, metadata), "here", (Pair,))


def test_no_pickle_is_read():
    with pytest.raises(InputError, match="damaged"):
        packing.from_bytes(pickle.dumps(Other(1)), "here", (Other,))
    header = json.dumps({"__metadata__": 3}).encode()
    with pytest.raises(InputError, match="damaged"):
        packing.from_bytes(len(header).to_bytes(8, "little") + header, "here")


def test_what_has_no_file_is_refused():
    with pytest.raises(TypeError, match="cannot hold Other"):
        packing.to_bytes(Other(1), (Pair,))
