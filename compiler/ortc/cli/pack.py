"""`ortc pack`: bundles for releases and container registries."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rich_click as click

from ortc.cli.options import key_option
from ortc.cli.several import Outcome, bundles_argument, run_each
from ortc.cli.verify import note

Format = Literal["tar", "oci", "transformers.js", "static", "npm"]


@click.command
@bundles_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("packed"),
    show_default=True,
    help="Where NAME-VERSION-TARGET.tar, its .sha256 and NAME-VERSION-TARGET.oci/ go.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["tar", "oci", "transformers.js", "static", "npm"]),
    multiple=True,
    default=("tar", "oci"),
    show_default=True,
    help="An archive for a release; an OCI image layout for registries; a folder that transformers.js opens "
    "without a network; a folder for hosts of static files; a package that npm installs. May be repeated.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="LAYOUT",
    help="An OCI layout of one image with a shell, below the modelcar's files: for KServe's sidecar.",
)
@click.option("--allow-unfit", is_flag=True, help="Pack even a bundle whose weights are random.")
@key_option("bundles that are not signed with it are refused.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def pack(
    bundles: tuple[Path, ...],
    output: Path,
    formats: tuple[Format, ...],
    base: Path | None,
    allow_unfit: bool,
    key: Path | None,
    as_json: bool,
) -> int:
    """Pack bundles: the same bundle gives the same bytes.

    Every file is compared with its digest first. The layout has a model artifact (VERSION-TARGET) and a modelcar
    (VERSION-TARGET-modelcar), which `skopeo copy oci:LAYOUT:REFERENCE docker://…` puts into a registry.
    """
    from ortc.bundle.delivery.pack import pack as run

    def one(bundle: Path) -> Outcome:
        done = run(bundle, output, formats, base, unfit=allow_unfit, key=key, say=note)
        said = "" if done.archive is None else f"{done.archive}  sha256:{done.archive_sha256}\n"
        said += "".join(f"{done.layout}:{image.reference}  {image.kind}, {image.digest}\n" for image in done.images)
        said += "" if done.repository is None else f"{done.repository}  for transformers.js\n"
        said += "" if done.static is None else f"{done.static}  for hosts of static files\n"
        said += "" if done.npm is None else f"{done.npm}  for npm install\n"
        return Outcome(done.model_dump(mode="json"), said)

    return run_each(bundles, one, as_json=as_json)
