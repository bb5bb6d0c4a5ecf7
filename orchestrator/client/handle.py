"""One job as an object: what `tunesmith.submit` gives. Heavy modules are imported by the methods that need them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import pandas

    from orchestrator.store import Event, Job, PointRow


class JobHandle(NamedTuple):
    """A job that was submitted, wherever it runs. It holds the id alone: every call asks anew."""

    id: str

    def status(self) -> Job:
        """The job as it is now: `.state`, `.reason`, `.step`, `.steps`, `.loss`, ..."""
        from orchestrator.client import jobs  # noqa: PLC0415

        return jobs.get(self.id)

    def follow(self) -> Iterator[Job]:
        """The job whenever something is new of it, until it has ended. Leaving early does nothing to the job."""
        from orchestrator.client import jobs  # noqa: PLC0415

        return (update.job for update in jobs.follow(self.id))

    def wait(self, timeout: float | None = None, *, check: bool = False) -> Job:
        """The job, once it has ended.

        Args:
            timeout: seconds; None waits for as long as it takes.
            check: it is an error when the job did not succeed.

        Raises:
            TimedOut: it has not ended by then.
            JobFailed: with `check`, it did not end as SUCCEEDED.
        """
        from orchestrator.client import jobs  # noqa: PLC0415

        return jobs.wait([self.id], timeout, check=check)[0]

    def logs(self, *, attempt: int | None = None, host: int = 0) -> str:
        """The output so far.

        Args:
            attempt: from 1; None: the latest.
            host: of a job over several hosts, from 0.

        Raises:
            NotFound: there is no such attempt or host.
        """
        return "".join(self._log(attempt, host, follow=False))

    def stream_logs(self, *, attempt: int | None = None, host: int = 0) -> Iterator[str]:
        """The output piece by piece, until the job ends; as `logs`."""
        return self._log(attempt, host, follow=True)

    def _log(self, attempt: int | None, host: int, *, follow: bool) -> Iterator[str]:
        from orchestrator.client import output  # noqa: PLC0415

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in output.log(self.id, attempt=attempt, host=host, follow=follow):
            yield decoder.decode(piece)

    def metrics(self, *names: str, attempt: int | None = None) -> dict[str, list[float | None]]:
        """Metrics as columns of equal length: `step`, then one a metric; None where a step has no value.

        Args:
            names: `loss`, `lr`, `grad_norm`, `eval_loss`, `tokens_per_second`, ...; none: all.
            attempt: from 1; None: the latest.
        """
        from orchestrator.client import output  # noqa: PLC0415

        return output.columns(self.points(*names, attempt=attempt))

    def points(self, *names: str, attempt: int | None = None) -> list[PointRow]:
        """The same as single values, each with its time, its attempt and the trainer's own name for it."""
        from orchestrator.client import output  # noqa: PLC0415

        return output.points([self.id], attempt=attempt, metrics=names or None)[self.id]

    def frame(self, *names: str, attempt: int | None = None) -> pandas.DataFrame:
        """The same as a data frame with the steps as its index; needs pandas."""
        import pandas  # noqa: PLC0415

        return pandas.DataFrame(self.metrics(*names, attempt=attempt)).set_index("step")

    def plot(self, metric: str = "loss", *, width: int = 100, height: int = 24) -> str:
        """The curve of a metric as text."""
        from orchestrator.client import output  # noqa: PLC0415

        return output.plot([self.id], metric, width, height)

    def events(self) -> list[Event]:
        """What happened to the job, in order."""
        from orchestrator.client import jobs  # noqa: PLC0415

        return jobs.events([self.id])

    def cancel(self, *, abandon: bool = False, wait: bool = True) -> Job:
        """End the job, with all its processes; the job as it is then.

        Args:
            abandon: wait for no host that does not answer.
            wait: until it has ended; otherwise only ask.
        """
        from orchestrator.client import actions  # noqa: PLC0415

        return actions.cancel([self.id], abandon=abandon, wait=wait).jobs[0]

    def retry(self, *, from_checkpoint: bool = False) -> int:
        """Run the ended job again; the number of the new attempt.

        Args:
            from_checkpoint: go on from its newest complete checkpoint.

        Raises:
            ActionFailed: it has not ended, or there is no checkpoint to go on from.
            MissingSecret: a secret that it needs has no value.
        """
        from orchestrator.client import actions  # noqa: PLC0415

        return actions.retry(self.id, from_checkpoint=from_checkpoint)

    def pull(self, into: str | PathLike[str] | None = None, *, files: Sequence[str] = (), everything: bool = False) -> Path:
        """Bring the results here: checkpoint, adapter, log, `metrics.csv`, `plan.json`; the folder. Called again it goes on.

        Args:
            into: the folder; None: one called as the job, here.
            files: also these files and folders of the job's folder.
            everything: the whole folder of the job, of every host.

        Raises:
            Unreachable: a host does not answer.
            AlreadyExists: the folder is a file.
        """
        from orchestrator.client import pull as client  # noqa: PLC0415

        return client.pull(self.id, None if into is None else str(into), files=files, everything=everything).folder
