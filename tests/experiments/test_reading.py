from __future__ import annotations

from pathlib import Path

import pytest

from noiseopt.errors import UserError
from noiseopt.experiments import reading

LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "r:2 .*alias"),
        ("a: &x 1\nb: *x", "r:2 .*alias"),
        ("a: &x {k: 1}\nb: {<<: *x}", "r:2 .*alias"),
        ("a: 1\nb: 2\na: 3", "r:3 .*'a' is given twice"),
        ("a: {b: [1, {c: 1, c: 2}]}", "'c' is given twice"),
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\n\tb: 2", "r:2 .*not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a:\n  !!python/object/apply:os.system [true]", "r:2 .*tags .*not allowed"),
        ("a: !!int x", "not valid YAML"),
        ("a: 2020-02-30", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("? [1, 2]\n: 3\n? {a: 1}\n: 2", "not valid YAML"),
    ],
)
def test_yaml_with_traps_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        reading.parse(text, place="r")


def test_numbers_are_those_of_yaml_1_2() -> None:
    values, _ = reading.parse("[1e-3, -2E5, 1., 3, 8/255, on, 1e, e5]", place="r")
    assert values == [0.001, -200000.0, 1.0, 3, "8/255", True, "1e", "e5"]
    assert isinstance(values[0], float)


def test_other_users_of_yaml_keep_theirs() -> None:
    import yaml

    assert yaml.safe_load("1e-3") == "1e-3"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("8/255", 8 / 255), (" 1.5 / 3 ", 0.5), ("0/7", 0.0), (0.25, 0.25), ("1/0", "1/0"), ("1/2/3", "1/2/3")]
    + [(same, same) for same in ("-1/2", "a/b", "1e3/2", "__import__('os')/1", "8//255", "/", None, [1])],
)
def test_a_fraction_is_a_number_and_nothing_else_is_evaluated(written: object, meant: object) -> None:
    assert reading.number(written) == meant


def test_lines_are_found_by_place() -> None:
    text = "a: 1\nb:\n  - c: 2\n  - d:\n      e: 3\n"
    _, node = reading.parse(text, place="r")
    assert reading.line_of(node, ("a",)) == 1
    assert reading.line_of(node, ("b", 1, "d", "e")) == 5
    assert reading.line_of(node, ("b", 1, "missing")) == 4  # the nearest that is there
    assert reading.line_of(node, ("b", 7)) == 2
    assert reading.line_of(None, ("b",)) is None


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("name: x")
    with pytest.raises(UserError, match=r"no recipe file .*dema\.yaml.*did you mean .*demo\.yaml"):
        reading.read(tmp_path / "dema.yaml")
    with pytest.raises(UserError, match="is a folder"):
        reading.read(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        reading.read(Path("a\0b"))
    (tmp_path / "latin").write_bytes("title: caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin is not UTF-8 text \(byte 10\)"):
        reading.read(tmp_path / "latin")
    (tmp_path / "large").write_bytes(b"#" * (reading.MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 1 MB"):
        reading.read(tmp_path / "large")
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfname: x")
    assert reading.read(tmp_path / "bom") == "name: x"
