"""Build stand-ins for NVIDIA's libraries: with them ONNX Runtime's CUDA provider loads on a machine without a GPU.

It registers its kernels and takes its part of a graph there as it would with one, and computes nothing. The functions
that its libraries import are read from them; cuda_stand_in.c has those that must do more than return 0. It needs a C
compiler (`cc`) and `readelf`.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).with_name("cuda_stand_in.c")
CAPABILITY = (9, 0)
"""Compute capability of the device that is played."""
_NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:cu|nv)[^]]*\.so\.\d+)\]")
_OWN = "Provider_GetHost"
"""What ONNX Runtime's own libraries give each other."""


def stand_ins(libraries: Iterable[Path], output: Path) -> Path:
    """Build a library for every one of NVIDIA's that these need, into `output`, for LD_LIBRARY_PATH.

    Raises:
        FileNotFoundError: there is no C compiler or no readelf.
        subprocess.CalledProcessError: one of them fails.
    """
    output.mkdir(parents=True, exist_ok=True)
    imported: dict[str, set[str]] = {}
    loose: set[str] = set()
    for library in libraries:
        needed = [match[1] for match in map(_NEEDED.search, _readelf("--dynamic", library)) if match]
        for name in needed:
            imported.setdefault(name, set())
        for row in (line.split() for line in _readelf("--dyn-syms", library)):
            if len(row) < 8 or row[6] != "UND":
                continue
            symbol, _, version = row[7].partition("@")
            if version in imported:
                imported[version].add(symbol)
            elif not version and row[4] == "GLOBAL" and symbol != _OWN:
                loose.add(symbol)
    special = set(re.findall(r"^[a-z].*?(\w+)\([^;]*\{", SOURCE.read_text("utf-8"), re.MULTILINE))
    for name, symbols in imported.items():
        # Symbols without a version are looked for in every library.
        _build(output, name, sorted((symbols | loose) - special), versioned=bool(symbols))
    return output


def _build(output: Path, name: str, symbols: list[str], *, versioned: bool) -> None:
    source, script = output / f"{name}.c", output / f"{name}.map"
    text = "".join(f"long {symbol}() {{ return 0; }}\n" for symbol in symbols)
    source.write_text(SOURCE.read_text("utf-8") + text, "utf-8")
    script.write_text(f"{name} {{ global: *; }};\n", "utf-8")
    capability = [f"-DCAPABILITY_{part}={value}" for part, value in zip(("MAJOR", "MINOR"), CAPABILITY, strict=True)]
    command = [
        _tool("cc"),
        "-w",
        "-O1",
        "-shared",
        "-fPIC",
        *capability,
        f"-Wl,-soname,{name}",
        "-o",
        str(output / name),
    ]
    command += [f"-Wl,--version-script,{script}"] if versioned else []
    subprocess.run([*command, str(source)], check=True, capture_output=True, text=True)


def _readelf(option: str, library: Path) -> list[str]:
    command = [_tool("readelf"), "--wide", option, str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"`{name}` is not there, and stand-ins for NVIDIA's libraries are built with it")
    return found
