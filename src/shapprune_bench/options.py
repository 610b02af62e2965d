"""What ``shapprune bench`` is told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapprune.cli.options import BenchOptions
from shapprune.errors import InputError
from shapprune.utils.text import suggest

_MOST_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """The command's options, as its ``--help`` explains them.

    Attributes:
        what: an experiment, a study, "list" or "report".
        results: of a report; the models of what is measured on a manifest.
        profile: which models the paper's experiments are made on.
        data_root: the folder of the data; None: that of a manifest, else the present one.
        out: folder of the results.
        cache: folder of trained models.
        jobs: processes side by side.
        ray: a cluster's address; its machines compute then.
        rows, methods: only these.
        draws: of the images, a model; None: one of a study, and all that an experiment has.
        per_class: clean images a class; 0: they are recovered.
        calibrate: where a fitted calibration goes.
        by_verdict: repair what the verdict names.
        retry_failed: compute again what has failed.
        dry_run: tell the plan, and do nothing.
        device: see `pick_device`.
    """

    @classmethod
    def of(cls, typed: BenchOptions) -> "Options":
        """Those of a parsed command line."""
        return cls(**vars(typed))

    @property
    def folder(self) -> Path:
        """Where results go.

        Raises:
            InputError: it was not said.
        """
        if self.out is None:
            raise InputError("--out DIR must tell where the results go")
        return self.out

    @property
    def root(self) -> Path:
        """The folder of the data, of what names no other."""
        return self.data_root or Path()

    @property
    def models(self) -> Path:
        """The folder of trained models."""
        return (self.cache or (self.out or Path()) / "models").absolute()

    @property
    def seeds(self) -> range:
        """Of a study's draws."""
        return range(self.draws or 1)

    def chosen(self, names: Sequence[str], of: str) -> list[str]:
        """Those of the names that ``--rows`` asks for; all, if it asks for none.

        Raises:
            InputError: it asks for one that is not among them.
        """
        for name in self.rows or ():
            if name not in names:
                some = ", ".join(names[:_MOST_NAMED]) + (", …" if names[_MOST_NAMED:] else "")
                meant = suggest(name, names) or f": it has {some or 'none'}"
                raise InputError(f"{of} has no model {name!r}{meant}")
        return [name for name in names if not self.rows or name in self.rows]

    def chosen_methods(self, known: Iterable[str], of: str, *, noun: str = "method") -> list[str]:
        """Those of the known ones that ``--methods`` asks for; all, if it asks for none.

        Raises:
            InputError: it asks for one that is not among them.
        """
        names = list(known)
        for name in self.methods or ():
            if name not in names:
                meant = suggest(name, names) or f": it has {', '.join(names)}"
                raise InputError(f"{of} has no {noun} {name!r}{meant}")
        return [name for name in names if not self.methods or name in self.methods]
