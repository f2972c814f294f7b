"""The `tlhub` command: one function a command, exit codes, and the only place that sets up logging and prints."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

from tlhub import __version__, environment, launching, options
from tlhub.config import RunConfig, SamplingConfig, replace
from tlhub.errors import DataError, TlhubError, UsageError, is_disk_full, printable
from tlhub.evaluation.scores import flat
from tlhub.launching import Ending
from tlhub.limits import check_sampling
from tlhub.parsers import FINETUNE, PLAN, PROVE, Command, one_line, suggestion
from tlhub.stopping import listening

EVALUATE = Command("evaluate", "Score a finished run on data.", {"run": "the run's folder"}, ("data",))
PREDICT = Command("predict", "Predict with a finished run; one JSON object a line.",
                  {"run": "the run's folder", "input+": "files, folders, texts, or - for lines of standard input"},
                  actions={"batch_size=": "examples of one forward pass"}, fields=SamplingConfig)
DATA_CHECK = Command("data check", "Tell what is understood of a data set, and what would stop a run.",
                     {"task": "what would be predicted, such as image-classification"}, ("data",),
                     ("seed", "task_options"))
QUICKSTART = Command(
    "quickstart", "See transfer on every task, with the embedded checkpoints and data; leaves a page to look at.",
    run_options=("out", "seed"), actions={"overwrite": "begin again in --out"})
MODELS = Command("models", "List the checkpoints that come with tlhub, and those in the Hub's cache, with their terms.",
                 actions={"json": "one JSON list, with everything that is known"})
DOCTOR = Command("doctor", "Tell whether tlhub can work here, and what is missing.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tlhub` and return its exit code.

    Args:
        argv: What follows `tlhub`; default: the process's own arguments.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words), debug="--debug" in words, last=argv is None)


def recipe(body: Callable[[dict[str, Any]], object], *, task: str, argv: Sequence[str] | None = None) -> None:
    """Run a recipe script with the options and the exit codes of `tlhub finetune TASK`, and leave.

    Args:
        body: Called with what the command line names, as keyword arguments of `tlhub.finetune` (without the task).
        task: What the recipe predicts.
        argv: What follows the script's name; default: the process's own arguments.

    Raises:
        SystemExit: Always.

    Examples:
        >>> def main(options):
        ...     run = tlhub.finetune("text-classification", **options)
        ...     print(run.metrics["test"]["accuracy"])
        >>> if __name__ == "__main__":
        ...     tlhub.cli.recipe(main, task="text-classification")
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def carry_out() -> Ending:
        config, choices = _asked([task, *words])
        if _needs_launch(config):
            return launching.launch([sys.argv[0], *words], config.launch.num_processes)
        body(choices)
        return Ending(0)

    sys.exit(guarded(carry_out, debug="--debug" in words, last=argv is None))


def guarded(body: Callable[[], Ending], *, debug: bool, last: bool = False) -> int:
    """Return the exit code of `body`, and say in one line why it failed.

    Args:
        body: What to do. SIGTERM and SIGINT interrupt it, unless it defers them.
        debug: Show tracebacks.
        last: Whether the process ends with it, so that no signal may change the exit code any more.
    """
    _set_up_logging(debug)
    launching.follow_launcher()
    with listening() as stop:
        try:
            with stop.interrupting():
                ending = body()
        except SystemExit as exit_:
            ending = Ending(exit_.code if isinstance(exit_.code, int) else 1)
        except BaseException as error:  # the exit code has to be right whatever happens
            if debug:
                traceback.print_exc()
            ending = _ending(error, stopped=stop.requested)
        # Before the others can notice that this process is gone.
        told = launching.is_relaunched() and launching.leave(ending)
        if ending.reason and not told:
            print(f"tlhub: {_of_rank()}{ending.reason}", file=sys.stderr)
        launching.leave_group()
        if last:
            stop.conclude()
    return ending.code


def _dispatch(words: list[str]) -> Ending:
    """Run the command that the words name.

    Raises:
        UsageError: There is no such command.
    """
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return Ending(0)
    if words[0] == "--version":
        print(__version__)
        return Ending(0)
    count = 2 if words[0] == "data" else 1
    name = " ".join(words[:count])
    if name in ("data", "data -h", "data --help"):
        print(DATA_CHECK.parser.format_help())
        return Ending(0)
    found = [function for command, function in _COMMANDS if command.name == name]
    if not found:
        known = [command.name for command, _ in _COMMANDS]
        raise UsageError(f"command {name!r} is not known; {suggestion(name, known)} ({', '.join(known)})")
    return found[0](words[count:])


def _finetune(argv: list[str]) -> Ending:
    config, choices = _asked(argv)
    if _needs_launch(config):
        return launching.launch(["-m", "tlhub", "finetune", *argv], config.launch.num_processes)
    run = _engine()
    finished = run.finetune(config, overwrite=choices.get("overwrite", False))
    if launching.rank() == 0:
        for split in ("validation", "test"):
            scores = finished.metrics.get(split) or {}
            if scores:
                print(f"{split}: " + one_line(_scores(scores)))
        print(f"run: {finished.folder}")
    return Ending(0)


def _prove(argv: list[str]) -> Ending:
    config, choices = _asked(argv, PROVE)
    _engine()
    from tlhub.proving.prove import prove

    # A file's folder is that of the run; proofs go there only if the command says so.
    report = prove(replace(config, {"out": choices.get("out")}), overwrite=choices.get("overwrite", False))
    for proof in report.proofs:
        finding = proof.finding
        print(f"{proof.name:<13} {finding.outcome:<14} {proof.seconds:>5.1f} s  {one_line(finding.words)}")
    print(f"proofs: {report.folder}")
    return Ending(1, f"does not hold: {', '.join(report.failed)}") if report.failed else Ending(0)


def _plan(argv: list[str]) -> Ending:
    config, choices = _asked(argv, PLAN)
    _engine()
    from tlhub.planning.plan import plan
    from tlhub.planning.tables import lines

    # A file's folder is that of the run.
    found = plan(replace(config, {"out": choices.get("out")}), overwrite=choices.get("overwrite", False))
    for line in lines(found):
        print(printable(line))
    return Ending(0)


def _evaluate(argv: list[str]) -> Ending:
    given = EVALUATE.arguments(argv)
    section = given.get("data", {})
    if not section.get("source"):
        raise UsageError("no data is given; name a folder, a file or a Hub id: --data SOURCE")
    run = _engine()
    print(json.dumps(run.evaluate(given["run"], **section), indent=2))
    return Ending(0)


def _predict(argv: list[str]) -> Ending:
    given = PREDICT.arguments(argv)
    size = given.get("batch_size", "64")
    if not size.isdecimal() or int(size) < 1:
        raise UsageError(f"option '--batch_size' is {size!r}, but needs a whole number from 1")
    sampling = {name: given[name] for name in PREDICT.field_names() if name in given}
    chosen = {"batch_size": int(size)} if "batch_size" in given else {}
    check_sampling(SamplingConfig(**sampling))
    run = _engine()
    finished = run.load(given["run"])
    for batch in _batches(given["input"], int(size)):
        for prediction in finished.predict(batch, **chosen, **sampling):
            print(_json_line(prediction), flush=True)
    return Ending(0)


def _batches(inputs: Sequence[str], size: int) -> list[list[str]]:
    """Return the inputs with `-` replaced by the lines of standard input, in lists for one call each."""
    values: list[str] = []
    for value in inputs:
        values += [line.rstrip("\r\n") for line in sys.stdin if line.strip()] if value == "-" else [value]
    step = 16 * size
    return [values[start:start + step] for start in range(0, len(values), step)]


def _data_check(argv: list[str]) -> Ending:
    given = DATA_CHECK.arguments(argv)
    config = options.from_kwargs(given["task"], data=given.get("data", {}), model="-", seed=given.get("seed", 0),
                                 task_options=given.get("task_options", {}))
    from tlhub.data.check import check_report
    from tlhub.registry import TASKS

    task = TASKS.get(config.task)
    facts, problems = check_report(config.data, task.modality, problems=task.problems, seed=config.seed,
                                   keywords=task().keywords(config))
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{one_line(name):<{width}}  {one_line(value)}")
    if problems:
        raise DataError("; ".join(problems))
    return Ending(0)


def _quickstart(argv: list[str]) -> Ending:
    given = QUICKSTART.arguments(argv)
    from tlhub.quickstart.quickstart import quickstart
    from tlhub.quickstart.words import next_steps, table

    outcome = quickstart(given.get("out"), overwrite=given.get("overwrite", False), seed=given.get("seed", 0))
    lines = [*table(outcome.findings), "", f"in {outcome.seconds:.0f} s; the page: {outcome.page}", ""]
    lines += [line for words, step in next_steps(outcome.findings, str(outcome.folder))
              for line in (f"{words}:", f"    {step}")]
    for line in lines:
        print(line)
    return Ending(0)


def _models(argv: list[str]) -> Ending:
    given = MODELS.arguments(argv)
    from tlhub.inventory import checkpoints, table

    entries = checkpoints()
    if given.get("json"):
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return Ending(0)
    for line in table(entries):
        print(printable(line))
    return Ending(0)


def _doctor(argv: list[str]) -> Ending:
    DOCTOR.arguments(argv)
    from tlhub.doctor import examine

    findings = examine()
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.topic:<{width}}  {'NOT WORKING: ' if finding.fatal else ''}{one_line(finding.words)}")
    broken = [finding.topic for finding in findings if finding.fatal]
    return Ending(1, f"tlhub cannot work here: {', '.join(broken)}") if broken else Ending(0)


_COMMANDS: tuple[tuple[Command, Callable[[list[str]], Ending]], ...] = (
    (FINETUNE, _finetune), (PLAN, _plan), (PROVE, _prove), (EVALUATE, _evaluate), (PREDICT, _predict),
    (DATA_CHECK, _data_check), (QUICKSTART, _quickstart), (MODELS, _models), (DOCTOR, _doctor))


def _asked(argv: Sequence[str], command: Command = FINETUNE) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run that a command line asks for, and the same as keyword arguments of `tlhub.finetune`."""
    choices = command.arguments(argv)
    choices.pop("debug", None)
    config = options.from_kwargs(**{name: value for name, value in choices.items() if name != "overwrite"})
    choices.pop("task", None)
    return config, choices


def _needs_launch(config: RunConfig) -> bool:
    return config.launch.num_processes > 1 and launching.is_alone()


def _engine() -> ModuleType:
    """Import what carries out runs; libraries that are interrupted while they are loaded fail in every way."""
    with listening() as stop:
        with stop.deferring("when the libraries are loaded"), environment.loading():
            from tlhub import run
        stop.raise_if_requested()
    return run


def _ending(error: BaseException, *, stopped: bool) -> Ending:
    if isinstance(error, TlhubError):
        return Ending(error.exit_code, one_line(str(error)))
    if stopped or isinstance(error, KeyboardInterrupt):  # a library may have turned the interrupt into an error
        return Ending(75, "stopped on request; the same command goes on")
    if is_disk_full(error):
        return Ending(1, one_line(f"the disk is full ({error}); free some space, or name other folders with --out and "
                                  "--data.cache_dir"))
    if launching.is_loss_of_another(error):
        return Ending(1, "another process of the group is gone; the same command goes on from the last checkpoint",
                      lost=True)
    return Ending(1, one_line(f"{type(error).__name__}: {error}") + " (--debug shows where)")


def _set_up_logging(debug: bool) -> None:
    """Let tlhub's notes through, from the first process only, and the other libraries' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("tlhub").setLevel(logging.ERROR if launching.rank() else logging.DEBUG if debug else logging.INFO)


class _OneLine(logging.Formatter):
    """Writes each message as one line without anything that a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        """Return the message of a record."""
        return one_line(super().formatMessage(record))


def _json_line(value: dict[str, Any]) -> str:
    """Return a value as JSON, characters as they are where they can be printed."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1]
                   for char in json.dumps(value, ensure_ascii=False))


def _of_rank() -> str:
    return f"[process {launching.rank()}] " if launching.rank() else ""


def _scores(scores: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in flat(scores).items() if isinstance(value, float))


def _overview() -> str:
    lines = ["usage: tlhub COMMAND ...", "", "Transfer learning over pretrained checkpoints.", ""]
    lines += [f"  {command.name:<12}{command.words}" for command, _ in _COMMANDS]
    return "\n".join([*lines, "", "tlhub COMMAND --help lists a command's options; tlhub --version tells the version."])
