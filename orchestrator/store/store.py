"""One class over either database; what it promises is in its methods."""

# ruff: noqa: S608 - what is put into SQL text here are names of our own columns; values are parameters

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .controllers import Controllers, followed_by, submitted_by
from .database import Database, chunks, marks, storable, uncollected
from .dependencies import Dependencies
from .lanes import owned, owner_of, pinned
from .notices import Notices
from .rows import Active, Changes, Duplicate, Event, Job, JobStart, NewJob, PointRow, Reading, UnknownJob, Want, as_job
from .series import series_of
from .thinning import ThinnedCurve, thinned

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

COLUMNS = ", ".join(f"jobs.{field}" for field in Job._fields)
CHANGEABLE = frozenset(Changes.__annotations__)
WAITING = "jobs.ended IS NULL AND jobs.state = 'QUEUED'"
WORKING = "jobs.ended IS NULL AND (jobs.state <> 'QUEUED' OR jobs.want <> '')"
"""As the partial indexes have it word for word, or they are not used."""
LATER = "SELECT step, value, time FROM points WHERE series = ? AND step >= ? ORDER BY step"
AS_KEPT: Mapping[str, Callable[[Any], Any]] = {"reachable": int, "rows": lambda rows: storable(json.dumps(rows))}
SHOWN = ("loss", "tokens_per_second")
"""Metrics whose latest value is kept beside the job, so that a list of jobs is one query."""


class Store:
    """One connection to the store. For one thread; open another for another, it is cheap.

    Where several state folders have it in common, each job is followed by one (`controllers`): what waits, works or has not ended is
    then that of `owner` alone, whose id begins its jobs' lanes. All can be found, shown and asked to end by everybody.
    """

    def __init__(self, database: Database, owner: str = "") -> None:
        self._database, self.owner = database, owner
        self._mine, self._followed = submitted_by(owner), followed_by(owner)
        self.dependencies = Dependencies(database, self._mine)
        self.notices = Notices(database, owner, self._mine)
        self.controllers = Controllers(database, owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database. Twice is fine."""
        self._database.close()

    # Requests of the user

    def add_job(self, job: NewJob, now: float, after: str = "") -> bool:
        """Queue a job. False when it is there already: submitting twice submits once. It belongs to whom the job `after` belongs.

        Raises:
            Duplicate: the id belongs to a job with another digest.
        """
        found = self._database.read("SELECT lane FROM jobs WHERE id = ?", (after,)) if after else []
        return bool(self.add_jobs([job], now, owner_of(found[0][0]) if found else None))

    def add_jobs(self, jobs: Iterable[NewJob], now: float, owner: str | None = None) -> set[str]:
        """Queue many jobs at once, ours or another's, all or none; ids of those that were not there yet.

        Raises:
            Duplicate: an id belongs to a job with another digest.
        """
        with self._database.write(durable=True):
            return {job.id for job in jobs if self._add(job, now, self.owner if owner is None else owner)}

    def _add(self, job: NewJob, now: float, owner: str) -> bool:
        lane = owned(job.lane, owner)
        new = (job.id, job.name, job.backend, job.target, job.digest, now, job.priority, job.planned_steps, lane)
        waits = job.not_before, job.detail, json.dumps(dict(job.labels))
        added = self._database.execute(
            "INSERT INTO jobs (id, name, backend, target, digest, submitted, priority, steps, lane, not_before, detail, labels, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'QUEUED') ON CONFLICT (id) DO NOTHING",
            (*new, *waits),
        )
        [(key, digest, there)] = self._database.read("SELECT key, digest, lane FROM jobs WHERE id = ?", (job.id,))
        if added:
            self._database.execute("INSERT INTO requests (job, text) VALUES (?, ?)", (key, job.request))
            self._append(key, Event(job.id, 1, now, "", "QUEUED", detail=job.detail))
            self.dependencies.add(key, job.after)
        if owner_of(there) != owner_of(lane):
            raise Duplicate(f"job {job.id}: this id belongs to a job that was submitted in another state folder")
        if digest != job.digest:
            raise Duplicate(
                f"job {job.id}: this id belongs to another job (its plan is {digest[:12]}, this one {job.digest[:12]})"
            )
        return bool(added)

    def ask(self, id: str, want: Want) -> bool:
        """Note what the user wants of an active job; False when it has ended or is unknown."""
        return bool(self.ask_all([id], want))

    def ask_all(self, ids: Sequence[str], want: Want) -> set[str]:
        """The same of many jobs at once: all or none is noted; those that are active."""
        asked: set[str] = set()
        with self._database.write(durable=True):
            for chunk in chunks(ids):
                where = f"id IN ({marks(chunk)}) AND ended IS NULL"
                asked |= {id for (id,) in self._database.read(f"SELECT id FROM jobs WHERE {where}{self._database.lock}", chunk)}
                self._database.execute(f"UPDATE jobs SET want = ? WHERE {where}", (want, *chunk))
        return asked

    def new_attempt(
        self,
        id: str,
        expect_states: Collection[str],
        now: float,
        *,
        ended: tuple[str, str, str] | None = None,
        why: str = "",
        positions: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Queue a job again and forget how the last attempt went (its events and points stay); the attempt's number.

        All in one transaction: no reader sees the job ended and not queued again.

        Args:
            id: of the job.
            expect_states: in which it has to be.
            now: seconds since the epoch.
            ended: state, reason and detail of the attempt that ends with this.
            why: the new attempt is made.
            positions: what the new attempt begins with; see `record`.

        Returns:
            None when the job is not in one of `expect_states`, or unknown.
        """
        with self._database.write(durable=True):
            found = self._lock(id)
            if found is None or found[1] not in expect_states:
                return None
            key, state, attempt, _ = found
            if ended:
                self._append(key, Event(id, attempt, now, state, *ended))
                state = ended[0]
            self._database.execute(
                "UPDATE jobs SET state = 'QUEUED', attempt = ?, reason = '', detail = ?, phase_step = '', want = '',"
                " reachable = 1, holder = '', step = NULL, started = NULL, ended = NULL, seen_at = NULL, loss = NULL,"
                " tokens_per_second = NULL, rows = '{}', not_before = ? WHERE key = ?",
                (attempt + 1, why, (positions or {}).get("not_before", 0.0), key),
            )
            [(lane,)] = self._database.read("SELECT lane FROM jobs WHERE key = ?", (key,))
            if pinned(lane, positions or {}) != lane:
                self._set(key, {"lane": pinned(lane, positions or {})})
            if positions:
                self._keep(key, attempt + 1, positions)
            self.dependencies.drop(key)
            self._append(key, Event(id, attempt + 1, now, state, "QUEUED", "", why))
            return attempt + 1

    # What happened

    def change(
        self,
        id: str,
        *,
        expect: Collection[str] | None,
        now: float,
        attempt: int | None = None,
        event: bool = False,
        positions: Mapping[str, Any] | None = None,
        **fields: Unpack[Changes],
    ) -> bool:
        """Set fields of a job, but only while it is in one of the states `expect` and, if given, at this attempt; and keep its `positions`.

        `None` expects nothing. A new state is an event; `event` makes one of any change. False when it did not happen:
        another writer was first, or the attempt is an old one, or there is no such job. After a power cut what the user wants and a target
        are still known; what became of the job its hosts can tell again.
        """
        if not fields or not fields.keys() <= CHANGEABLE:
            raise TypeError(f"change: should set some of {', '.join(sorted(CHANGEABLE))}, got {', '.join(fields) or 'none'}")
        values: dict[str, Any] = {name: AS_KEPT[name](value) if name in AS_KEPT else value for name, value in fields.items()}
        with self._database.write(durable=not fields.keys().isdisjoint(("want", "target"))):
            found = self._lock(id)
            if found is None or (expect is not None and found[1] not in expect) or attempt not in (None, found[2]):
                return False
            key, old, present, _ = found
            if positions is not None:
                self._keep(key, present, positions)
                values["seen_at"] = now
            state = values.get("state", old)
            self._set(key, values | ({"holder": ""} if state == "QUEUED" else {}))  # what waits is its submitter's
            if event or state != old:
                self._append(key, Event(id, present, now, old, state, values.get("reason", ""), values.get("detail", "")))
            return True

    def begin(self, starts: Iterable[JobStart], now: float) -> list[str]:
        """Take jobs out of the queue, in one transaction that a power cut does not take back; ids of those that were in it."""
        begun = []
        with self._database.write(durable=True):
            for each in starts:
                if (found := self._lock(each.id)) and found[1:3] == ("QUEUED", each.attempt):
                    self._keep(found[0], each.attempt, each.positions)
                    self._set(found[0], {"state": "STARTING", "target": each.target, "detail": "", "seen_at": now})
                    self._append(found[0], Event(each.id, each.attempt, now, "QUEUED", "STARTING"))
                    begun.append(each.id)
        return begun

    def note(self, id: str, now: float, reason: str, detail: str) -> None:
        """Write down something that happened to a job and changes nothing of it."""
        with self._database.write(durable=False):
            if found := self._lock(id):
                key, state, attempt, _ = found
                self._append(key, Event(id, attempt, now, state, state, reason, detail))

    def end_unstarted(self, state: str, reason: str, detail: str, now: float) -> list[str]:
        """End all jobs that wait and of which the user wants something, in one transaction; their ids."""
        found = f"SELECT jobs.key, jobs.id FROM jobs WHERE {WAITING} AND {WORKING}{self._mine}"
        if not self._database.read(f"{found} LIMIT 1"):
            return []
        with self._database.write(durable=False):
            rows = self._database.read(found + self._database.lock)
            for chunk in chunks([key for key, _ in rows]):
                where = f"key IN ({marks(chunk)})"
                self._database.execute(
                    "INSERT INTO events (job, attempt, time, old, state, reason, detail)"
                    f" SELECT key, attempt, ?, state, ?, ?, ? FROM jobs WHERE {where} ORDER BY key",
                    (now, state, reason, detail, *chunk),
                )
                self._database.execute(
                    f"UPDATE jobs SET state = ?, reason = ?, detail = ?, ended = ? WHERE {where}",
                    (state, reason, detail, now, *chunk),
                )
        return [id for _, id in rows]

    def explain(self, lane: str, detail: str, now: float) -> int:
        """Say of all jobs that wait in a lane and might start what they wait for; how many did not say so yet."""
        with self._database.write(durable=False):
            return self._database.execute(
                f"UPDATE jobs SET detail = ? WHERE {WAITING} AND lane = ? AND not_before <= ? AND detail <> ?",
                (detail, lane, now, detail),
            )

    def record(self, id: str, attempt: int, points: Iterable[Reading], now: float, positions: Mapping[str, Any]) -> int:
        """Keep points and how far the files they came from have been read, in one transaction; how many are news.

        A second value for the same name and step takes the place of the first: a file that was rewritten, or a trainer
        that went back to a checkpoint, has the last word, and reading the same file again changes nothing. Points of an
        old attempt are kept; only those of the present one show in the job's step, loss, speed and `seen_at`.

        Raises:
            UnknownJob: there is no such job.
            ValueError: a step that is negative, or 2**63 or more.
        """
        latest = {(storable(name), step): (float(value), native) for step, name, value, native in points}
        for name, step in latest:
            if not 0 <= step < 1 << 63:
                raise ValueError(f"job {id}: {name}: step should be from 0 to 2**63 - 1, got {step}")
        with self._database.write(durable=False):
            found = self._lock(id)
            if found is None:
                if self.job(id):  # another controller follows it
                    return 0
                raise UnknownJob(f"no job {id}")
            key, _, present, reached = found
            natives = {name: native for (name, _), (_, native) in latest.items()}
            series = series_of(self._database, key, attempt, natives) if natives else {}
            news = (
                self._database.put((series[name], step, value, now) for (name, step), (value, _) in latest.items())
                if latest
                else 0
            )
            self._keep(key, attempt, positions)
            if attempt == present:
                steps = [step for _, step in latest]
                self._set(key, {"seen_at": now, "step": max(steps if reached is None else [reached, *steps], default=None)})
                self._show(key, {name: series[name] for name in SHOWN if name in natives})
        return news

    # What is known

    def job(self, id: str) -> Job | None:
        """The job with exactly this id."""
        return next(iter(self._jobs("WHERE jobs.id = ?", (id,))), None)

    def by_id(self, ids: Iterable[str]) -> dict[str, Job]:
        """Those of these jobs that are known, however many are asked for."""
        return {job.id: job for some in chunks(list(ids)) for job in self._jobs(f"WHERE jobs.id IN ({marks(some)})", some)}

    def find(self, word: str) -> list[Job]:
        """Jobs that a user may mean, newest first: `latest`, an exact id, or the start of an id or an exact name."""
        if word == "latest":
            return self.jobs(limit=1)
        if not word:
            return []
        if exact := self.job(word):  # by the index: a caller may have thousands of ids
            return [exact]
        return self._jobs("WHERE substr(jobs.id, 1, ?) = ? OR jobs.name = ? ORDER BY jobs.key DESC", (len(word), word, word))

    def jobs(
        self,
        *,
        states: Collection[str] | None = None,
        name: str | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
        newest_first: bool = True,
    ) -> list[Job]:
        """Jobs that pass every filter given, in the order of submission, backwards unless told otherwise."""
        wanted = {"state": states, "name": None if name is None else [name], "id": ids}
        filters = {column: list(values) for column, values in wanted.items() if values is not None}
        if not all(filters.values()):
            return []
        where = " AND ".join(f"jobs.{column} IN ({marks(values)})" for column, values in filters.items())
        values: list[str | int] = [value for values in filters.values() for value in values]
        order = f"ORDER BY jobs.key {'DESC' if newest_first else 'ASC'}"
        if limit is not None:
            order += " LIMIT ?"
            values.append(limit)
        return self._jobs(f"{'WHERE' if where else ''} {where} {order}", values)

    def active(self) -> list[Active]:
        """Jobs that have not ended, with the reading positions of their attempt; by priority, then oldest first."""
        return self._active(f"WHERE jobs.ended IS NULL{self._followed} ORDER BY jobs.priority DESC, jobs.key")

    def unended(self, event: int) -> list[Job]:
        """Jobs of everybody that have not ended, and those to which something happened after the event with this key."""
        happened = "jobs.key IN (SELECT events.job FROM events WHERE events.key > ?) AND jobs.ended IS NOT NULL"
        return self._jobs(f"WHERE jobs.ended IS NULL UNION ALL SELECT {COLUMNS} FROM jobs WHERE {happened}", (event,))

    def last_event(self) -> int:
        """Key of the newest event; 0 where there is none."""
        return int(self._database.read("SELECT coalesce(max(key), 0) FROM events")[0][0])

    def mark(self) -> str:
        """The same as before as long as nobody else has written anything: see `Database.mark`."""
        return self._database.mark()

    def has_active(self) -> bool:
        """Is there a job that has not ended?"""
        return bool(self._database.read(f"SELECT 1 FROM jobs WHERE ended IS NULL{self._followed} LIMIT 1"))

    def latest(self, number: int) -> tuple[list[Job], dict[str, int]]:
        """The newest jobs and the newest at work, so many of each, newest first; and how many jobs there are in each state."""
        found = "SELECT key FROM (SELECT jobs.key FROM jobs {} ORDER BY jobs.key DESC LIMIT ?) AS newest"
        keys = f"{found.format('')} UNION {found.format(f'WHERE {WORKING}')}"
        counts = dict(self._database.read("SELECT state, count(*) FROM jobs GROUP BY state"))
        return self._jobs(f"WHERE jobs.key IN ({keys}) ORDER BY jobs.key DESC", (number, number)), counts

    def working(self) -> list[Active]:
        """As `active`, without those that wait and of which the user wants nothing: what has to be looked at."""
        return self._active(f"WHERE {WORKING}{self._followed} ORDER BY jobs.priority DESC, jobs.key")

    def left_behind(self) -> list[Active]:
        """As `working`, jobs of controllers whose lease has run out."""
        others = self.controllers.expired()
        return [each for of in others for each in self._active(f"WHERE {WORKING}{followed_by(of.owner)} ORDER BY jobs.key")]

    def lanes(self) -> list[str]:
        """Lanes in which jobs wait. It takes time by the number of lanes, not of jobs."""
        following = f"SELECT min(jobs.lane) FROM jobs WHERE {WAITING}{self._mine}"
        rows = self._database.read(
            f"WITH RECURSIVE found (lane) AS ({following} UNION ALL"
            f" SELECT ({following} AND jobs.lane > found.lane) FROM found WHERE found.lane IS NOT NULL)"
            " SELECT lane FROM found WHERE lane IS NOT NULL"
        )
        return [lane for (lane,) in rows]

    def waiting(self, lane: str, now: float, *, skip: int = 0, limit: int) -> list[Active]:
        """Jobs of a lane that may start, as `active`, without the first `skip`."""
        return self._active(
            f"WHERE {WAITING} AND jobs.want = '' AND jobs.lane = ? AND jobs.not_before <= ?"
            " ORDER BY jobs.priority DESC, jobs.key LIMIT ? OFFSET ?",
            (lane, now, limit, skip),
        )

    def request(self, id: str) -> str:
        """The request that a job was submitted with.

        Raises:
            UnknownJob: there is no such job.
        """
        rows = self._database.read(
            "SELECT requests.text FROM requests JOIN jobs ON jobs.key = requests.job WHERE jobs.id = ?", (id,)
        )
        if not rows:
            raise UnknownJob(f"no job {id}")
        return str(rows[0][0])

    def events(self, id: str) -> list[Event]:
        """What happened to a job, in order."""
        rows = self._database.read(
            "SELECT jobs.id, events.attempt, events.time, events.old, events.state, events.reason, events.detail"
            " FROM events JOIN jobs ON jobs.key = events.job WHERE jobs.id = ? ORDER BY events.key",
            (id,),
        )
        return [Event(*row) for row in rows]

    def ended_for(self, reason: str) -> list[tuple[str, int, dict[str, Any]]]:
        """Job, number and positions of all attempts that ended for a reason, the oldest first."""
        rows = self._database.read(
            "SELECT jobs.id, events.attempt, positions.text FROM events JOIN jobs ON jobs.key = events.job"
            " JOIN positions ON positions.job = events.job AND positions.attempt = events.attempt"
            f" WHERE events.reason = ? AND events.reason <> ''{self._followed} ORDER BY events.key",  # the second lets the index be used
            (reason,),
        )
        return [(id, attempt, json.loads(text)) for id, attempt, text in rows]

    def positions(self, id: str, attempt: int) -> dict[str, Any]:
        """How far the files of an attempt have been read; empty before the first `record`."""
        rows = self._database.read(
            "SELECT positions.text FROM positions JOIN jobs ON jobs.key = positions.job"
            " WHERE jobs.id = ? AND positions.attempt = ?",
            (id, attempt),
        )
        return dict(json.loads(rows[0][0])) if rows else {}

    def points(
        self,
        id: str,
        *,
        attempt: int | None = None,
        names: Collection[str] | None = None,
        after_step: int | None = None,
    ) -> list[PointRow]:
        """Points of one attempt (the latest unless given), name by name, each by step."""
        series = self._database.read(
            "SELECT series.name, series.key, series.attempt, series.native FROM series JOIN jobs ON jobs.key = series.job"
            " WHERE jobs.id = ? AND series.attempt = coalesce(?, jobs.attempt)",
            (id, attempt),
        )
        first = 0 if after_step is None else after_step + 1
        row = tuple.__new__  # as `_make`, without counting to six: a tenth of the time, with the look before float()
        with uncollected():
            return [
                row(PointRow, (step, name, value if value.__class__ is float else float(value), time, number, native))
                for name, key, number, native in sorted(series)
                if names is None or name in names
                for step, value, time in self._database.each(LATER, (key, first))
            ]

    def curves(self, id: str, pixels: int) -> dict[str, ThinnedCurve]:
        """Metrics of the latest attempt by name, each with so few points that they fit a drawing of this width."""
        series = self._database.read(
            "SELECT series.name, series.key FROM series JOIN jobs ON jobs.key = series.job"
            " WHERE jobs.id = ? AND series.attempt = jobs.attempt",
            (id,),
        )
        return {name: thinned(self._database, key, pixels) for name, key in sorted(series)}

    # Inside

    def _active(self, rest: str, values: Sequence[Any] = ()) -> list[Active]:
        rows = self._database.read(
            f"SELECT jobs.key, positions.text, jobs.lane, jobs.holder, jobs.fence, {COLUMNS} FROM jobs LEFT JOIN positions"
            f" ON positions.job = jobs.key AND positions.attempt = jobs.attempt {rest}",
            values,
        )
        return [
            Active(as_job(row), json.loads(text) if text else {}, key, owner_of(lane), holder, fence)
            for key, text, lane, holder, fence, *row in rows
        ]

    def _jobs(self, rest: str, values: Sequence[Any]) -> list[Job]:
        with uncollected():
            return [as_job(row) for row in self._database.read(f"SELECT {COLUMNS} FROM jobs {rest}", values)]

    def _lock(self, id: str) -> tuple[int, str, int, int | None] | None:
        """Key, state, attempt and step of a job, which no other writer changes until the transaction ends; None where it is not ours to change."""
        columns = f"jobs.key, jobs.state, jobs.attempt, jobs.step{self.controllers.columns}"
        rows = self._database.read(f"SELECT {columns} FROM jobs WHERE jobs.id = ?{self._database.lock}", (id,))
        found = rows[0] if rows and self.controllers.may_write(*rows[0][4:]) else None
        return (found[0], found[1], found[2], found[3]) if found else None

    def _keep(self, key: int, attempt: int, positions: Mapping[str, Any]) -> None:
        self._database.execute(
            "INSERT INTO positions (job, attempt, text) VALUES (?, ?, ?)"
            " ON CONFLICT (job, attempt) DO UPDATE SET text = excluded.text",
            (key, attempt, json.dumps(dict(positions))),
        )

    def _set(self, key: int, values: Mapping[str, Any]) -> None:
        """Set columns of a job; their names are ours."""
        columns = ", ".join(f"{column} = ?" for column in values)
        self._database.execute(f"UPDATE jobs SET {columns} WHERE key = ?", (*values.values(), key))

    def _show(self, key: int, series: Mapping[str, int]) -> None:
        """Bring the columns beside a job up to the latest points of these series."""
        for column, number in series.items():
            latest = "SELECT value FROM points WHERE series = ? ORDER BY step DESC LIMIT 1"
            self._database.execute(f"UPDATE jobs SET {column} = ({latest}) WHERE key = ?", (number, key))

    def _append(self, key: int, event: Event) -> None:
        self._database.execute(
            "INSERT INTO events (job, attempt, time, old, state, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, *event[1:]),
        )
