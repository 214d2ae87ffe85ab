"""Runs code for E2B's code interpreter clients, inside a guest.

HTTP on a port of loopback: POST /execute (lines of JSON as things happen), /contexts (list, make, restart,
remove), GET /health. A context is one runner of its own, with a directory; those that nobody names, one a language, are
there from the start or from their first use. Python is a kernel of Jupyter's (kernels.py), as any other is that the image has; bash and
Node.js are workers (workers.py).
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import uuid

import tornado.httpserver
import tornado.iostream
import tornado.web

from kernels import PYTHON, Kernel, languages
from workers import Worker, offered

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 49999
HOME = os.path.expanduser("~")
# How long code that nobody waits for has to end before it is interrupted again, in seconds.
INTERRUPT_S = 3.0
MAX_BODY = 64 << 20
MAX_CONTEXTS = 32

# Other words for languages.
ALIASES = {"python3": "python", "js": "javascript", "node": "javascript", "ts": "typescript", "sh": "bash"}


class Refused(Exception):
    """An answer other than 200, with its words."""

    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


def plain(language):
    """A language's one name."""
    name = language.lower().strip()
    return ALIASES.get(name, name)


def at_once():
    """Languages that are there without a look at the image's kernels."""
    return ["python", *offered()]


async def runner(language):
    """What runs a language."""
    if language == "python":
        return Kernel(PYTHON)
    if language in offered():
        return Worker(language)
    found = await languages()
    if language in found:
        return Kernel(found[language])
    known = sorted({*at_once(), *found})
    raise Refused(500, f"Language {language[:100]} is not offered here: {', '.join(known)} are")


class Context:
    """One runner. Executions in it come one after the other."""

    def __init__(self, language, cwd):
        self.id = str(uuid.uuid4())
        self.language = language
        self.cwd = cwd
        self.turn = asyncio.Lock()
        self.runner = None
        # What the execution that runs now was given as `wanted`.
        self.current = None

    def view(self):
        """As clients are told."""
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    async def start(self):
        """Start the runner, and wait until it answers."""
        if not os.path.isdir(self.cwd):
            raise Refused(500, f"No directory {self.cwd}")
        made = await runner(self.language)
        try:
            await made.start(self.cwd)
        except BaseException:
            await made.stop()
            raise
        self.runner = made

    async def restart(self):
        """A fresh runner in its place; what runs in it ends."""
        if self.runner is not None:
            await self.runner.restart()

    async def stop(self):
        """End the runner."""
        if self.runner is not None:
            await self.runner.stop()

    async def execute(self, code, envs, wanted):
        """
        Lines of one execution, with variables of the environment that hold during it.
        wanted: tells whether somebody still waits for them; if not, nothing is run.
        """
        async with self.turn:
            if not wanted():
                return
            if self.runner is None:
                await self.start()
            if not await self.runner.alive():
                await self.runner.restart()
            if envs and not self.runner.takes_environment():
                words = f"Variables of one execution are not offered for {self.language}"
                yield {"type": "error", "name": "NotOffered", "value": words, "traceback": ""}
                return
            self.current = wanted
            try:
                async for line in self.runner.run(code, envs):
                    yield line
            finally:
                self.current = None

    async def leave(self, wanted):
        """Nobody waits for an execution any more: the next one must not wait for it either."""
        while self.current is wanted:
            await self.runner.interrupt()
            # Code may let one pass, and Node.js loses one that comes just when `await` begins.
            await asyncio.sleep(INTERRUPT_S)


class Contexts:
    """All of them."""

    def __init__(self):
        self.all = {}
        # Those that nobody names, by language; what is no kernel starts when it is used.
        self.defaults = {}
        self.defaults["python"] = asyncio.ensure_future(self.make("python", HOME))
        if "javascript" in offered():
            self.defaults["javascript"] = asyncio.ensure_future(self.add("javascript", HOME))

    async def add(self, language, cwd):
        """One more, whose runner starts when it is used."""
        if len(self.all) >= MAX_CONTEXTS:
            raise Refused(500, f"There are {MAX_CONTEXTS} contexts already: remove one")
        context = Context(language, cwd)
        self.all[context.id] = context
        return context

    async def make(self, language, cwd):
        """One more. Its runner runs when this has returned."""
        context = await self.add(plain(language), cwd)
        try:
            await context.start()
        except BaseException:
            self.all.pop(context.id, None)
            raise
        return context

    def get(self, name):
        """The one of that ID."""
        if name not in self.all:
            raise Refused(404, f"Context {name[:100]} not found")
        return self.all[name]

    async def ready(self):
        """Wait until Python's is among them, which is there from the start."""
        await asyncio.shield(self.defaults["python"])

    async def default(self, language):
        """The one of a language that nobody names. One that was removed, or failed to start, is made anew."""
        known = self.defaults.get(language)
        if known is None or (known.done() and (known.exception() or known.result().id not in self.all)):
            known = self.defaults[language] = asyncio.ensure_future(self.make(language, HOME))
        return await asyncio.shield(known)

    async def remove(self, name):
        """End one."""
        context = self.get(name)
        del self.all[name]
        await context.stop()

    async def chosen(self, context_id, language):
        """What waits for the one that an execution means, once it is known that there is such a one."""
        if context_id is not None and language is not None:
            raise Refused(400, "Only one of context_id or language can be provided")
        if context_id is not None:
            return asyncio.sleep(0, self.get(context_id))
        name = plain(language or "python")
        if name not in at_once():
            await runner(name)
        return self.default(name)


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
        chosen = await self.contexts.chosen(self.text(body, "context_id"), self.text(body, "language"))
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
        await self.contexts.ready()
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
        await self.contexts.remove(name)


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
