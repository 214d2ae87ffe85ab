"""bash and Node.js as runners: a process each that waits for code, without Jupyter in between, so that it is there at once.

It is told what to run by one pipe and tells by another that it has; what it writes to its outputs before that is in
their pipes by then.
"""

import asyncio
import codecs
import json
import os
import re
import shlex
import shutil
import signal
import tempfile
import time

from kernels import ENDED

CHUNK = 64 << 10
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.mjs")
# Variables of bash that are of its being a worker: nothing is to be seen of it.
QUIET = {"PS1": "", "PS2": "", "HISTFILE": "", "TERM": "dumb"}


def offered():
    """Languages of the programs that this image has."""
    found = ["bash"] if shutil.which("bash") else []
    return found + (["javascript", "typescript"] if shutil.which("node") else [])


class Worker:
    """A process that runs one piece of code after the other."""

    def __init__(self, language):
        self.language = language
        self.process = None
        self.cwd = None
        self.files = None
        self.count = 0

    async def start(self, cwd):
        """Start it, and wait until it answers."""
        self.cwd = cwd
        self.count = 0
        self.files = tempfile.TemporaryDirectory(prefix="interpreter-")
        # Its standard input, or what it is told by where that is the program's own.
        told, self.tell = os.pipe()
        self.ends = {}
        theirs = []
        for name in ("stdout", "stderr", "answers"):
            self.ends[name], end = os.pipe()
            os.set_blocking(self.ends[name], False)
            theirs.append(end)
        stdout, stderr, answers = theirs
        self.answers = answers
        self.unread = b""
        if self.language == "bash":
            # An interactive one gives up what it runs when it is interrupted, and goes on.
            argv, env, stdin = ["bash", "--noprofile", "--norc", "--noediting", "-i"], {**os.environ, **QUIET}, told
        else:
            argv = ["node", "--disable-warning=ExperimentalWarning", PROGRAM, str(told), str(answers)]
            env, stdin = None, asyncio.subprocess.DEVNULL
        try:
            self.process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(told, answers) if stdin != told else (answers,),
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        finally:
            for end in (told, *theirs):
                os.close(end)
        if self.language == "bash":
            # The variables of QUIET are not for the programs that it starts.
            self.say("unset HISTFILE; set +m +o history; export -n PS1 PS2; TERM=xterm-256color\n")
        # Without the code's own word: what bash said of having no terminal is nobody's.
        async for _ in self.run("" if self.language == "bash" else "undefined", None):
            pass
        self.count = 0

    def say(self, text):
        """Tell it what to do. Its pipe takes a line at once: it has read all that came before."""
        os.write(self.tell, text.encode())

    async def restart(self):
        """A fresh process in its place; what runs in it ends."""
        await self.stop()
        await self.start(self.cwd)

    async def stop(self):
        """End it, and what it has started."""
        if self.process is None:
            return
        self.signal(signal.SIGKILL)
        await self.process.wait()
        for end in (self.tell, *self.ends.values()):
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)
        self.process = None
        self.files.cleanup()

    def signal(self, number):
        """Send a signal to it and all that it has started in its session's group."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            # It has ended.
            pass

    async def alive(self):
        """Whether it has not ended."""
        return self.process is not None and self.process.returncode is None

    async def interrupt(self):
        """Have it give up what it runs."""
        self.signal(signal.SIGINT)

    def takes_environment(self):
        """Whether an execution can have variables of its own."""
        return True

    def ask(self, code, envs):
        """Have it run code."""
        if self.language != "bash":
            script = os.path.join(self.files.name, "code.json")
            with open(script, "w", encoding="utf-8") as file:
                json.dump({"code": code, "language": self.language, "envs": envs or {}}, file)
            self.say(f"{script}\n")
            return
        script = os.path.join(self.files.name, "code")
        # What cannot be said in UTF-8 cannot be run either.
        with open(script, "w", encoding="utf-8", errors="replace") as file:
            file.write(code + "\n")
        # Others are no names of variables in bash.
        names = [name for name in envs or {} if NAME.fullmatch(name)]
        before = [f"export {name}={shlex.quote(envs[name])}" for name in names]
        after = [
            f"export {name}={shlex.quote(os.environ[name])}" if name in os.environ else f"unset {name}"
            for name in names
        ]
        answer = f"printf '%s\\n' $_vmsan >&{self.answers}"
        run = f". {script} </dev/null {self.answers}>&-"
        self.say("\n".join([*before, run, "_vmsan=$?", *after, answer, ""]))

    async def run(self, code, envs):
        """Lines of one execution, with variables of the environment that hold during it."""
        self.count += 1
        yield {"type": "number_of_executions", "execution_count": self.count}
        try:
            self.ask(code, envs)
        except BrokenPipeError:
            # It has just ended.
            yield ENDED
            return
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        decoders = {
            name: codecs.getincrementaldecoder("utf-8")(errors="replace") for name in ("stdout", "stderr")
        }
        ended = asyncio.ensure_future(self.process.wait())
        ended.add_done_callback(lambda _: news.set())
        for end in self.ends.values():
            loop.add_reader(end, news.set)
        try:
            answer = None
            while answer is None:
                await news.wait()
                news.clear()
                over = ended.done()
                answer = self.answer()
                # After the answer all is there that was written before it.
                for name, decoder in decoders.items():
                    for part in self.parts(name):
                        text = decoder.decode(part)
                        if text:
                            yield {"type": name, "text": text, "timestamp": time.time_ns() // 1000}
                if over and answer is None:
                    yield ENDED
                    return
            for line in answer:
                yield line
        finally:
            ended.cancel()
            for end in self.ends.values():
                loop.remove_reader(end)

    def parts(self, name):
        """What is in a pipe now."""
        while True:
            try:
                part = os.read(self.ends[name], CHUNK)
            except BlockingIOError:
                return
            if not part:
                asyncio.get_running_loop().remove_reader(self.ends[name])
                return
            yield part

    def answer(self):
        """The lines that an execution ends with, once it has ended."""
        self.unread += b"".join(self.parts("answers"))
        line, found, rest = self.unread.partition(b"\n")
        if not found:
            return None
        self.unread = rest
        if self.language != "bash":
            return json.loads(line)
        status = line.decode()
        return [] if status == "0" else [{"type": "error", "name": "ExitStatus", "value": status, "traceback": ""}]
