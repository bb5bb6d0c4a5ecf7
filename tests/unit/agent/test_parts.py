"""Parts of an attempt over several machines that have one home."""

from orchestrator.agent.attempts import part_with


def test_a_path_is_in_the_part_that_has_it(tmp_path):
    """The plain folder's where it is there, else another machine's; of nothing else, and where nobody has it, the path itself."""
    for name, files in {"1": ["both"], "1@m": ["both", "theirs"], "11@m": ["other"], "2": []}.items():
        for file in files:
            (tmp_path / name / "work/out" / file).mkdir(parents=True)

    def found(attempt, file):
        return part_with(f"{tmp_path}/{attempt}/work/out/{file}").removeprefix(f"{tmp_path}/")

    assert found("1", "both") == "1/work/out/both"
    assert found("1", "theirs") == "1@m/work/out/theirs"
    assert found("1", "other") == "1/work/out/other"
    assert found("3", "theirs") == "3/work/out/theirs"
    assert part_with("/cache/x") == "/cache/x"
