"""The variants for NVIDIA GPUs against PyTorch, on a machine that has one.

    python tests/gpu/run.py pack --output PACK     here, with ortc: bundles without their weights, a few megabytes
    python PACK/run.py run --output FILE.json      there: needs onnxruntime-gpu, numpy and PyTorch, and nothing of ortc
    python tests/gpu/run.py render [FILE.json]     here: FILE joins tests/gpu/data, and docs/performance.md shows it

`make gpu` does all three on a machine that has both. Weights are made anew on the other machine from their names and a
seed, and compared with the digests of those that were packed, so that both machines compute with the same numbers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = "1x128,4x128,16x128,64x128,1x512,4x512,16x512,64x512"


def main() -> int:
    """The command line.

    Returns:
        0; 2 when an argument names nothing known; 1 when a pack cannot be made or is not whole; 7 without a GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="build the variants and take their weights out")
    pack.add_argument("--output", type=Path, required=True, help="a directory to be made")
    pack.add_argument("--models", default="minilm,bert-base", help="default: %(default)s")
    pack.add_argument("--variants", help="default: all of the profiles server-gpu and server-gpu-tensorrt")
    run = commands.add_parser("run", help="measure")
    run.add_argument("--pack", type=Path, default=HERE, help="default: the directory of this program")
    run.add_argument("--output", type=Path, required=True, metavar="FILE", help="the data file, JSON")
    run.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    run.add_argument("--models", help="default: all of the pack")
    run.add_argument("--only", default="", help="contenders whose names begin so: ortc,torch-eager; default: all")
    run.add_argument("--shapes", default=SHAPES, help="batch x sequence; default: %(default)s")
    run.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    run.add_argument("--starts", type=int, default=3, help="starts of each contender (default: %(default)s)")
    run.add_argument("--seconds", type=float, default=1e9, help="begin no further race of a model after this time")
    render = commands.add_parser("render", help="write docs/performance.md")
    render.add_argument("file", type=Path, nargs="?", help="a data file to take into tests/gpu/data first")
    arguments = parser.parse_args()
    if arguments.command == "pack":
        return _pack(parser, arguments)
    return _run(parser, arguments) if arguments.command == "run" else _render(arguments)


def _pack(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from packing import MODELS, PackError, pack, say, size_of, variants

    names, known = arguments.models.split(","), [name for _, name in variants()]
    only = arguments.variants.split(",") if arguments.variants else None
    for asked, choices in ((names, list(MODELS)), (only or [], known)):
        for name in asked:
            if name not in choices:
                parser.error(f"`{name}` is none of {', '.join(choices)}")
    try:
        with tempfile.TemporaryDirectory(prefix="ortc-gpu-") as work:
            pack(arguments.output.resolve(), names, only, Path(work))
    except PackError as error:
        say(f"error: {error}")
        return 1
    say(f"{arguments.output}: {size_of(arguments.output) / 1e6:.1f} MB")
    return 0


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    # A pack has what lies there beside this program.
    sys.path.append(str(HERE.parent / "benchmarks"))
    from compete import Job, compete, gpu, say

    if arguments.device == "cuda" and gpu() is None:
        say("error: nvidia-smi shows no GPU here. Install NVIDIA's driver, or try the way itself with --device cpu.")
        return 7

    try:
        shapes = tuple((int(batch), int(sequence)) for batch, sequence in _pairs(arguments.shapes))
    except ValueError:
        parser.error(f"--shapes {arguments.shapes}: expected batch x sequence, such as 1x128,4x512")
    job = Job(
        pack=arguments.pack.resolve(),
        output=arguments.output.resolve(),
        device=arguments.device,
        models=tuple(arguments.models.split(",")) if arguments.models else None,
        only=tuple(arguments.only.split(",")),
        shapes=shapes,
        rounds=arguments.rounds,
        starts=max(1, arguments.starts),
        seconds=arguments.seconds,
    )
    try:
        compete(job)
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def _pairs(text: str) -> list[list[str]]:
    pairs = [part.split("x") for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    return pairs


def _render(arguments: argparse.Namespace) -> int:
    import json

    data = HERE / "data"
    if arguments.file is not None:
        document = json.loads(arguments.file.read_bytes())
        data.mkdir(exist_ok=True)
        name = document["gpu"]["name"] if document.get("gpu") else document["host"]["cpu"]
        shutil.copyfile(arguments.file, data / f"{'-'.join(name.lower().split())}.json")
    sys.path.insert(0, str(HERE.parent / "benchmarks"))
    import render

    render.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
