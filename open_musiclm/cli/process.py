"""How a script runs: its parser, and how results, errors and signals reach the person at the terminal."""

import argparse
import gc
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from open_musiclm import terminal
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interrupted

Result = TypeVar("Result")
MISUSE = 2
INTERRUPTED = 130
SIGNALLED = 128
_TORCH_OUT_OF_MEMORY = "OutOfMemoryError"  # of a GPU; torch is not imported here
_TORCH_CPU_ALLOCATOR = "DefaultCPUAllocator"  # in the text of a RuntimeError
_LESS_MEMORY = (
    "with less: to generate, --precision bfloat16, --max_batch_size 1 or a shorter --duration; to train, a smaller "
    "batch_size with a larger grad_accum_every, or gradient_checkpointing"
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to a help text that does not tell it, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        nothing_to_tell = action.required or default is None or default is False or default == []
        return action.help if nothing_to_tell or "default" in (action.help or "") else super()._get_help_string(action)


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser without options."""
    return argparse.ArgumentParser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)


def parser(description: str | None, results_folder: str = "folder for all output") -> argparse.ArgumentParser:
    """An argument parser with `--device` and `--results_folder`, of every script that runs a model.

    `results_folder` is the help text of the latter.
    """
    result = plain_parser(description)
    add_device_argument(result)
    result.add_argument("--results_folder", type=Path, default=None, help=results_folder)
    return result


def add_device_argument(to: argparse.ArgumentParser) -> None:
    """`--device`."""
    to.add_argument("--device", default=None, help="cuda, cuda:1, mps or cpu; by default the best available")


def require_arguments(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Raises UserError if one of these arguments was not given."""
    missing = [f"--{name}" for name in names if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"missing {', '.join(missing)}")


def exclude_arguments(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError if more than one of these arguments was given."""
    given = [f"--{name}" for name in names if getattr(arguments, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: exclude each other; give one of them")


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parses the command line and runs `main`.

    Exit status: 2 after a user error, with one line; 128 plus its number after a signal.
    """
    terminal.escape_what_cannot_be_encoded()
    warnings.showwarning = terminal.show_warning
    parsed = arguments.parse_args()
    if sys.platform == "win32":
        terminal.print_stderr("error: Windows is not supported; use Linux, macOS, or Linux within Windows (WSL)")
        sys.exit(MISUSE)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    status = 0
    try:
        main(parsed)
    except UserError as error:
        terminal.print_stderr(f"error: {error}")
        _leave(MISUSE)
    except OSError as error:
        if error.errno is None and not isinstance(error, shutil.Error):
            raise
        terminal.print_stderr(f"error: {terminal.describe(error)}")
        _leave(MISUSE)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        terminal.print_stderr(f"error: out of memory: {next(iter(str(error).splitlines()), 'the main memory is full')}")
        terminal.print_stderr(_LESS_MEMORY)
        _leave(MISUSE)
    except KeyboardInterrupt:
        terminal.print_stderr("interrupted")
        _leave(INTERRUPTED)
    except Interrupted as error:
        status = error.exit_status
    _end_process_group()
    terminal.end_output()
    if status:
        sys.exit(status)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether torch or Python got no memory; for main memory torch has no error class of its own."""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == _TORCH_OUT_OF_MEMORY
    return out_of_memory or _TORCH_CPU_ALLOCATOR in str(error)


def _leave(status: int) -> NoReturn:
    """Ends this process. One of several ends at once: the others may wait for it for ever."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _end_process_group() -> None:
    """Ends the group of a run on several processes, now that no model holds it any more: torch would wait for ever."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def print_each(
    results: Iterable[Result], total: int, folder: Path, describe: Callable[[Result], Iterable[str]]
) -> None:
    """Prints the lines of each result as soon as it is written; if that ends early, how many are in `folder`.

    SIGTERM and SIGHUP end the process with status 143 and 129, after cleaning up.
    """
    done = 0
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _exit_by_signal) for number in numbers}  # nohup ignores SIGHUP
    try:
        for result in results:
            done += 1
            for line in describe(result):
                terminal.print_stdout(line)
    except BaseException as error:
        if done or not isinstance(error, UserError):  # for an error before any result, one line is enough
            terminal.print_stderr(f"not finished: {done} of {total} are written, in {folder}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(SIGNALLED + number)
