"""Uses a guest's programs by connections that stay open, and tells whoever asks what each of them says now.

Arguments: the address of another machine that echoes lines on port 7001, if there is one. It listens on port 7000; a
caller writes one word (check, draw, finish) and reads JSON.
"""

import http.client
import json
import os
import random
import secrets
import socket
import sqlite3
import ssl
import sys
import uuid

import psycopg2


class Redis:
    """A connection by the protocol itself, so that each one is just one socket."""

    def __init__(self, family, address):
        self.socket = socket.socket(family)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        self.socket.sendall(b"*%d\r\n" % len(words))
        for word in words:
            self.socket.sendall(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))

    def read(self):
        line = self.file.readline().decode().rstrip()
        kind, rest = line[:1], line[1:]
        if kind == "$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return [self.read() for _ in range(int(rest))]
        if kind not in ("+", ":"):
            raise RuntimeError(line or "the connection has ended")
        return rest

    def __call__(self, *words):
        self.send(*words)
        return self.read()


TCP = (socket.AF_INET, ("127.0.0.1", 6379))
redis = Redis(socket.AF_UNIX, "/run/redis.sock")
transaction, blocked, subscriber = Redis(*TCP), Redis(*TCP), Redis(*TCP)
redis("SET", "lasting", "x", "EX", "100000")
transaction("MULTI")
transaction("INCR", "counter")
blocked.send("BLPOP", "queue", "0")
subscriber("SUBSCRIBE", "news")

OWNER = "host=/run/postgresql dbname=postgres user=postgres"
writer = psycopg2.connect(OWNER)
write = writer.cursor()
write.execute("create table t(n int)")
write.execute("select gen_random_uuid(), random()")
writer.commit()
write.execute("insert into t values (1)")  # a transaction that stays open
reader = psycopg2.connect("host=127.0.0.1 dbname=postgres user=postgres")
reader.autocommit = True
read = reader.cursor()
read.execute("select pg_advisory_lock(7)")
read.execute("prepare p as select count(*) from t")


def database(path, mode):
    """A transaction with a thousand rows, too many for its cache, so that a journal is needed to go back."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=" + mode)
    db.execute("pragma cache_size=4")
    db.execute("create table t(n, b)")
    db.execute("insert into t values (-1, 'committed')")
    db.execute("begin immediate")
    db.executemany("insert into t values (?, ?)", [(i, "x" * 1000) for i in range(1000)])
    return db


databases = {mode: database("/root/%s.db" % mode, mode) for mode in ("wal", "delete")}

PORTS = {"nginx": 80, "node": 8081}
if os.path.isdir("/opt/programs/jre"):
    PORTS["java"] = 8082
web = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in PORTS.items()}


def get(name, path="/"):
    connection = web[name]
    if connection.sock is None:
        connection.connect()
    before = connection.sock
    connection.request("GET", path)
    text = connection.getresponse().read()
    if connection.sock is not before:
        raise RuntimeError("the connection has ended")
    return json.loads(text)


for name in web:
    get(name)

far = socket.create_connection((sys.argv[1], 7001)) if len(sys.argv) > 1 else None


def echo():
    far.sendall(b"x")
    return "answers" if far.recv(1) == b"x" else "has ended"


ssl.RAND_bytes(16)


def sql(cursor, query):
    cursor.execute(query)
    return str(cursor.fetchone()[0])


def attempt(what):
    try:
        return what()
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)


def pop():
    redis("RPUSH", "queue", "item")
    popped = blocked.read()
    blocked.send("BLPOP", "queue", "0")
    return popped[1]


def news():
    redis("PUBLISH", "news", "told")
    return subscriber.read()[2]


def check():
    said = {
        "redis transaction": lambda: transaction("INCR", "counter"),
        "redis expiry": lambda: int(redis("TTL", "lasting")) > 90000,
        "redis BLPOP": pop,
        "redis subscription": news,
        "postgres transaction": lambda: sql(write, "select count(*) from t"),
        "postgres prepared": lambda: sql(read, "execute p"),
        "postgres lock": lambda: sql(write, "select pg_try_advisory_lock(7)"),
        "sqlite wal": lambda: count(databases["wal"]),
        "sqlite delete": lambda: count(databases["delete"]),
    }
    if far is not None:
        said["far"] = echo
    for name in web:
        said[name] = lambda name=name: get(name)
    return {name: attempt(what) for name, what in said.items()}


def count(db):
    return db.execute("select count(*) from t").fetchone()[0]


def commit(db):
    db.execute("commit")
    return [count(db), db.execute("pragma integrity_check").fetchone()[0]]


def finish():
    """End all transactions."""
    writer.commit()
    done = {mode: commit(db) for mode, db in databases.items()}
    return {"redis": len(transaction("EXEC")) > 0, "postgres": sql(read, "execute p"), **done}


def draw():
    """Random values of the programs that run, and of some that are new."""
    anew = psycopg2.connect(OWNER)
    said = {
        "urandom of Python": os.urandom(8).hex(),
        "secrets of Python": secrets.token_hex(8),
        "uuid4 of Python": str(uuid.uuid4()),
        "random of Python": str(random.random()),
        "RAND_bytes of Python's ssl": ssl.RAND_bytes(8).hex(),
        "gen_random_uuid of PostgreSQL": sql(write, "select gen_random_uuid()"),
        "gen_random_uuid of a new connection": sql(anew.cursor(), "select gen_random_uuid()"),
        "random of PostgreSQL": sql(write, "select random()"),
        "ACL GENPASS of Redis": redis("ACL", "GENPASS"),
        "randomblob of SQLite": databases["wal"].execute("select hex(randomblob(8))").fetchone()[0],
    }
    anew.close()
    for name in web:
        said.update({key: str(value) for key, value in get(name, "/draw").items() if name != "nginx"})
    return said


WORDS = {"check": check, "draw": draw, "finish": finish}
server = socket.create_server(("127.0.0.1", 7000))
print("ready", flush=True)
while True:
    caller, _ = server.accept()
    word = caller.makefile().readline().strip()
    caller.sendall(json.dumps(attempt(WORDS[word])).encode())
    caller.close()
