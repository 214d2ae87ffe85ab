"""Jupyter's kernels as runners: what a kernel is, is jupyter_client's business; its messages become the lines that
clients read. A runner starts, runs code, is interrupted and stops; server.py makes contexts of them.
"""

import asyncio
import importlib
import os
import site
import time

# How often it is looked whether a silent kernel still lives, in seconds.
LOOK_S = 1.0
START_S = 300.0

# What a kernel runs before anything else, as clients expect it of E2B's: tables as columns and charts as numbers, for
# those that draw them themselves, lists and dictionaries as JSON, long ones whole, errors without colours; and the
# environment of one execution (None: as it was). No name of it stays.
PREPARE = """
def _vmsan_prepare(shell):
    import os
    import sys
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
    class Chart(JSONFormatter):
        format_type = "e2b/chart"
        print_method = "_repr_e2b_chart_"
        # Not registered for its type: what shows figures takes theirs away from all formatters.
        def __call__(self, value):
            module = sys.modules.get("matplotlib.figure")
            if module is None or not isinstance(value, module.Figure):
                return super().__call__(value)
            # E2B's own package, where the image has it; it knows some kinds of charts.
            try:
                from e2b_charts import chart_figure_to_dict
                return chart_figure_to_dict(value)
            except Exception:
                return None
    shell.display_formatter.formatters["e2b/chart"] = Chart(parent=shell.display_formatter)
    def plain(value):
        import json
        def other(part):
            if hasattr(part, "tolist"):
                return part.tolist()
            raise TypeError
        # What is no JSON (a NaN, a key that is a tuple, a list that has itself) is told as text alone.
        try:
            return json.loads(json.dumps(value, default=other, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            return None
    for kind in (list, dict):
        shell.display_formatter.formatters["application/json"].for_type(kind, plain)
    shell.display_formatter.formatters["text/plain"].max_seq_length = 0
    shell.run_line_magic("colors", "NoColor")
    class Pictures:
        # Pillow's images are told when they are shown or saved; it is not loaded for that.
        def find_spec(self, name, path=None, target=None):
            if name != "PIL.Image":
                return None
            from importlib.util import find_spec
            sys.meta_path.remove(self)
            spec = find_spec(name)
            run = spec.loader.exec_module
            def run_and_tell(module):
                run(module)
                from IPython.display import display
                save = module.Image.save
                def save_and_tell(image, file, *rest, **options):
                    save(image, file, *rest, **options)
                    if isinstance(file, str):
                        display(image)
                module.Image.save = save_and_tell
                module.Image.show = lambda image, *rest, **options: display(image)
            spec.loader.exec_module = run_and_tell
            return spec
    sys.meta_path.insert(0, Pictures())
_vmsan_prepare(get_ipython())
del _vmsan_prepare
"""

# The kernel of Python, as Jupyter registers it.
PYTHON = "python3"

# What is told when the runner ends under an execution.
ENDED = {
    "type": "error",
    "name": "UnexpectedEndOfExecution",
    "value": "The kernel ended before the execution was finished",
    "traceback": "",
}

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


async def languages():
    """The kernels that this image has, by their language in small letters."""
    # Loaded here, beside the loop: it takes seconds in an emulated guest, and the port answers long before.
    module = await asyncio.to_thread(importlib.import_module, "jupyter_client.kernelspec")
    specs = await asyncio.to_thread(module.KernelSpecManager().get_all_specs)
    found = {}
    for name, entry in sorted(specs.items()):
        found.setdefault(str(entry["spec"].get("language", name)).lower(), name)
    return found


class Kernel:
    """A kernel of Jupyter's."""

    def __init__(self, name):
        self.name = name
        self.manager = None
        self.client = None

    async def start(self, cwd):
        """Start the kernel, and wait until it answers."""
        module = await asyncio.to_thread(importlib.import_module, "jupyter_client")
        # A kernel finds what `pip install` brings meanwhile only where there was a directory for it when it began.
        try:
            os.makedirs(site.getusersitepackages(), exist_ok=True)
        except OSError:
            pass  # A home that cannot be written: nothing will be installed there.
        self.manager = module.AsyncKernelManager(kernel_name=self.name)
        await self.manager.start_kernel(cwd=cwd)
        await self.connect()

    async def connect(self):
        """Talk to the kernel that runs."""
        if self.client is not None:
            self.client.stop_channels()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=START_S)
        if self.name == PYTHON:
            async for _ in self.lines(PREPARE, silent=True):
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

    async def alive(self):
        """Whether it has not ended."""
        return await self.manager.is_alive()

    async def interrupt(self):
        """Have it give up what it runs."""
        await self.manager.interrupt_kernel()

    def takes_environment(self):
        """Whether an execution can have variables of its own."""
        return self.name == PYTHON

    async def run(self, code, envs):
        """Lines of one execution, with variables of the environment that hold during it."""
        try:
            if envs:
                await self.environment(envs)
            async for line in self.lines(code):
                yield line
        finally:
            if envs:
                await self.environment(None)

    async def environment(self, wanted):
        """Set what holds during an execution, or set back what held before it."""
        async for _ in self.lines(f"get_ipython()._vmsan_environment({wanted!r})", silent=True):
            pass

    async def lines(self, code, silent=False):
        """Lines until it is over or the kernel is."""
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
                if client is self.client and await self.alive():
                    continue
                yield ENDED
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
