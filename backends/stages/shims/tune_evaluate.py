"""Figures of a model by lm-evaluation-harness. `python tune_evaluate.py evaluate.json`, in the job's folder.

evaluate.json: `{"model": {"folder", "adapter"}, "baseline": {"folder"} or null, "tasks": [{"name", "rows", "kind", "like"}], "gates":
[...], "shots", "limit", "batch", "seed", "chat", "dtype"}`. Leaves out/results.json (the harness's own, under `model` and `base`),
out/points.jsonl, out/samples-*.jsonl and summary.json. On failure, and when a gate is not met: exit 1, a message, and reason.json.
"""
# ruff: noqa: PLC0415 - torch comes in once the rows are known to be right

from __future__ import annotations

import json
import math
import operator
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_shared
import tune_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    Loaded = Callable[[dict[str, str], dict[str, Any]], AbstractContextManager[Any]]
    Figures = dict[str, dict[str, float]]
    Changes = dict[str, tuple[float, float | None]]

OUT = Path("out")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def main(path: str, loaded: Loaded | None = None) -> int:
    """Evaluate. 0, or 1 with a message and reason.json.

    Args:
        path: of evaluate.json.
        loaded: (the model's part of it, all of it) -> the harness's model, for as long as it is needed; None: by transformers.
    """
    spec = json.loads(Path(path).read_text("utf-8"))
    OUT.mkdir(exist_ok=True)
    (OUT / "points.jsonl").write_text("")
    found: dict[str, Any] = {}

    def evaluate() -> None:
        found.update(results=_evaluated(spec, found["tasks"], loaded or _loaded))

    return (
        tune_shared.guarded("bad_tasks", lambda: found.update(tasks=tune_tasks.tasks(spec["tasks"])))
        or tune_shared.guarded("evaluation_failed", evaluate)
        or tune_shared.guarded("gate", lambda: _check(spec["gates"], found["results"]))
    )


def _evaluated(spec: dict[str, Any], tasks: list[Any], loaded: Loaded) -> dict[str, Any]:
    """The results of the model, and of the start model."""
    with loaded(spec["model"], spec) as model:
        results = {"model": _harness(model, spec, tasks)}
    if spec["baseline"]:
        with loaded(spec["baseline"], spec) as model:
            results["base"] = _harness(model, spec, tune_tasks.tasks(spec["tasks"]))
    figures = {who: dict(_figures(each["results"])) for who, each in results.items()}
    changes = dict(_changes(results, figures)) if "base" in results else {}
    _write(results, figures, changes)
    return {"figures": figures, "changes": changes}


def _harness(model: Any, spec: dict[str, Any], tasks: list[Any]) -> dict[str, Any]:
    """What the harness itself says: `lm_eval.simple_evaluate` with these settings and nothing else."""
    from lm_eval import simple_evaluate

    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), spec["seed"])
    return simple_evaluate(
        model=model,
        tasks=[dict(each) if isinstance(each, dict) else each for each in tasks],
        task_manager=tune_tasks.manager(everything=any(isinstance(each, str) for each in tasks)),
        num_fewshot=spec["shots"] or None,
        limit=spec["limit"],
        apply_chat_template=spec["chat"],
        **seeds,
    )


@contextmanager
def _loaded(model: dict[str, str], spec: dict[str, Any]) -> Iterator[Any]:
    """The harness's own `hf` model."""
    from lm_eval.models.huggingface import HFLM

    adapter = {"peft": model["adapter"]} if model.get("adapter") else {}
    yield once(HFLM)(pretrained=model["folder"], dtype=spec["dtype"], batch_size=spec["batch"], device=_device(), **adapter)


def once(own: Any) -> Any:
    """A model of the harness's, `hf` or `vllm`, but that a whole text begins once. The harness puts BOS before it and has the tokenizer add
    another (lm-eval 0.4.13, models/huggingface.py and vllm_causallms.py, `loglikelihood_rolling`;
    https://github.com/EleutherAI/lm-evaluation-harness/issues/3333): the second is a token that the figure counts, and the text follows
    what no model was trained on.
    """

    class Model(own):
        def loglikelihood_rolling(self, *args: Any, **kwargs: Any) -> list[float]:
            """Log-likelihoods of whole texts."""
            kept, self.add_bos_token = self.add_bos_token, False
            try:
                return super().loglikelihood_rolling(*args, **kwargs)
            finally:
                self.add_bos_token = kept

    return Model


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _figures(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Task -> metric -> value. The harness writes `acc,none`: the metric and the filter of replies; another filter stays in the name."""
    for task, values in results.items():
        plain = {}
        for key, value in values.items():
            metric, comma, kind = key.partition(",")
            if comma and isinstance(value, int | float) and not isinstance(value, bool):
                plain[metric if kind == "none" else f"{metric}-{kind}"] = float(value)
        yield task, plain


def _changes(results: dict[str, Any], figures: dict[str, Figures]) -> Iterator[tuple[str, Changes]]:
    """Task -> metric -> how far the model is from the start model, and the standard error of that: over the same rows, row by row. A figure
    that is no mean over rows, as of perplexity, has a difference alone.
    """
    for task, rows in results["model"]["samples"].items():
        theirs = {row["doc_id"]: row for row in results["base"]["samples"].get(task, ())}
        pairs = [(row, theirs[row["doc_id"]]) for row in rows if row["doc_id"] in theirs]
        metrics = {name for row, _ in pairs[:1] for name in row["metrics"]}
        found = {name: _change([(a[name], b[name]) for a, b in pairs if name in a and name in b]) for name in sorted(metrics)}
        ours, base = (dict(_main(figures[who].get(task, {}))) for who in ("model", "base"))
        whole: Changes = {name: (ours[name] - base[name], None) for name in ours if name in base}
        yield task, whole | {name: value for name, value in found.items() if value}


def _change(pairs: list[tuple[Any, Any]]) -> tuple[float, float] | None:
    """Mean of the differences and its standard error; None for what is no number row by row."""
    if len(pairs) < 2 or not all(isinstance(value, int | float) for pair in pairs for value in pair):
        return None
    apart = [float(a) - float(b) for a, b in pairs]
    mean = sum(apart) / len(apart)
    variance = sum((each - mean) ** 2 for each in apart) / (len(apart) - 1)
    return mean, math.sqrt(variance / len(apart))


def _write(results: dict[str, Any], figures: dict[str, Figures], changes: dict[str, Any]) -> None:
    """Everything that is kept."""
    for who, each in results.items():
        for task, rows in each.pop("samples", {}).items():
            _lines(OUT / f"samples-{who}-{task}.jsonl", rows)
    (OUT / "results.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    points = [
        {"name": f"{'' if who == 'model' else 'base/'}{task}.{metric}", "value": value}
        for who, tasks in figures.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    ]
    for task, metrics in changes.items():
        for metric, (mean, error) in metrics.items():
            points.append({"name": f"change/{task}.{metric}", "value": mean})
            if error is not None:
                points.append({"name": f"change/{task}.{metric}_stderr", "value": error})
    _lines(OUT / "points.jsonl", points)
    lines = [
        _summary_line(task, metric, value, changes)
        for task, metrics in figures["model"].items()
        for metric, value in _main(metrics)
    ]
    Path("summary.json").write_text(json.dumps({"detail": "; ".join(lines), "figures": figures, "changes": changes}))
    print("\n".join(lines))


def _main(metrics: dict[str, float]) -> Iterable[tuple[str, float]]:
    """Figures that are told in a line: without standard errors and row counts."""
    return [(name, value) for name, value in metrics.items() if not name.endswith("_stderr")]


def _summary_line(task: str, metric: str, value: float, changes: dict[str, Any]) -> str:
    change = changes.get(task, {}).get(metric)
    if not change:
        return f"{task}.{metric} {value:.4g}"
    error = "" if change[1] is None else f" ± {change[1]:.2g}"
    return f"{task}.{metric} {value:.4g} ({change[0]:+.3g}{error})"


def _lines(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), "utf-8")


def _check(gates: list[dict[str, Any]], results: dict[str, Any]) -> None:
    """All gates, each of those not met in a line.

    Raises:
        ValueError: one is not met, or names a figure that there is not.
    """
    figures = results["figures"]
    failed = [text for each in gates if (text := _unmet(each, figures))]
    if failed:
        raise ValueError("; ".join(failed))


def _unmet(gate: dict[str, Any], figures: dict[str, Figures]) -> str:
    """Why a gate is not met; empty when it is."""
    task, metric = gate["task"], gate["metric"]
    if metric not in figures["model"].get(task, {}):
        known = ", ".join(f"{t}.{m}" for t, metrics in figures["model"].items() for m, _ in _main(metrics))
        return f"{gate['text']}: there is no figure {task}.{metric}; there are {known}"
    value = figures["model"][task][metric]
    bound = figures["base"][task][metric] + gate["number"] if gate["base"] else gate["number"]
    if _COMPARE[gate["comparison"]](value, bound):
        return ""
    beside = f", base + {gate['number']:g} is {bound:.6g}" if gate["base"] else ""
    return f"{gate['text']}: {task}.{metric} is {value:.6g}{beside}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
