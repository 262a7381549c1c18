"""The command line: the only code of the compiler that prints or exits."""

from importlib import import_module

import rich_click as click

from ortc import __version__

# Where each command lies. Its module is imported when the command runs and not before: `ortc check` must answer at
# once, and other commands bring much with them.
COMMANDS = (
    ("check", "ortc.cli.check:check", "Validate specs without building anything."),
    ("plan", "ortc.cli.plan:plan", "Show what a build would do: each stage cached, or why it will run."),
    ("build", "ortc.cli.build:build", "Build the bundles of specs, and fail when a promise is broken."),
    ("job", "ortc.cli.job:job", "Do parts of builds on several machines."),
    ("lock", "ortc.cli.lock:lock", "Build a spec and pin what it was made of and came to in ortc.lock."),
    ("verify", "ortc.cli.verify:verify", "Judge a bundle by its own promises on this host."),
    ("attach", "ortc.cli.attach:attach", "Add to a bundle what it measured of itself on another machine."),
    ("sign", "ortc.cli.sign:sign", "Sign a bundle with a key, offline."),
    ("pack", "ortc.cli.pack:pack", "Pack a bundle as an archive, and as images for a container registry."),
    ("emit", "ortc.cli.emit:emit", "Write manifests that deploy a bundle: Kubernetes, KServe, Triton."),
    ("run", "ortc.cli.run:run", "Answer texts or images with a bundle."),
    ("bench", "ortc.cli.bench:bench", "Measure a bundle, or a spec's bundles against PyTorch, on this host."),
    ("report", "ortc.cli.report_page:report", "Make the page of a build from its report."),
    ("diff", "ortc.cli.diff:diff", "Show what changes between two bundles, or two states of a spec."),
    ("registry", "ortc.cli.registry:registry", "Keep versions of bundles, and bring them back."),
    ("cache", "ortc.cli.cache:cache", "Look at what builds keep, and drop what is old."),
    ("migrate", "ortc.cli.migrate:migrate", "Rewrite profiles whose keys the language had before."),
    ("targets", "ortc.cli.targets:targets", "List the target profiles."),
    ("init", "ortc.cli.init:init", "Write the first spec of a model."),
    ("doctor", "ortc.cli.doctor:doctor", "Show what this machine has, and what is missing for which target."),
    ("schema", "ortc.cli.schema:schema", "Print the JSON Schema of specs or of target profiles."),
    ("explain", "ortc.cli.explain:explain", "Explain an error code, or list all of them."),
)


class LazyGroup(click.RichGroup):
    """A group that knows its commands by name and summary, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the table."""
        return [name for name, _, _ in COMMANDS]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments call, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        place = next((place for known, place, _ in COMMANDS if known == name), None)
        if place is None:
            return name, command, rest
        module, attribute = place.split(":")
        return name, getattr(import_module(module), attribute), rest


@click.group(
    cls=LazyGroup,
    commands={name: click.RichCommand(name=name, help=text) for name, _, text in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="ortc")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Compile trained PyTorch models into verified ONNX Runtime bundles."""
