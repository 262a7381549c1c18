"""`ortc` and `python -m ortc`: runs a command and turns what it raises into text and an exit code."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m ortc` would import a `pydantic.py` of the working directory.
    del sys.path[0]

from ortc.cli.report import reached_limit, refused_path, report_bug, report_error
from ortc.cli.streams import clean_streams
from ortc.common.errors import OrtcError

_INTERRUPTED = 130
_READER_LEFT = 141
"""What a shell reports of a program that SIGPIPE ended: 128 and the number of the signal."""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        The exit code: 0, 1 for a bug, 2 for wrong usage, else the code of the error.
    """
    with clean_streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    # Imported here so that an interrupt during start-up needs no traceback either.
    import click

    from ortc.cli import main as command
    from ortc.cli.signals import Ended, clearing_up
    from ortc.common.permissions import withdraw

    withdraw()

    debug = "--debug" in arguments
    try:
        with clearing_up():
            result = command.main(args=arguments, prog_name="ortc", standalone_mode=False)
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except OrtcError as error:
        report_error(error, debug=debug)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Ended as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as stop:
        # click turns a closed pipe into an exit with 1.
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_left()
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a bug is reported
        from ortc.common.disk import everywhere, is_full

        if is_full(error):
            full = everywhere()
            report_error(full, debug=debug)
            return full.exit_code
        if (refused := reached_limit(error) or refused_path(error)) is not None:
            report_error(refused, debug=debug)
            return refused.exit_code
        report_bug()
        return 1


def _reader_left() -> int:
    """The reader of stdout has gone, as `head` does; Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _READER_LEFT


if __name__ == "__main__":
    main()
