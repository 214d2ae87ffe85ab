"""MCP's official Python SDK against a server, by arguments: `stdio JSON` or `http URL KEY`.

What is seen goes to standard output as one JSON object; the test beside it judges. Version 1 of the SDK (the protocol of 2025,
`ClientSession`) and version 2 (`Client`, which asks for the newest) are both spoken to.
"""

import asyncio
import contextlib
import json
import sys
import time

import anyio
import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client

NEW = hasattr(mcp, "Client")
BIG = 10_000_000


@contextlib.asynccontextmanager
async def connected(words):
    """A session that is ready."""
    async with contextlib.AsyncExitStack() as stack:
        if words[0] == "stdio":
            server = StdioServerParameters(**json.loads(words[1]))
            if NEW:
                yield await stack.enter_async_context(mcp.Client(server))
                return
            read, write = await stack.enter_async_context(stdio_client(server))
        else:
            from mcp.client import streamable_http

            headers = {"authorization": f"Bearer {words[2]}"}
            if NEW:
                import httpx2

                http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=300))
                transport = streamable_http.streamable_http_client(words[1], http_client=http)
                yield await stack.enter_async_context(mcp.Client(transport))
                return
            read, write, _ = await stack.enter_async_context(
                streamable_http.streamablehttp_client(words[1], headers=headers)
            )
        session = await stack.enter_async_context(mcp.ClientSession(read, write))
        await session.initialize()
        yield session


def text_of(result):
    """The first text of an answer."""
    return result.content[0].text


def failed(result):
    """Whether the tool says that it failed."""
    return bool(getattr(result, "is_error", getattr(result, "isError", False)))


seen = {}


async def main(words):
    nap = words.pop()
    async with connected(words) as client:
        tools = await client.list_tools()
        seen["tools"] = sorted(tool.name for tool in tools.tools)
        made = await client.call_tool("create_sandbox", {"network": "none"})
        sandbox = json.loads(text_of(made))["sandbox"]

        async def run(command, **more):
            return await client.call_tool("run_command", {"sandbox": sandbox, "command": command, **more})

        told = []

        async def progress(*said):
            told.append(said)

        answer = await client.call_tool(
            "run_command",
            {"sandbox": sandbox, "command": "for i in 1 2 3; do echo line $i; sleep 1; done; exit 3"},
            progress_callback=progress,
        )
        seen["command"] = [failed(answer), text_of(answer)]
        seen["progress"] = len(told)

        answer = await run(f"head -c {BIG} /dev/zero | tr '\\0' x")
        seen["big"] = [failed(answer), len(text_of(answer))]
        seen["big text"] = text_of(answer)[-300:]
        outputs = [r for r in (await client.list_resources()).resources if "outputs" in str(r.uri)]
        seen["outputs"] = [str(r.uri) for r in outputs]
        # The last one is that of 10 MB.
        content = (await client.read_resource(str(outputs[-1].uri))).contents[0]
        seen["resource"] = len(content.text)
        number = int(str(outputs[-1].uri).rsplit("/", 1)[1])
        rest = await client.call_tool("read_output", {"output": number, "offset": BIG - 10})
        seen["rest"] = [failed(rest), text_of(rest)[:40]]

        begun = time.monotonic()
        answer = await run(f"sleep {nap}", timeout_seconds=1)
        seen["hanging"] = [failed(answer), text_of(answer)[:200], time.monotonic() - begun < 60]

        # A call that is given up, and the session goes on.
        task = asyncio.ensure_future(run(f"echo begun; sleep {nap}", timeout_seconds=500))
        while text_of(await run(f"pgrep -fxc 'sleep {nap}' || true")).strip() != "1":
            await asyncio.sleep(0.2)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        answer = await run("echo still here")
        seen["after cancel"] = text_of(answer)
        left = "1"
        # Version 1 tells the server nothing of what it has given up.
        for _ in range(60 if NEW else 0):
            left = text_of(await run(f"pgrep -fxc 'sleep {nap}' || true")).strip()
            if left == "0":
                break
            await asyncio.sleep(1)
        seen["left of the cancelled"] = left

        answer = await client.call_tool("read_file", {"sandbox": sandbox, "path": "/none"})
        seen["no file"] = [failed(answer), text_of(answer)[:200]]
        answer = await client.call_tool("destroy_sandbox", {"sandbox": sandbox})
        seen["destroyed"] = failed(answer)
        print(json.dumps(seen), flush=True)
        seen["printed"] = True


try:
    asyncio.run(main(sys.argv[1:]))
except* anyio.BrokenResourceError:
    # Version 1 fails while it closes when the answer to what was given up comes just then.
    if not seen.get("printed"):
        raise
