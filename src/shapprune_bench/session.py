"""A command's tasks from the plan to the pages: what is there is kept, and all of it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from shapprune.cli.console import print_note, print_result, write_results
from shapprune.errors import InputError
from shapprune.reporting.exits import CLEAN, ERROR
from shapprune.running.on_ray import RayTasks
from shapprune.running.processes import Processes
from shapprune.running.runner import Result, Task, Work, is_left, read, run
from shapprune.utils.files import check_folder, similar_file, write_folder
from shapprune_bench.options import Options

T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Study(Generic[T]):
    """Tasks of one kind, and what is made of their results.

    Attributes:
        noun: what one of them is, in the plural.
        tasks: what is to be measured.
        work: measures one; runs in another process.
        outcome: a result that is done in few words.
        pages: the files made of those that are done, by name.
        needs: the files that one is measured on.
    """

    noun: str
    tasks: Sequence[T]
    work: Work
    outcome: Callable[[Result], str]
    pages: Callable[[Sequence[tuple[T, Result]]], dict[str, bytes]]
    needs: Callable[[T], Sequence[Path]] = lambda _: ()


def carry_out(study: Study[T], options: Options) -> int:
    """Measure what has no result yet, write the pages, and return the command's exit code.

    Raises:
        InputError: the folder or the cluster cannot be used, a file that is needed is not there,
            or see `run`.
    """
    out, tasks = options.folder, study.tasks
    check_folder(out, overwrite=True)
    if not tasks:
        raise InputError(f"{options.what}: none of the models is one that it measures")
    there = [(task, read(out, task)) for task in tasks]
    left = [t for t, result in there if is_left(result, retry_failed=options.retry_failed)]
    failed = 0 if options.retry_failed else sum(has_failed(result) for _, result in there)
    print_result(plan_words(study.noun, len(tasks), left=len(left), failed=failed))
    for file in dict.fromkeys(file for task in left for file in study.needs(task)):
        if not file.exists():
            raise InputError(f"{file} does not exist, which is needed{similar_file(file)}")
    if options.dry_run:
        return CLEAN
    make_folder(out)
    complete(tasks, study.work, options, outcome=study.outcome)
    results = [(task, read(out, task)) for task in tasks]
    done = [(task, result) for task, result in results if result and not has_failed(result)]
    lost = len(results) - len(done)
    print_result(ended_words(study.noun, done=len(done), failed=lost, out=out))
    write_results(out, study.pages(done))
    return CLEAN if len(done) == len(results) else ERROR


def plan_words(noun: str, count: int, *, left: int, failed: int) -> str:
    """What is done, what is to be done, and what has failed and is not tried again."""
    words = f"plan: {count} {noun}, {count - left - failed} done, {left} to do"
    return f"{words}, {failed} failed before (--retry-failed tries them again)" if failed else words


def ended_words(noun: str, *, done: int, failed: int, out: Path) -> str:
    """What came of a run."""
    hint = "; --retry-failed tries them again" if failed else ""
    return f"{done} {noun} done, {failed} failed; in {out}{hint}"


def has_failed(result: Result | None) -> bool:
    """Whether a task was tried and came to nothing."""
    return result is not None and result["state"] == "failed"


def make_folder(out: Path) -> None:
    """Make the folder of the results, once a command, and take away what a killed run left there.

    Raises:
        InputError: it cannot be made.
    """
    write_folder(out, {}, stale=(".*.tmp",))


def complete(
    tasks: Sequence[T],
    work: Work,
    options: Options,
    *,
    outcome: Callable[[Result], str],
    jobs: int | None = None,
    gpus: int = 0,
    ended: Callable[[], None] | None = None,
) -> None:
    """Compute the tasks that have no result yet, and tell each as it begins and ends.

    Args:
        outcome: see `Study`.
        jobs: processes side by side, if not as many as the options say.
        gpus: of a task on a cluster.
        ended: called after each task.

    Raises:
        InputError: the folder or the cluster cannot be used, or see `run`.
    """

    def on_change(task: Task, result: Result | None) -> None:
        print_note(f"{task.name}: {_outcome(result, outcome) if result else '…'}")
        if result and ended:
            ended()

    executor = (
        RayTasks(work, options.ray, gpus=gpus)
        if options.ray
        else Processes(work, jobs or options.jobs)
    )
    run(
        tasks,
        options.folder,
        executor=executor,
        on_change=on_change,
        retry_failed=options.retry_failed,
    )


def _outcome(result: Result, done: Callable[[Result], str]) -> str:
    return f"failed: {result['error']}" if result["state"] == "failed" else done(result)
