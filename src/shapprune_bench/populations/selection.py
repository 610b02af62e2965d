"""Which models of a manifest a command is about."""

from shapprune.errors import InputError
from shapprune_bench.options import Options
from shapprune_bench.populations.manifest import Specimen, read_manifest


def chosen_models(options: Options) -> list[Specimen]:
    """The models of the manifest that the command names: all, or those of ``--rows``.

    Raises:
        InputError: it names no manifest, see `read_manifest`, or it lacks one of ``--rows``.
    """
    if options.results is None:
        raise InputError(f"{options.what} needs a manifest or a folder of models after its name")
    root = options.data_root and options.data_root.absolute()
    specimens = read_manifest(options.results, data_root=root)
    chosen = options.chosen([specimen.name for specimen in specimens], str(options.results))
    return [specimen for specimen in specimens if specimen.name in chosen]
