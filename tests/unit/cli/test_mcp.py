"""The tools for agents, asked by the protocol's own client over a pipe."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")

mcp = pytest.importorskip("mcp")


@asynccontextmanager
async def asked(*options, cwd):
    """A session with `tune mcp`."""
    from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    about = StdioServerParameters(command=sys.executable, args=["-m", "orchestrator.cli", "mcp", *options], env=env, cwd=cwd)
    async with stdio_client(about) as (reading, writing), mcp.ClientSession(reading, writing) as session:
        await session.initialize()
        yield session


def everything(folder):
    """Paths below a folder, without what all tests share."""
    return sorted(str(path) for path in folder.rglob("*") if "/envs/" not in str(path) and "/cache/" not in str(path))


def test_looking_changes_nothing(tune, home):
    """Without --allow-actions there are at most twelve tools, all read-only; each answers, and nothing is written."""

    async def talk():
        async with asked(cwd=tune.cwd) as session:
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert len(tools) <= 12
            assert all(tool.annotations.readOnlyHint and tool.description for tool in tools.values())
            assert not {"submit", "cancel"} & set(tools)
            found = await session.call_tool("explain_setting", {"setting": "optim.lr"})
            assert json.loads(found.content[0].text)["leaf"] == "optim.lr"
            found = await session.call_tool("translate", {"recipe": QUICKSTART, "sets": {"optim.lr": "1e-3"}})
            assert "0.001" in json.loads(found.content[0].text)["litgpt"]["files"]["litgpt.yaml"]
            found = await session.call_tool("dry_run", {"recipe": QUICKSTART})
            assert "optimizer steps" in found.content[0].text
            for name in ("list_recipes", "list_targets"):
                assert not (await session.call_tool(name, {})).isError, name

    before = everything(home.parent)
    asyncio.run(talk())
    assert everything(home.parent) == before


def test_errors_have_the_way_out(tune):
    """What a tool refuses is an error of the tool, in the words of the command."""

    async def talk():
        async with asked(cwd=tune.cwd) as session:
            found = await session.call_tool("dry_run", {"recipe": QUICKSTART, "sets": {"train.stepz": "3"}})
            assert found.isError
            assert "did you mean train.steps?" in found.content[0].text
            found = await session.call_tool("get_job", {"job": "nope"})
            assert found.isError
            assert "nothing was submitted yet" in found.content[0].text
            found = await session.call_tool("submit", {"recipe": QUICKSTART, "id": "a"})
            assert found.isError

    asyncio.run(talk())


def test_a_job_by_tools(tune, home):
    """With --allow-actions a job is submitted once however often it is asked for, looked at, and cancelled."""

    async def talk():
        async with asked("--allow-actions", cwd=tune.cwd) as session:
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert len(tools) == 12
            assert [tools[name].annotations.readOnlyHint for name in ("submit", "cancel", "get_job")] == [False, False, True]
            call = {"recipe": str(tune.cwd / "r.yaml"), "id": "mine"}
            answers = [await session.call_tool("submit", call) for _ in range(2)]
            assert not answers[0].isError, answers[0].content
            assert [json.loads(each.content[0].text) for each in answers] == [
                {"id": "mine", "new": True},
                {"id": "mine", "new": False},
            ]
            jobs = (await session.call_tool("list_jobs", {})).structuredContent["result"]
            assert [each["id"] for each in jobs] == ["mine"]
            assert json.loads((await session.call_tool("get_job", {"job": "mine"})).content[0].text)["events"]
            assert not (await session.call_tool("get_log", {"job": "mine"})).isError
            done = json.loads((await session.call_tool("cancel", {"job": "mine"})).content[0].text)
            assert done["id"] == "mine"

    (tune.cwd / "rows.jsonl").write_text('{"text": "a b c"}\n' * 8)
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: mine\n"
        "model: {id: org/tiny}\n"
        "data: {train: rows.jsonl, format: text, max_length: 64}\ntrain: {steps: 2, batch: {global: 2}, precision: fp32}\noptim: {lr: 1e-3}\n"
        "native: {command: {argv: [sh, -c, sleep 600, '{data.max_length}', '{train.steps}', '{train.batch.global}', '{train.precision}', '{optim.lr}', '{data.train}', '{model.id}'], metrics: {pattern: 'step (?P<step>\\d+) loss (?P<loss>\\S+)'}, files: [x]}}\n"
    )
    asyncio.run(talk())
    assert tune.json("status", "mine")[0]["state"] == "CANCELLED"
