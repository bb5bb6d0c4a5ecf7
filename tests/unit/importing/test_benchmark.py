"""The benchmark of the import still measures what there is: it is run last, when all else has passed."""

import importlib.util
import pickle

from tests.conftest import ROOT


def test_the_benchmark_reads_the_corpus(corpus):
    """Its program imports the configs that these tests have."""
    spec = importlib.util.spec_from_file_location("importing", ROOT / "benchmarks" / "importing.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    some = dict(list(corpus("torchtune").files.items())[:3])
    _, told = made.timed(["-c", made.ALL], pickle.dumps(some))
    assert float(told.split()[0]) >= 1
