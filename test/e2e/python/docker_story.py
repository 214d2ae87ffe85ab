"""What users of the Python package `docker` do, against an engine of the fake driver."""

import io
import os
import tarfile
import tempfile

import docker

client = docker.from_env()
assert client.ping() and client.version()["ApiVersion"] == "1.47"

# Runs to its end, with output, and with a failure.
assert client.containers.run("alpine", "echo from python", remove=True) == b"from python\n"
try:
    client.containers.run("alpine", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    raise AssertionError("it did not fail")
except docker.errors.ContainerError as error:
    assert (error.exit_status, error.stderr) == (3, b"bad\n"), error
try:
    client.images.get("none:1")
    raise AssertionError("it was found")
except docker.errors.ImageNotFound:
    pass

# One that stays.
one = client.containers.run(
    "alpine", ["sh", "-c", "echo up; sleep 300"], detach=True, name="one", environment={"Z": "1"}, labels={"a": "b"}
)
one.reload()
assert one.status == "running", one.status
assert [each.name for each in client.containers.list(filters={"label": "a=b"})] == ["one"]
assert client.containers.list(filters={"label": "a=c"}) == []
assert tuple(one.exec_run(["sh", "-c", "echo $Z; exit 2"])) == (2, b"1\n")
assert one.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output == (b"o\n", b"e\n")
for line in one.logs(stream=True):
    assert line == b"up\n", line
    break
with tempfile.TemporaryDirectory() as place:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("a/b.txt")
        entry.size, entry.uid, entry.gid = 3, os.getuid(), os.getgid()
        archive.addfile(entry, io.BytesIO(b"abc"))
    assert one.put_archive(place, content.getvalue())
    pieces, stat = one.get_archive(f"{place}/a")
    assert stat["name"] == "a", stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.extractfile("a/b.txt").read() == b"abc"
one.pause()
one.reload()
assert one.status == "paused", one.status
one.unpause()
one.rename("two")
one.stop(timeout=20)
assert one.wait()["StatusCode"] == 143
one.remove()

# Volumes, networks, and what there is of all of it.
volume = client.volumes.create("v-1", labels={"a": "b"})
assert client.volumes.get("v-1").attrs["Labels"] == {"a": "b"}
volume.remove()
network = client.networks.create("n-1", labels={"a": "b"})
assert [each.name for each in client.networks.list(filters={"label": "a=b"})] == ["n-1"]
network.remove()
assert client.containers.list(all=True) == []
assert client.df()["Containers"] == []
print("all is well")
