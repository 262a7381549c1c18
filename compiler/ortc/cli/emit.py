"""`ortc emit`: manifests that deploy bundles."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.options import key_option
from ortc.cli.several import Outcome, bundles_argument, run_each
from ortc.cli.verify import note

if TYPE_CHECKING:
    from ortc.bundle.delivery.manifests import Kind

KINDS: tuple[Kind, ...] = ("k8s", "kserve", "triton")
IMAGE = "{name}:{version}-{target}"


def parse_kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Kind, ...]:
    """The kinds in a list like `k8s,triton`: a callback of options."""
    names = [name.strip() for name in value.split(",")] if value else []
    for name in names:
        if name not in KINDS:
            raise click.BadParameter(f"`{name}` is none of {', '.join(KINDS)}", context, parameter)
    kinds: tuple[Kind, ...] = KINDS
    return tuple(kind for kind in kinds if kind in names)


def check_image(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A name of images that can be filled in: a callback of options."""
    known = (None, "name", "version", "target")
    try:
        plain = all(
            name in known and not shape and not conversion for _, name, shape, conversion in Formatter().parse(value)
        )
    except ValueError:
        plain = False
    if not plain:
        raise click.BadParameter(
            f"`{value}` has more in braces than {{name}}, {{version}} and {{target}}", context, parameter
        )
    if not value.strip():
        raise click.BadParameter("an image has a name", context, parameter)
    return value


image_option = click.option(
    "--image",
    default=IMAGE,
    show_default=True,
    callback=check_image,
    help="The name of a bundle's container image in what is emitted.",
)


@click.command
@bundles_argument
@click.option(
    "--emit",
    "kinds",
    callback=parse_kinds,
    default=",".join(KINDS),
    show_default=True,
    metavar="KINDS",
    help="What to write: k8s, kserve, triton, separated by commas.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to, of a single bundle; by default BUNDLE.deploy.",
)
@image_option
@key_option("bundles that are not signed with it are refused.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def emit(
    bundles: tuple[Path, ...],
    kinds: tuple[Kind, ...],
    output: Path | None,
    image: str,
    key: Path | None,
    as_json: bool,
) -> int:
    """Write manifests that deploy bundles: Kubernetes, KServe, a model repository of Triton.

    Memory, threads and probes are those that were measured of the bundle. What lay in the output directory is replaced.
    Beside a signed bundle, a measurement that no signature covers is not used.
    """
    from ortc.bundle.delivery.manifests import emit as run

    if output is not None and len(bundles) > 1:
        raise click.UsageError("--output replaces what one bundle's manifests go to: not with several bundles")

    def one(bundle: Path) -> Outcome:
        written = [str(path) for path in run(bundle, kinds, image=image, output=output, key=key, say=note)]
        return Outcome({"format_version": 1, "written": written}, "".join(f"{path}\n" for path in written))

    return run_each(bundles, one, as_json=as_json)
