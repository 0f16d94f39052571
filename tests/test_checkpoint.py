"""A checkpoint is there whole or not at all, and any damage to it is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from noiseopt import checkpoint
from noiseopt.errors import UserError
from noiseopt.noise import SigmaAdam


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def example(path: Path) -> bytes:
    tensors = {"model/weight": torch.randn(7, 5), "counts": torch.arange(9), "flag": torch.tensor(True)}
    checkpoint.save(path, tensors, {"epoch": 3, "settings": {"lr": 1e-3, "note": 'quotes "sha256":"x" and σ'}})
    return path.read_bytes()


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_layout_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = {
        "matrix": (torch.randn(4, 6) * 3).to(dtype),
        "transposed": (torch.randn(4, 6) * 3).to(dtype).t(),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
    }
    tensors["shared"] = tensors["matrix"][1:]
    metadata = {"text": 'a "quoted" σ\n', "list": [1, 2.5, None, True], "nan": float("inf")}
    checkpoint.save(tmp_path / "c.safetensors", tensors, metadata)
    loaded, found = checkpoint.load(tmp_path / "c.safetensors")
    assert found == metadata
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def test_others_can_read_it_as_plain_safetensors(tmp_path: Path) -> None:
    example(tmp_path / "c.safetensors")
    assert safetensors.torch.load_file(tmp_path / "c.safetensors")["counts"].tolist() == list(range(9))


def with_header(data: bytes, change: dict[str, object]) -> bytes:
    """The file with some header entries replaced, everything else as it was."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]) | change
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def signed(data: bytes) -> bytes:
    """The checksum made right again, as somebody could who wanted to."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(text)) + text + data[8 + length :]
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


def mutations(data: bytes) -> list[tuple[str, bytes]]:
    rng = random.Random(0)
    length = int.from_bytes(data[:8], "little")
    found = [(f"cut at {n}", data[:n]) for n in (0, 1, 7, 8, 9, 60, 8 + length, len(data) - 1)]
    found += [(f"cut at {n}", data[:n]) for n in rng.sample(range(len(data)), 12)]
    for where in [
        *range(0, 8),
        *rng.sample(range(8, 8 + length), 30),
        *rng.sample(range(8 + length, len(data)), 15),
    ]:
        flipped = bytearray(data)
        flipped[where] ^= 1 << rng.randrange(8)
        found.append((f"bit flipped at {where}", bytes(flipped)))
    for size in (0, 1, length - 1, length + 1, 10**8 + 1, 2**40, 2**63, 2**64 - 1):
        found.append((f"header length {size}", struct.pack("<Q", size) + data[8:]))
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    # Valid files, were it not for the checksum:
    disguised: dict[str, dict[str, object]] = {
        "dtype": {"counts": {"dtype": "F64", "shape": [9], "data_offsets": [0, 72]}},
        "shape": {"counts": {"dtype": "I64", "shape": [3, 3], "data_offsets": [0, 72]}},
    }
    # Invalid even with the right checksum:
    broken: dict[str, dict[str, object]] = {
        "unknown dtype": {"counts": {"dtype": "F12", "shape": [9], "data_offsets": [0, 72]}},
        "negative shape": {"counts": {"dtype": "I64", "shape": [-9], "data_offsets": [0, 72]}},
        "offsets": {"counts": {"dtype": "I64", "shape": [9], "data_offsets": [0, 10**15]}},
        "entry": {"counts": 5},
        "no content": {"__metadata__": {"sha256": metadata["sha256"]}},
        "no JSON": {"__metadata__": metadata | {"noiseopt": "{"}},
        "deep JSON": {"__metadata__": metadata | {"noiseopt": "[" * 100_000}},
        "no format": {"__metadata__": metadata | {"noiseopt": '{"metadata": {}}'}},
        "other format": {"__metadata__": metadata | {"noiseopt": '{"format": 99, "metadata": {}}'}},
        "metadata no object": {"__metadata__": metadata | {"noiseopt": '{"format": 1, "metadata": 4}'}},
    }
    for name, change in (disguised | broken).items():
        found.append((f"header: {name}", with_header(data, change)))
    for name, change in broken.items():
        found.append((f"header, signed: {name}", signed(with_header(data, change))))
    found.append(("no metadata", with_header(data, {"__metadata__": {}})))
    found += [
        ("zeros", bytes(len(data))),
        ("text", b"hello\n" * 50),
        ("longer", data + b"\0"),
        ("twice", data * 2),
    ]
    return found


def unnoticed(name: str, path: Path) -> None:
    checkpoint.load(path)
    pytest.fail(f"{name} went unnoticed")


def test_every_damage_is_the_users_error_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    data = example(path)
    cases = mutations(data)
    assert len(cases) >= 100
    for name, damaged in cases:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors.*fix:"):
            unnoticed(name, path)
    path.write_bytes(data)
    checkpoint.load(path)


def test_every_single_byte_is_covered_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    data = example(path)
    for where in range(len(data)):
        path.write_bytes(data[:where] + bytes([data[where] ^ 0x20]) + data[where + 1 :])
        with pytest.raises(UserError):
            checkpoint.load(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load("a\0b")
    with pytest.raises(UserError, match="could not be written"):
        checkpoint.save(tmp_path / "none" / "c.safetensors", {}, {})


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "c.safetensors"
    before = example(path)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(UserError, match="disk full"):
            checkpoint.save(path, {"x": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    checkpoint.save(path, {"x": torch.zeros(3)}, {})  # what the failure left behind is no obstacle
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_data_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), real_replace(a, b))[1])
    checkpoint.save(tmp_path / "c.safetensors", {}, {})
    assert calls == ["fsync", "replace", "fsync"]


def test_a_model_comes_back(tmp_path: Path) -> None:
    one, other = net(), net()
    one(torch.randn(8, 2))  # moves the running statistics
    checkpoint.save_model(tmp_path / "m.safetensors", one, {"width": 3})
    assert checkpoint.load_model(tmp_path / "m.safetensors", other) == {"width": 3}
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (net(4), r"0.weight: float32\[4, 2\]; got 0.weight: float32\[3, 2\]"),
        (net().double(), "float64"),
        (nn.Sequential(nn.Linear(2, 3)), r"1\.\w+: absent; got 1\.\w+: "),
        (nn.Sequential(*net(), nn.Linear(3, 1)), "2.weight: float32.*; got 2.weight: absent"),
    ],
)
def test_a_model_of_another_shape_is_refused_and_left_as_it_was(tmp_path: Path, other: nn.Module, message: str) -> None:
    checkpoint.save_model(tmp_path / "m.safetensors", net(), {})
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UserError, match=message):
        checkpoint.load_model(tmp_path / "m.safetensors", other)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_a_model_with_other_state_than_tensors_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> str:
            return "text"

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(UserError, match="_extra_state: str"):
        checkpoint.save_model(tmp_path / "m.safetensors", Odd(), {})


@pytest.mark.parametrize(
    "make", [torch.optim.Adam, SigmaAdam, torch.optim.SGD, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)]
)
def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path, make: object) -> None:
    def steps(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            sum((p.sin() * p).sum() for p in parameters).backward()
            optimizer.step()

    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    optimizer = make(parameters)  # type: ignore[operator]
    steps(parameters, optimizer, 3)
    path = tmp_path / "o.safetensors"
    checkpoint.save(path, checkpoint.optimizer_tensors(optimizer, name="weights"), {})
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    restored = make(copies)  # type: ignore[operator]
    checkpoint.restore_optimizer(restored, checkpoint.load(path)[0], name="weights", path=path)
    steps(parameters, optimizer, 3)
    steps(copies, restored, 3)
    assert all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))


@pytest.mark.parametrize(
    "tensors",
    [
        {"weights/0/exp_avg": torch.zeros(9)},
        {"weights/0/step/int": torch.zeros(3)},
        {"weights/7/exp_avg": torch.zeros(3)},
        {"weights/x/exp_avg": torch.zeros(3)},
        {"weights/exp_avg": torch.zeros(3)},
    ],
)
def test_an_optimiser_of_another_network_is_refused(tensors: dict[str, torch.Tensor]) -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(3))])
    with pytest.raises(UserError, match=r"here\.safetensors is damaged"):
        checkpoint.restore_optimizer(optimizer, tensors, name="weights", path="here.safetensors")
