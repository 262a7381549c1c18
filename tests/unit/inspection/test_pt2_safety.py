"""What archives of exported programs may hold: torch runs what some of them carry, and evaluates their sizes."""

import json
import time
import zipfile
from pathlib import Path

import pytest
from tests.support.programs import archive, document, tensor, two_faced

from ortc.common.errors import StageError
from ortc.inspection.pt2_archive import ProgramError, read_program
from ortc.inspection.pt2_safety import _is_arithmetic, checked_copy, refuse_code


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "Symbol('s77', positive=True, integer=True)",
        "2*Symbol('u0', integer=True) + 1",
        "Max(1, Mod(s0, 8))",
        "(s0 // 2) ** 2 - 1",
        "Eq(s0, 3)",
        "-s0",
        "Pow(Integer(2), Integer(8))",
        "PowByNatural(Symbol('s0', integer=True), 2)",
        "LShift(s0, 3)",
        "TruncToInt(Mul(Float('1.5', precision=53), ToFloat(Symbol('s51', positive=True, integer=True))))",
        "StrictLessThan(Symbol('zuf0'), Float('-1.0e-05', precision=53))",
    ],
)
def test_arithmetic(text: str) -> None:
    assert _is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('__import__(\\'os\\')')",
        "s0.__class__",
        "eval('1')",
        "Symbol('s0')(1)",
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "[s for s in (1,)]",
        "Max(*print('x'))",
        "f'{s0}'",
        "__builtins__",
        "s0; s1",
        "",
        "(" * 1000,
        "7**9**9",
        "((2**64)**64)**64**1 * ((9**64)**64)**64",
        "(((2**64)**64)**64)**64",
        "Pow(7, Pow(9, 9))",
        "Pow(7, 999999999)",
        "1 << 10**10",
        "1 << 10000000000",
        "LShift(1, 10000000000)",
        "2**s0",
        "+".join(["s0"] * 10_000),
    ],
)
def test_code(text: str) -> None:
    assert not _is_arithmetic(text)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_copy_holds_the_members_that_were_checked(tmp_path: Path) -> None:
    """torch finds the directory of an archive by its offset, Python by its size: a file can have two."""
    shown = members(archive(tmp_path / "plain.pt2"))
    evil = document(inputs={"ids": tensor(5, "__import__('os').system('true')")})
    hidden = shown | {"m/models/model.json": json.dumps(evil).encode()}
    assert b"system" in two_faced(tmp_path / "two.pt2", shown, hidden).read_bytes()
    checked_copy(tmp_path / "two.pt2", tmp_path / "copy.pt2")
    assert members(tmp_path / "copy.pt2") == {f"program/{name[2:]}": content for name, content in shown.items()}
    assert b"system" not in (tmp_path / "copy.pt2").read_bytes()
    two_faced(tmp_path / "turned.pt2", hidden, shown)
    with pytest.raises(StageError, match="which is no arithmetic"):
        checked_copy(tmp_path / "turned.pt2", tmp_path / "other.pt2")
    assert not (tmp_path / "other.pt2").exists()


def test_notes_of_an_archive_are_not_copied(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a") as file:
        file.writestr("m/extra/Models/MODEL.json", "{}")
    checked_copy(tmp_path / "m.pt2", tmp_path / "copy.pt2")
    assert sorted(members(tmp_path / "copy.pt2")) == [
        "program/data/weights/model_weights_config.json",
        "program/models/model.json",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m/models/MODEL.JSON", b"{}", "it holds `models/MODEL.JSON`"),
        ("m/data/constants/model_constants_config.json", b"[]", "the list of its weights is no mapping"),
        ("m/data/constants/model_constants_config.json", b'{"config": {"a": 1}}', "its constant `a` is a pickled"),
        ("m/data/constants/model_constants_config.json", b"{", "is no .pt2 archive"),
        ("n/version", b"1", "it has more than one directory"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a") as file:
        file.writestr(name, content)
    with pytest.raises(StageError, match=reason):
        refuse_code(tmp_path / "m.pt2")


def test_members_that_unfold_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data/weights/weight_0", b"0" * 10_000_000)
    with pytest.raises(StageError, match="its member `data/weights/weight_0` is compressed"):
        refuse_code(tmp_path / "m.pt2")


def test_sizes_are_judged_at_once() -> None:
    begin = time.process_time()
    assert not _is_arithmetic("*".join(["9**9**9**9"] * 1000))
    assert time.process_time() - begin < 2


CONTEXTS = {
    "an enumeration": json.dumps([{"__enum__": True, "fqn": "ctypes:cdll", "name": "./model.pt2"}]),
    "an enumeration alone": json.dumps({"__enum__": True, "fqn": "os:environ", "name": "TOKEN"}),
    "an enumeration in a list": json.dumps([[{"__enum__": True, "fqn": "os:environ", "name": "TOKEN"}]]),
    "a factory": json.dumps({"default_factory_module": "os", "default_factory_name": "abort", "dict_context": []}),
    "no text": {"default_factory_module": "os"},
    "no JSON": "import os",
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("key", ["in_spec", "out_spec"])
@pytest.mark.parametrize("depth", [0, 3])
def test_containers_of_arguments_have_plain_keys(tmp_path: Path, context: str, key: str, depth: int) -> None:
    """Torch imports the module of an enumeration, and indexes whatever it names: libraries, the environment."""
    model = document()
    leaf = {"type": "builtins.dict", "context": CONTEXTS[context], "children_spec": []}
    for _ in range(depth):
        leaf = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    # Of a module within the program, not of the program.
    model["graph_module"]["module_call_graph"].append({"fqn": "inner", "signature": {key: json.dumps([1, leaf])}})
    with pytest.raises(StageError, match=r"a container of its arguments, builtins\.dict, has more than keys"):
        refuse_code(archive(tmp_path / "m.pt2", model))


@pytest.mark.parametrize("layout", ["{", "[]", "[1]", "[1, 2]", '[1, {"context": null}]', "7", '"a"'])
def test_a_layout_that_torch_does_not_write(tmp_path: Path, layout: str) -> None:
    model = document()
    model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = layout
    with pytest.raises(StageError, match="the layout of its arguments is"):
        refuse_code(archive(tmp_path / "m.pt2", model))


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.ops.aten.warn.default"),
        *(
            "torch.os.system",
            "torch.load",
            "torch.hub.load",
            "torch.ops.load_library",
            "torch.ops.aten.__class__.mro.x",
        ),
        *("torch.ops.c10d.barrier", "torch.ops.profiler._record_function_enter", "torch.ops.higher_order.print"),
        *("_operator.call", "_operator.attrgetter", "math.factorial", "#aoti:x", "print", "torch.sym_fresh_size.x"),
    ],
)
@pytest.mark.parametrize("place", ["node", "inner graph", "argument"])
def test_a_program_calls_plain_operators(tmp_path: Path, target: str, place: str) -> None:
    model = document()
    node = {"target": target, "inputs": [], "outputs": []}
    if place == "node":
        model["graph_module"]["graph"]["nodes"].append(node)
    else:
        inner = {"as_graph": {"name": "g", "graph": {"nodes": [node]}}}
        given = inner if place == "inner graph" else {"as_operator": target}
        cond = {
            "target": "torch.ops.higher_order.cond",
            "inputs": [{"name": "", "arg": given, "kind": 1}],
            "outputs": [],
        }
        model["graph_module"]["graph"]["nodes"].append(cond)
    with pytest.raises(StageError, match="which is no plain operator"):
        refuse_code(archive(tmp_path / "m.pt2", model))


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.sym_size.int", "_operator.floordiv", "torch.sym_max", "math.trunc", "torch._sym_sqrt"],
)
def test_operators_of_sizes_are_plain(tmp_path: Path, target: str) -> None:
    model = document()
    model["graph_module"]["graph"]["nodes"].append({"target": target, "inputs": [], "outputs": []})
    refuse_code(archive(tmp_path / "m.pt2", model))


def damaged(path: Path, how: str) -> Path:
    """An archive whose member with the program is damaged."""
    archive(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if how == "deflate" else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
        member = file.getinfo("m/models/model.json")
    data = bytearray(path.read_bytes())
    start, listed = member.header_offset + 30 + len(member.filename), data.rindex(b"PK\x01\x02")
    if how == "deflate":
        data[start : start + 4] = b"\x07\xff\xff\xff"
    elif how == "encrypted":
        data[member.header_offset + 6] |= 1
        data[listed + 8] |= 1
    else:
        data[listed + 20 : listed + 24] = (2**24).to_bytes(4, "little")
        data[listed + 24 : listed + 28] = (2**24).to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["deflate", "encrypted", "longer than the file"])
def test_a_damaged_member_is_told(tmp_path: Path, how: str) -> None:
    place = damaged(tmp_path / "m.pt2", how)
    with pytest.raises(ProgramError, match=r"cannot be read as a \.pt2 archive|refused|no models"):
        read_program(place)
    with pytest.raises(StageError, match=r"is no \.pt2 archive|refused to read"):
        refuse_code(place)
