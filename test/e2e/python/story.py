"""What an agent does with one sandbox, by the published Python package `e2b`, synchronous and asynchronous.

Takes E2B_API_URL, E2B_SANDBOX_URL, E2B_VOLUME_API_URL and E2B_API_KEY; prints a line for each chapter that held, and ends
with status 0 when all did.
"""

import asyncio
import time
import urllib.error
import urllib.request

from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    FilesystemEventType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
    Volume,
    VolumeException,
    VolumeNotFoundException,
    VolumePathNotFoundException,
)


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def until(poll):
    for _ in range(300):
        value = poll()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("it did not come")


def control(sandbox):
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id and info.metadata == {"task": "é=&1"}, info
    assert info.state == SandboxState.RUNNING and sandbox.is_running()
    listed = Sandbox.list(query=SandboxQuery(metadata={"task": "é=&1"})).next_items()
    assert [one.sandbox_id for one in listed] == [sandbox.sandbox_id], listed
    assert Sandbox.list(query=SandboxQuery(metadata={"task": "1"})).next_items() == []
    sandbox.set_timeout(500)
    assert Sandbox.connect(sandbox.sandbox_id, timeout=10).sandbox_id == sandbox.sandbox_id
    assert sandbox.get_metrics()[0].cpu_count == 1
    fails(SandboxNotFoundException, lambda: Sandbox.connect("vm-00000000"))
    assert Sandbox.kill("vm-00000000") is False
    fails(Exception, lambda: Sandbox.create("no-such-template"))
    fails(AuthenticationException, lambda: Sandbox.create(api_key="e2b_" + "0" * 48))


def commands(sandbox):
    run = sandbox.commands.run
    result = run("echo out; echo err >&2; echo $PWD $USER $FROM_CREATE $OWN", envs={"OWN": "own"})
    assert result.stdout == "out\n/home/user user created own\n" and result.stderr == "err\n", result
    assert run("id -un; pwd", user="root", cwd="/tmp").stdout == "root\n/tmp\n"
    error = fails(CommandExitException, lambda: run("echo partial; exit 7"))
    assert error.exit_code == 7 and error.stdout == "partial\n"
    fails(TimeoutException, lambda: run("sleep 30", timeout=1))
    parts = []
    run("echo one; sleep 0.5; echo two", on_stdout=parts.append)
    assert "".join(parts) == "one\ntwo\n", parts
    assert len(run("yes ä€😀 | head -c 1000000").stdout.encode()) >= 999_990

    cat = run("while read -r line; do echo got $line; done", background=True, stdin=True)
    assert any(one.pid == cat.pid for one in sandbox.commands.list())
    sandbox.commands.send_stdin(cat.pid, "first\n")
    cat.disconnect()
    again = sandbox.commands.connect(cat.pid)
    sandbox.commands.send_stdin(cat.pid, "second\n")
    sandbox.commands.close_stdin(cat.pid)
    heard = []
    again.wait(on_stdout=heard.append)
    assert "got second\n" in "".join(heard), heard
    sleeper = run("sleep 1000", background=True)
    assert sandbox.commands.kill(sleeper.pid) is True
    fails(CommandExitException, sleeper.wait)
    assert sandbox.commands.kill(sleeper.pid) is False
    fails(NotFoundException, lambda: sandbox.commands.connect(999_999))


def files(sandbox):
    fs = sandbox.files
    assert fs.write("dir/note.txt", "Grüße").path == "/home/user/dir/note.txt"
    assert fs.read("~/dir/note.txt") == "Grüße"
    data = bytes(range(256)) * 2000
    fs.write("bytes", data)
    assert bytes(fs.read("bytes", format="bytes")) == data
    assert b"".join(fs.read("bytes", format="stream")) == data
    fs.write_files([{"path": "many/a", "data": "A"}, {"path": "many/b", "data": b"B"}])
    assert [one.name for one in fs.list("many")] == ["a", "b"]
    assert fs.make_dir("tree/deep") is True and fs.make_dir("tree/deep") is False
    fs.rename("many/a", "tree/deep/moved")
    info = fs.get_info("tree/deep/moved")
    assert (info.owner, info.size, info.permissions) == ("user", 1, "-rw-r--r--"), info
    fs.write("tagged", "1", metadata={"author": "me"})
    assert fs.get_info("tagged").metadata == {"author": "me"}
    watcher = fs.watch_dir("tree", recursive=True)
    fs.write("tree/deep/new", "1")
    seen = []

    def created():
        seen.extend((one.type, one.name) for one in watcher.get_new_events())
        return (FilesystemEventType.CREATE, "deep/new") in seen

    until(created)
    watcher.stop()
    fs.remove("tree")
    assert fs.exists("tree") is False
    fails(FileNotFoundException, lambda: fs.read("nothing"))
    fails(InvalidArgumentException, lambda: fs.read("dir"))
    url = sandbox.download_url("dir/note.txt", use_signature_expiration=60)
    assert urllib.request.urlopen(url).read().decode() == "Grüße"
    late = sandbox.download_url("dir/note.txt", use_signature_expiration=-60)
    assert fails(urllib.error.HTTPError, lambda: urllib.request.urlopen(late)).code == 401


def terminal(sandbox):
    from e2b import PtySize

    pty = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.resize(pty.pid, PtySize(rows=40, cols=100))
    sandbox.pty.send_stdin(pty.pid, b"stty size; exit 3\n")
    screen = bytearray()
    error = fails(CommandExitException, lambda: pty.wait(on_pty=screen.extend))
    assert error.exit_code == 3 and b"40 100" in screen, screen


async def asynchronous(sandbox_id):
    sandbox = await AsyncSandbox.connect(sandbox_id)
    results = await asyncio.gather(*(sandbox.commands.run(f"echo {i}") for i in range(5)))
    assert [one.stdout for one in results] == [f"{i}\n" for i in range(5)]
    await sandbox.files.write("from-async", "async")
    assert await sandbox.files.read("from-async") == "async"
    events = []
    handle = await sandbox.files.watch_dir(".", on_event=events.append)
    await sandbox.files.write("watched", "1")
    for _ in range(300):
        if any(one.name == "watched" for one in events):
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(events)
    await handle.stop()


def end(sandbox):
    running = sandbox.commands.run("sleep 1000", background=True)
    assert sandbox.kill() is True
    error = fails(TimeoutException, running.wait)
    assert "killed or reached its end of life" in str(error), error
    assert sandbox.is_running() is False and sandbox.kill() is False
    fails(SandboxNotFoundException, lambda: Sandbox.get_info(sandbox.sandbox_id))


def volumes(sandbox, volume):
    assert [one.name for one in Volume.list()] == [volume.name]
    assert Volume.get_info(volume.volume_id).name == volume.name
    fails(VolumeNotFoundException, lambda: Volume.get_info("nowhere"))
    fails(VolumeException, lambda: Volume.create(volume.name))
    volume.write_file("/in/a", "é", force=True)
    assert sandbox.commands.run("cat /mnt/data/in/a; echo b > /mnt/data/b").stdout == "é"
    assert volume.read_file("/b") == "b\n" and volume.read_file("/b", format="bytes") == b"b\n"
    assert b"".join(volume.read_file("/b", format="stream")) == b"b\n"
    fails(VolumePathNotFoundException, lambda: volume.read_file("/c"))
    fails(VolumeException, lambda: volume.write_file("/b", "x"))
    assert volume.make_dir("/d", mode=0o700).mode == 0o700
    assert [one.path for one in volume.list("/", depth=2)] == ["/b", "/d", "/in", "/in/a"]
    assert volume.update_metadata("/b", uid=7).uid == 7
    volume.remove("/in")
    assert volume.exists("/in") is False and volume.get_info("/b").size == 2
    fails(VolumeException, lambda: Volume.destroy(volume.volume_id))


def main():
    volume = Volume.create("story")
    sandbox = Sandbox.create(
        "base",
        timeout=600,
        metadata={"task": "é=&1"},
        envs={"FROM_CREATE": "created"},
        volume_mounts={"/mnt/data": volume},
    )
    try:
        for chapter in (control, commands, files, terminal):
            chapter(sandbox)
            print(chapter.__name__, flush=True)
        volumes(sandbox, volume)
        print("volumes", flush=True)
        asyncio.run(asynchronous(sandbox.sandbox_id))
        print("asynchronous", flush=True)
        end(sandbox)
        print("end", flush=True)
    finally:
        sandbox.kill()
        Volume.destroy(volume.volume_id)


main()
