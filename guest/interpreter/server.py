"""Runs code in Jupyter kernels for E2B's code interpreter clients, inside a guest.

HTTP on a port of loopback: POST /execute (lines of JSON as things happen), /contexts (list, make, restart,
remove), GET /health. A context is one kernel of its own, with a directory; the one that nobody names is
there from the start. What a kernel is, is jupyter_client's business; this file turns its messages into the
lines that those clients read.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import os
import sys
import time
import uuid

import tornado.httpserver
import tornado.iostream
import tornado.web

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 49999
HOME = os.path.expanduser("~")
MAX_BODY = 64 << 20
MAX_CONTEXTS = 32
# How often it is looked whether a silent kernel still lives, in seconds.
LOOK_S = 1.0
START_S = 300.0
LANGUAGES = {"python": "python", "python3": "python"}

# What a kernel runs before anything else: tables as columns, for clients that draw them themselves, and the
# environment of one execution (None: as it was). No name of it stays.
PREPARE = """
def _vmsan_prepare(shell):
    import os
    before = {}
    def environment(wanted):
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        before.clear()
        before.update((name, os.environ.get(name)) for name in wanted or {})
        os.environ.update(wanted or {})
    shell._vmsan_environment = environment
    from IPython.core.formatters import JSONFormatter
    class Data(JSONFormatter):
        format_type = "e2b/data"
        print_method = "_repr_e2b_data_"
    data = Data(parent=shell.display_formatter)
    def columns(frame):
        import json
        text = frame.to_json(orient="split", date_format="iso", default_handler=str)
        split = json.loads(text)
        return {str(name): [row[i] for row in split["data"]] for i, name in enumerate(split["columns"])}
    data.for_type_by_name("pandas.core.frame", "DataFrame", columns)
    shell.display_formatter.formatters["e2b/data"] = data
_vmsan_prepare(get_ipython())
del _vmsan_prepare
"""

NAMES = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


class Refused(Exception):
    """An answer other than 200, with its words."""

    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


def result_of(content, main):
    """A result's line, of a kernel's message with data by media type."""
    line = {"type": "result", "is_main_result": main}
    extra = {}
    for kind, value in content.get("data", {}).items():
        if kind in NAMES:
            line[NAMES[kind]] = value
        else:
            extra[kind] = value
    text = line.get("text")
    # The value of a string is told as itself, not as it would be written in a program.
    if isinstance(text, str) and len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        line["text"] = text[1:-1]
    if extra:
        line["extra"] = extra
    return line


def line_of(message):
    """What clients are told of a kernel's message; None for what they are not."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        return {"type": content["name"], "text": content["text"], "timestamp": time.time_ns() // 1000}
    if kind in ("execute_result", "display_data"):
        return result_of(content, kind == "execute_result")
    if kind == "error":
        return {
            "type": "error",
            "name": content["ename"],
            "value": content["evalue"],
            "traceback": "\n".join(content["traceback"]),
        }
    if kind == "execute_input":
        return {"type": "number_of_executions", "execution_count": content["execution_count"]}
    return None


class Context:
    """One kernel. Executions in it come one after the other."""

    def __init__(self, language, cwd):
        self.id = str(uuid.uuid4())
        self.language = language
        self.cwd = cwd
        self.turn = asyncio.Lock()
        self.manager = None
        self.client = None
        # What the execution that runs now was given as `wanted`.
        self.current = None

    def view(self):
        """As clients are told."""
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    async def start(self):
        """Start the kernel, and wait until it answers."""
        # Loaded here, beside the loop: it takes seconds in an emulated guest, and the port answers long before.
        await asyncio.to_thread(importlib.import_module, "jupyter_client")
        from jupyter_client import AsyncKernelManager

        if not os.path.isdir(self.cwd):
            raise Refused(500, f"No directory {self.cwd}")
        self.manager = AsyncKernelManager(kernel_name="python3")
        await self.manager.start_kernel(cwd=self.cwd)
        await self.connect()

    async def connect(self):
        """Talk to the kernel that runs."""
        if self.client is not None:
            self.client.stop_channels()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=START_S)
        async for _ in self.run(PREPARE, silent=True):
            pass

    async def restart(self):
        """A fresh kernel in its place; what runs in it ends."""
        await self.manager.restart_kernel(now=True)
        await self.connect()

    async def stop(self):
        """End the kernel."""
        if self.client is not None:
            self.client.stop_channels()
        if self.manager is not None and self.manager.has_kernel:
            await self.manager.shutdown_kernel(now=True)

    async def run(self, code, silent=False):
        """Lines of one execution, until it is over or the kernel is."""
        client = self.client
        # An error must not take what is asked next with it: that is somebody else's.
        asked = client.execute(
            code, silent=silent, store_history=not silent, allow_stdin=False, stop_on_error=False
        )
        while True:
            try:
                message = await client.get_iopub_msg(timeout=LOOK_S)
            except Exception as problem:
                # queue.Empty: nothing was said for a while.
                if type(problem).__name__ != "Empty":
                    raise
                if client is self.client and await self.manager.is_alive():
                    continue
                yield {
                    "type": "error",
                    "name": "UnexpectedEndOfExecution",
                    "value": "The kernel ended before the execution was finished",
                    "traceback": "",
                }
                return
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "status":
                if message["content"]["execution_state"] == "idle":
                    return
                continue
            line = line_of(message)
            if line is not None:
                yield line

    async def execute(self, code, envs, wanted):
        """
        Lines of one execution, with variables of the environment that hold during it.
        wanted: tells whether somebody still waits for them; if not, nothing is run.
        """
        async with self.turn:
            if not wanted():
                return
            if not await self.manager.is_alive():
                await self.restart()
            self.current = wanted
            try:
                if envs:
                    await self.environment(envs)
                async for line in self.run(code):
                    yield line
            finally:
                self.current = None
                if envs:
                    await self.environment(None)

    async def environment(self, wanted):
        """Set what holds during an execution, or set back what held before it."""
        async for _ in self.run(f"get_ipython()._vmsan_environment({wanted!r})", silent=True):
            pass

    async def leave(self, wanted):
        """Nobody waits for an execution any more: the next one must not wait for it either."""
        if self.current is wanted:
            await self.manager.interrupt_kernel()


class Contexts:
    """All of them."""

    def __init__(self):
        self.all = {}
        self.default = asyncio.ensure_future(self.make("python", HOME))

    async def make(self, language, cwd):
        """One more. Its kernel runs when this has returned."""
        known = LANGUAGES.get(language.lower())
        if known is None:
            raise Refused(500, f"Language {language[:100]} is not offered here: {', '.join(sorted(LANGUAGES))} are")
        if len(self.all) >= MAX_CONTEXTS:
            raise Refused(500, f"There are {MAX_CONTEXTS} contexts already: remove one")
        context = Context(known, cwd)
        self.all[context.id] = context
        try:
            await context.start()
        except BaseException:
            del self.all[context.id]
            await context.stop()
            raise
        return context

    def get(self, name):
        """The one of that ID."""
        if name not in self.all:
            raise Refused(404, f"Context {name[:100]} not found")
        return self.all[name]

    def chosen(self, context_id, language):
        """The one that an execution means, or what waits for it."""
        if context_id is not None and language is not None:
            raise Refused(400, "Only one of context_id or language can be provided")
        if context_id is not None:
            return asyncio.sleep(0, self.get(context_id))
        if language is not None and LANGUAGES.get(language.lower()) != "python":
            raise Refused(500, f"Language {language[:100]} is not offered here: {', '.join(sorted(LANGUAGES))} are")
        return asyncio.shield(self.default)


class Handler(tornado.web.RequestHandler):
    """What all paths share."""

    def initialize(self, contexts):
        self.contexts = contexts

    def body(self):
        """The request's body, an object of JSON."""
        try:
            value = json.loads(self.request.body or b"{}")
        except ValueError as problem:
            raise Refused(400, f"The body is no JSON: {problem}") from problem
        if not isinstance(value, dict):
            raise Refused(400, "The body is no object")
        return value

    def text(self, body, name):
        """A field that is a text or absent."""
        value = body.get(name)
        if value is not None and not isinstance(value, str):
            raise Refused(422, f"{name} is no text")
        return value

    def write_error(self, status_code, **kwargs):
        problem = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(problem, Refused):
            status_code = problem.status
        self.set_status(status_code)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(str(problem) if problem is not None else "")

    def log_exception(self, typ, value, tb):
        if not isinstance(value, Refused):
            super().log_exception(typ, value, tb)


class Health(Handler):
    """GET /health."""

    def get(self):
        self.finish("OK")


class Execute(Handler):
    """POST /execute."""

    context = None
    closed = False

    async def post(self):
        body = self.body()
        code, envs = self.text(body, "code"), body.get("env_vars") or {}
        if code is None:
            raise Refused(422, "code is missing")
        if not isinstance(envs, dict) or not all(isinstance(value, str) for value in envs.values()):
            raise Refused(422, "env_vars is no object of texts")
        chosen = self.contexts.chosen(self.text(body, "context_id"), self.text(body, "language"))
        self.set_header("Content-Type", "application/x-ndjson")
        # Clients bound the time until an answer begins, and a first kernel takes long in an emulated guest.
        await self.flush()
        context = await chosen
        self.context, self.wanted = context, lambda: not self.closed
        async for line in context.execute(code, envs, self.wanted):
            if not self.closed:
                self.write(json.dumps(line) + "\n")
                # An end of the connection is told by on_connection_close.
                with contextlib.suppress(tornado.iostream.StreamClosedError):
                    await self.flush()

    def on_connection_close(self):
        super().on_connection_close()
        self.closed = True
        if self.context is not None:
            asyncio.ensure_future(self.context.leave(self.wanted))


class Collection(Handler):
    """GET and POST /contexts."""

    async def get(self):
        # So that the one that is there from the start is always among them.
        await asyncio.shield(self.contexts.default)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps([context.view() for context in self.contexts.all.values()]))

    async def post(self):
        body = self.body()
        language, cwd = self.text(body, "language") or "python", self.text(body, "cwd") or HOME
        context = await self.contexts.make(language, cwd)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(context.view()))


class One(Handler):
    """DELETE /contexts/ID."""

    async def delete(self, name):
        context = self.contexts.get(name)
        del self.contexts.all[name]
        await context.stop()


class Restart(Handler):
    """POST /contexts/ID/restart."""

    async def post(self, name):
        await self.contexts.get(name).restart()


async def main():
    """Serve until the end of the guest."""
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    shared = {"contexts": Contexts()}
    app = tornado.web.Application(
        [
            ("/health", Health, shared),
            ("/execute", Execute, shared),
            ("/contexts", Collection, shared),
            ("/contexts/([^/]+)", One, shared),
            ("/contexts/([^/]+)/restart", Restart, shared),
        ]
    )
    server = tornado.httpserver.HTTPServer(app, max_body_size=MAX_BODY, max_buffer_size=MAX_BODY)
    server.listen(PORT, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
